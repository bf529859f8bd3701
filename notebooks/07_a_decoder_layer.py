# ---
# jupyter:
#   jupytext:
#     formats: ipynb,py:percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # A decoder layer
#
# A layer of MiniMax-M3 but for its attention, to copy: norms, products, QK norm with rotary embedding and a mixture of
# experts, in MXFP8. It is written once, over the functions that `m3ops_jax` and `m3ops_torch` both have, and runs in
# JAX under `jit` and in PyTorch. The bytes are the same after each step. No GPU is needed; sizes are small.

# %%
import jax
import jax.numpy as jnp
import numpy as np
import torch

import m3ops_jax
import m3ops_torch
from m3ops.rope import rope_cos_sin

HIDDEN, INNER, EXPERTS, TOP_K = 256, 96, 8, 4  # M3: 6144, 3072, 128, 4
HEADS, HEAD_DIM, ROTARY_DIM = {"num_heads_q": 4, "num_heads_k": 1, "num_heads_v": 1}, 64, 32  # M3: 64, 4 and 4 of 128
TOKENS = 24
QKV, OUT = sum(HEADS.values()) * HEAD_DIM, HEADS["num_heads_q"] * HEAD_DIM

# %% [markdown]
# ## Weights
#
# A weight is `[out, in]`, quantized along `in`: the published checkpoint has them so, and `moe_weights` reads those of
# its experts. Here they are random. The router and its bias stay in float32, the norms in bfloat16.

# %%
generator = torch.Generator().manual_seed(0)


def random(*shape, scale=1.0, dtype=torch.bfloat16):
    return torch.randn(*shape, generator=generator).mul(scale).to(dtype)


def linear(*shape):
    return m3ops_torch.mxfp8_quantize(random(*shape, scale=shape[-1] ** -0.5))


weights = {
    "input_norm": random(HIDDEN, scale=0.1),
    "qkv": linear(QKV, HIDDEN),
    "q_norm": random(HEAD_DIM, scale=0.1),
    "k_norm": random(HEAD_DIM, scale=0.1),
    "out": linear(HIDDEN, OUT),
    "post_norm": random(HIDDEN, scale=0.1),
    "router": random(EXPERTS, HIDDEN, scale=HIDDEN**-0.5, dtype=torch.float32),
    "bias": random(EXPERTS, scale=0.1, dtype=torch.float32),
    "w13": linear(EXPERTS, 2 * INNER, HIDDEN),
    "w2": linear(EXPERTS, HIDDEN, INNER),
    "shared": (linear(2 * INNER, HIDDEN), linear(HIDDEN, INNER)),
    "cos_sin": torch.from_numpy(rope_cos_sin(TOKENS, ROTARY_DIM)),
}
x = random(TOKENS, HIDDEN)
positions = torch.arange(TOKENS, dtype=torch.int32)

# %% [markdown]
# ## The layer
#
# `m` is a front end. The input is quantized in the norm's pass, once, and so is that of the experts; the router reads
# the norm itself, which `out_norm` returns too. The residual stream stays in bfloat16.


# %%
def before_attention(m, weights, x, positions):
    tokens = m.gemma_rmsnorm_quantize(x, weights["input_norm"])
    qkv = m.mxfp8_matmul(tokens, weights["qkv"])
    norms = weights["q_norm"], weights["k_norm"]
    heads = m.gemma_rmsnorm_rope_heads(qkv, *norms, weights["cos_sin"], positions, **HEADS, rotary_dim=ROTARY_DIM)
    return tokens, qkv, heads


def after_attention(m, weights, attended, x):
    out = m.mxfp8_matmul(m.mxfp8_quantize(attended), weights["out"])
    tokens, residual, norm = m.gemma_fused_add_rmsnorm_quantize(out, x, weights["post_norm"], out_norm=True)
    logits = m.moe_logits(norm, weights["router"])
    experts = weights["bias"], weights["w13"], weights["w2"], weights["shared"]
    return out, tokens, residual, norm, logits, m.moe_layer(tokens, logits, *experts, top_k=TOP_K)


# %% [markdown]
# The next layer begins with `gemma_fused_add_rmsnorm_quantize(experts' output, residual, its input_norm)`.
#
# ## Both frameworks
#
# Attention is not part of m3ops. PyTorch's is used here, and its one result goes on in both, so that what follows can
# be compared; JAX's has other bytes, as the last lines say.


# %%
def to_jax(tree):
    """The same bits as arrays of JAX."""
    if isinstance(tree, dict):
        return {name: to_jax(part) for name, part in tree.items()}
    if isinstance(tree, m3ops_torch.MXFP8):
        return m3ops_jax.MXFP8(*map(to_jax, tree), tree.scale_layout)
    if isinstance(tree, tuple):
        return tuple(map(to_jax, tree))
    bits = {1: torch.uint8, 2: torch.uint16, 4: torch.int32}[tree.itemsize]
    return jnp.asarray(tree.view(bits).numpy()).view(str(tree.dtype).removeprefix("torch."))


def attention(heads):
    q, k, v = heads.unflatten(-1, (-1, HEAD_DIM)).transpose(0, 1).split([*HEADS.values()])
    attended = torch.nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True)
    return attended.transpose(0, 1).flatten(1)


def parts(results):
    """All arrays, as bytes."""
    leaves = [part for result in results for part in (result if hasattr(result, "scales") else (result,))]
    return [
        np.asarray(leaf.view(torch.uint8) if isinstance(leaf, torch.Tensor) else leaf.view(jnp.uint8))
        for leaf in leaves
    ]


attended = attention(before_attention(m3ops_torch, weights, x, positions)[-1])
in_torch = [
    *before_attention(m3ops_torch, weights, x, positions),
    *after_attention(m3ops_torch, weights, attended, x),
]
of_jax = to_jax(weights)
in_jax = [
    *jax.jit(before_attention, static_argnums=0)(m3ops_jax, of_jax, to_jax(x), to_jax(positions)),
    *jax.jit(after_attention, static_argnums=0)(m3ops_jax, of_jax, to_jax(attended), to_jax(x)),
]
names = "input values, input scales, qkv, heads, out, norm values, norm scales, residual, norm, logits, experts"
for name, ours, theirs in zip(names.split(", "), parts(in_torch), parts(in_jax), strict=True):
    print(f"{name:13} {np.count_nonzero(ours != theirs)} of {ours.size:6} bytes differ")
    assert np.array_equal(ours, theirs)

# %% [markdown]
# A token's bytes do not depend on the batch either: here the last five tokens alone, behind the same attention.

# %%
few = after_attention(m3ops_torch, weights, attended[-5:], x[-5:])
for ours, alone in zip(parts(in_torch[3:]), parts(few), strict=True):
    assert np.array_equal(ours[-5:], alone)
print(f"{sum(part.size for part in parts(few))} bytes of five tokens are those of the batch")

# %% [markdown]
# And what a framework's own attention does to this:

# %%
q, k, v = np.split(in_jax[2].reshape(1, TOKENS, -1, HEAD_DIM), np.cumsum([*HEADS.values()])[:-1], axis=2)
theirs = jax.nn.dot_product_attention(q, k, v, is_causal=True).reshape(TOKENS, -1)
differ = np.count_nonzero(np.asarray(theirs).view(np.uint16) != attended.view(torch.uint16).numpy())
print(f"attention by JAX and by PyTorch: {differ} of {attended.numel()} elements differ")
