"""MiniMax-M3's RMSNorm, dense MLP and mixture of experts as Flax NNX modules. They need the extra ``flax``."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

try:
    from flax import nnx
except ImportError as error:
    raise ImportError("m3ops_jax.nnx needs flax: in a checkout, pip install '.[flax]'", name="flax") from error

from m3ops.checkpoint import MoEWeights
from m3ops_jax import MXFP8
from m3ops_jax.gemma_rmsnorm import gemma_fused_add_rmsnorm, gemma_rmsnorm
from m3ops_jax.layers import moe_layer
from m3ops_jax.moe import moe_logits
from m3ops_jax.mxfp8 import mxfp8_dequantize
from m3ops_jax.swiglu_oai import swiglu_oai, swiglu_oai_quantize


class GemmaRMSNorm(nnx.Module):
    """:func:`gemma_rmsnorm`, or with a residual :func:`gemma_fused_add_rmsnorm`.

    Attributes:
        weight: Shape ``[N]``, initially such that the norm is multiplied by 1.
        eps: Added to the mean square.
        weight_offset: Added to the weight; 0 for the ordinary RMSNorm.
    """

    def __init__(
        self, size: int, *, eps: float = 1e-6, weight_offset: float = 1.0, param_dtype: DTypeLike = jnp.float32
    ) -> None:
        self.weight = nnx.Param(jnp.full(size, 1.0 - weight_offset, param_dtype))
        self.eps = eps
        self.weight_offset = weight_offset

    def __call__(self, x: jax.Array, residual: jax.Array | None = None) -> jax.Array | tuple[jax.Array, jax.Array]:
        """The norm of x, or ``(norm of x + residual, x + residual)``.

        Args:
            x: Shape ``[..., N]``.
            residual: The residual stream, of the shape of x; bfloat16, float16 or float32.
        """
        weight = self.weight[...]
        if residual is None:
            return gemma_rmsnorm(x, weight, eps=self.eps, weight_offset=self.weight_offset)
        return gemma_fused_add_rmsnorm(x, residual, weight, eps=self.eps, weight_offset=self.weight_offset)


class DenseMLP(nnx.Module):
    """``swiglu_oai(x @ gate_up) @ down``, with the activation rounded to MXFP8 if ``quantize`` is set.

    Attributes:
        gate_up: Shape ``[hidden, 2 * I]``, ``[gate | up]`` along the last axis.
        down: Shape ``[I, hidden]``.
        quantize: Whether the activation passes through MXFP8. It then has no derivative.
        groups: Number of pairs ``[gate | up]``: the number of devices among which tensor parallelism divides I, see
            :func:`swiglu_oai`.
    """

    def __init__(
        self,
        hidden: int,
        inner: int,
        *,
        quantize: bool = False,
        groups: int = 1,
        param_dtype: DTypeLike = jnp.bfloat16,
        rngs: nnx.Rngs,
    ) -> None:
        init = nnx.initializers.lecun_normal()
        self.gate_up = nnx.Param(init(rngs.params(), (hidden, 2 * inner), param_dtype))
        self.down = nnx.Param(init(rngs.params(), (inner, hidden), param_dtype))
        self.quantize = quantize
        self.groups = groups

    def __call__(self, x: jax.Array) -> jax.Array:
        """The MLP of x: ``[..., hidden] -> [..., hidden]``."""
        gate_up = x @ self.gate_up[...]
        if not self.quantize:
            return swiglu_oai(gate_up, groups=self.groups) @ self.down[...]
        quantized = swiglu_oai_quantize(gate_up, groups=self.groups)
        # Devices divide the groups; as an axis of their own these are rows, which need no communication.
        rows = MXFP8(*(a.reshape(*a.shape[:-1], self.groups, a.shape[-1] // self.groups) for a in quantized))
        activation = mxfp8_dequantize(rows, out_dtype=gate_up.dtype)
        return activation.reshape(quantized.values.shape) @ self.down[...]


class MoE(nnx.Module):
    """MiniMax-M3's mixture of experts: :func:`moe_logits` and :func:`moe_layer`.

    Attributes:
        weights: What :func:`moe_weights` returns, or other arrays in its place; with ``axis_name`` the whole router and
            bias, and of w13 and w2 the experts of this device. No parameters: rounded to MXFP8 they have no gradient.
        top_k: Experts of a token.
        scale: What the sum of their results is multiplied by.
        arithmetic: That of the products, ``"exact"`` or ``"fast"``.
        shared_in_stack: Whether the last expert of w13 and w2 is the shared one.
        axis_name: In a ``jax.shard_map`` the mesh axes whose devices have the experts; None if all are here.
    """

    def __init__(
        self,
        weights: MoEWeights,
        *,
        top_k: int = 4,
        scale: float = 2.0,
        arithmetic: str = "exact",
        shared_in_stack: bool = False,
        axis_name: str | tuple[str, ...] | None = None,
    ) -> None:
        self.weights = nnx.Variable(weights)
        self.top_k, self.scale, self.arithmetic, self.axis_name = top_k, scale, arithmetic, axis_name
        self.shared_in_stack = shared_in_stack

    def __call__(self, x: jax.Array) -> jax.Array:
        """The output for tokens ``[..., H]``, in bfloat16."""
        router, bias, w13, w2, shared = self.weights.get_value()
        return moe_layer(
            x,
            moe_logits(x, router),
            bias,
            w13,
            w2,
            shared,
            top_k=self.top_k,
            scale=self.scale,
            arithmetic=self.arithmetic,
            shared_in_stack=self.shared_in_stack,
            axis_name=self.axis_name,
        )
