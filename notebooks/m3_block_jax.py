"""MiniMax-M3's dense block between two attention layers, in plain JAX: parameters are a dict, the block is a function.

    python notebooks/m3_block_jax.py

jits the block for all devices of this machine (on a CPU eight are made up), with the tokens divided among them, and
prints what each device holds of the results and what it has to communicate: nothing. ``m3ops_jax.nnx`` has the norm
and the MLP as modules of flax.
"""

from __future__ import annotations

import re
from collections import Counter
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

import m3ops_jax

HIDDEN, INNER = 6144, 12288  # of MiniMax-M3's dense layers

Params = dict[str, jax.Array]


def init(key: jax.Array, hidden: int = HIDDEN, inner: int = INNER, dtype: Any = jnp.bfloat16) -> Params:
    """Random weights, norms at their start."""
    up, down = jax.random.split(key)
    return {
        "norm": jnp.zeros(hidden, jnp.float32),
        "gate_up": jax.random.normal(up, (hidden, 2 * inner), dtype) * hidden**-0.5,
        "down": jax.random.normal(down, (inner, hidden), dtype) * inner**-0.5,
        "next_norm": jnp.zeros(hidden, jnp.float32),
    }


def block(params: Params, x: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Norm, MLP with MXFP8 activations, residual add and the next layer's norm.

    Args:
        params: As from :func:`init`.
        x: The residual stream, shape ``[..., hidden]``.

    Returns:
        ``(input of the next layer, residual stream)``.
    """
    h = m3ops_jax.gemma_rmsnorm(x, params["norm"])
    quantized = m3ops_jax.swiglu_oai_quantize(h @ params["gate_up"])
    y = m3ops_jax.mxfp8_dequantize(quantized, out_dtype=x.dtype) @ params["down"]
    return m3ops_jax.gemma_fused_add_rmsnorm(y, x, params["next_norm"])


def collectives(compiled: jax.stages.Compiled) -> Counter[str]:
    """How often a compiled program makes devices talk to each other."""
    return Counter(re.findall(r" (all-\w+|collective-\w+|reduce-scatter)(?:-start)?\(", compiled.as_text() or ""))


def main(hidden: int = 256, inner: int = 512, tokens: int = 4096) -> None:
    """Compiles the block for all devices and prints what they communicate."""
    mesh = jax.make_mesh((jax.device_count(),), ("tokens",), axis_types=(AxisType.Auto,))
    params = jax.device_put(init(jax.random.key(0), hidden, inner), NamedSharding(mesh, P()))
    x = jax.random.normal(jax.random.key(1), (tokens, hidden), jnp.bfloat16)
    x = jax.device_put(x, NamedSharding(mesh, P("tokens")))
    compiled = jax.jit(block).lower(params, x).compile()
    for result in compiled(params, x):
        print(
            f"{result.dtype} {result.shape}: {result.addressable_shards[0].data.shape} on each of {mesh.size} devices"
        )
    print(f"collectives: {dict(collectives(compiled)) or 'none'}")


if __name__ == "__main__":
    jax.config.update("jax_num_cpu_devices", 8)
    main()
