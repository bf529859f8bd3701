"""The ops as a user of PyTorch or JAX would write them, for ``torch.compile`` and ``jax.jit`` to fuse.

They compute what the specification does for finite inputs at the parameters of the workloads, up to the rounding of
fp32 (no NaN rules, no promise about bytes). The scale of a block comes from the bits of its amax, which is both right
and cheaper than ``ceil(log2(...))``. The framework's module is handed in, so that this file imports none.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from m3ops.numerics.formats import BLOCK, E4M3FN, FLOAT32, SCALE_BIAS
from m3ops.ops import OPS

Formula = Callable[..., Any]

ALPHA, BETA, LIMIT = (OPS["swiglu_oai"].params[name].default for name in ("alpha", "beta", "limit"))
EPS = OPS["gemma_rmsnorm"].params["eps"].default
HEADS = [OPS["gemma_rmsnorm_heads"].params[f"num_heads_{part}"].default for part in "qkv"]

FRACTION = FLOAT32.mantissa_bits
# An amax above 1.75 * 2**k carries into the exponent: 1.75 is the fraction of E4M3's largest number, 448.
CARRY = (1 << FRACTION) - 1 - int((E4M3FN.max / 2.0**E4M3FN.max_exponent - 1) * (1 << FRACTION))


def torch_formulas(torch: Any) -> dict[str, Formula]:
    """Formulas over tensors, by op."""

    def activation(gate_up: Any, layout: str) -> Any:
        x = gate_up.float()
        gate, up = x.chunk(2, -1) if layout == "split" else x.unflatten(-1, (-1, 2)).unbind(-1)
        gate, up = gate.clamp(max=LIMIT), up.clamp(-LIMIT, LIMIT)
        return gate * torch.sigmoid(ALPHA * gate) * (up + BETA)

    def quantize(x: Any) -> tuple[Any, Any]:
        blocks = x.unflatten(-1, (-1, BLOCK))
        amax = blocks.abs().amax(-1, keepdim=True)
        scale = (((amax.view(torch.int32) + CARRY) >> FRACTION) - E4M3FN.max_exponent).clamp(min=0)
        inv_scale = ((2 * SCALE_BIAS - scale) << FRACTION).view(torch.float32)
        return (blocks * inv_scale).to(torch.float8_e4m3fn).flatten(-2), scale.squeeze(-1).to(torch.uint8)

    def norm(x: Any, weight: Any) -> Any:
        rstd = torch.rsqrt(x.square().mean(-1, keepdim=True) + EPS)
        return x * rstd * (1.0 + weight.float())

    def mxfp8_dequantize(values: Any, scales: Any) -> Any:
        scale = (scales.int() << FRACTION).view(torch.float32)
        return (values.float().unflatten(-1, (-1, BLOCK)) * scale.unsqueeze(-1)).flatten(-2).to(torch.bfloat16)

    def gemma_rmsnorm_heads(qkv: Any, weight_q: Any, weight_k: Any) -> Any:
        q, k, v = qkv.unflatten(-1, (-1, weight_q.shape[-1])).split(HEADS, -2)
        q, k = norm(q.float(), weight_q).to(torch.bfloat16), norm(k.float(), weight_k).to(torch.bfloat16)
        return torch.cat([q, k, v], -2).flatten(-2)

    def gemma_fused_add_rmsnorm(x: Any, residual: Any, weight: Any) -> tuple[Any, Any]:
        total = x.float() + residual.float()
        return norm(total, weight).to(torch.bfloat16), total.to(torch.bfloat16)

    def gemma_fused_add_rmsnorm_quantize(x: Any, residual: Any, weight: Any) -> tuple[Any, Any, Any]:
        total = x.float() + residual.float()
        return (*quantize(norm(total, weight)), total.to(torch.bfloat16))

    return {
        "swiglu_oai": lambda gate_up, layout="split": activation(gate_up, layout).to(torch.bfloat16),
        "swiglu_oai_quantize": lambda gate_up, layout="split": quantize(activation(gate_up, layout)),
        "mxfp8_quantize": lambda x: quantize(x.float()),
        "mxfp8_dequantize": mxfp8_dequantize,
        "gemma_rmsnorm": lambda x, weight: norm(x.float(), weight).to(torch.bfloat16),
        "gemma_fused_add_rmsnorm": gemma_fused_add_rmsnorm,
        "gemma_rmsnorm_heads": gemma_rmsnorm_heads,
        "gemma_rmsnorm_quantize": lambda x, weight: quantize(norm(x.float(), weight)),
        "gemma_fused_add_rmsnorm_quantize": gemma_fused_add_rmsnorm_quantize,
    }


def jax_formulas(jax: Any) -> dict[str, Formula]:
    """Formulas over JAX arrays, by op."""
    jnp = jax.numpy

    def activation(gate_up: Any, layout: str) -> Any:
        x = gate_up.astype(jnp.float32)
        gate, up = jnp.split(x, 2, axis=-1) if layout == "split" else (x[..., 0::2], x[..., 1::2])
        gate, up = jnp.minimum(gate, LIMIT), jnp.clip(up, -LIMIT, LIMIT)
        return gate * jax.nn.sigmoid(ALPHA * gate) * (up + BETA)

    def quantize(x: Any) -> tuple[Any, Any]:
        blocks = x.reshape(*x.shape[:-1], -1, BLOCK)
        amax = jnp.max(jnp.abs(blocks), axis=-1, keepdims=True)
        scale = jnp.maximum(((amax.view(jnp.int32) + CARRY) >> FRACTION) - E4M3FN.max_exponent, 0)
        inv_scale = ((2 * SCALE_BIAS - scale) << FRACTION).view(jnp.float32)
        return (blocks * inv_scale).astype(jnp.float8_e4m3fn).reshape(x.shape), scale[..., 0].astype(jnp.uint8)

    def norm(x: Any, weight: Any) -> Any:
        rstd = jax.lax.rsqrt(jnp.mean(jnp.square(x), axis=-1, keepdims=True) + EPS)
        return x * rstd * (1.0 + weight.astype(jnp.float32))

    def mxfp8_dequantize(values: Any, scales: Any) -> Any:
        scale = (scales.astype(jnp.int32) << FRACTION).view(jnp.float32)
        blocks = values.astype(jnp.float32).reshape(*scales.shape, BLOCK)
        return (blocks * scale[..., None]).reshape(values.shape).astype(jnp.bfloat16)

    def gemma_rmsnorm_heads(qkv: Any, weight_q: Any, weight_k: Any) -> Any:
        heads = qkv.reshape(*qkv.shape[:-1], -1, weight_q.shape[-1])
        q, k, v = jnp.split(heads, [HEADS[0], HEADS[0] + HEADS[1]], axis=-2)
        q, k = (norm(x.astype(jnp.float32), w).astype(jnp.bfloat16) for x, w in ((q, weight_q), (k, weight_k)))
        return jnp.concatenate([q, k, v], axis=-2).reshape(qkv.shape)

    def gemma_fused_add_rmsnorm(x: Any, residual: Any, weight: Any) -> tuple[Any, Any]:
        total = x.astype(jnp.float32) + residual.astype(jnp.float32)
        return norm(total, weight).astype(jnp.bfloat16), total.astype(jnp.bfloat16)

    def gemma_fused_add_rmsnorm_quantize(x: Any, residual: Any, weight: Any) -> tuple[Any, Any, Any]:
        total = x.astype(jnp.float32) + residual.astype(jnp.float32)
        return (*quantize(norm(total, weight)), total.astype(jnp.bfloat16))

    return {
        "swiglu_oai": lambda gate_up, layout="split": activation(gate_up, layout).astype(jnp.bfloat16),
        "swiglu_oai_quantize": lambda gate_up, layout="split": quantize(activation(gate_up, layout)),
        "mxfp8_quantize": lambda x: quantize(x.astype(jnp.float32)),
        "mxfp8_dequantize": mxfp8_dequantize,
        "gemma_rmsnorm": lambda x, weight: norm(x.astype(jnp.float32), weight).astype(jnp.bfloat16),
        "gemma_fused_add_rmsnorm": gemma_fused_add_rmsnorm,
        "gemma_rmsnorm_heads": gemma_rmsnorm_heads,
        "gemma_rmsnorm_quantize": lambda x, weight: quantize(norm(x.astype(jnp.float32), weight)),
        "gemma_fused_add_rmsnorm_quantize": gemma_fused_add_rmsnorm_quantize,
    }
