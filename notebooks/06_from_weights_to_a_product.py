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
# # From weights to a product
#
# A bfloat16 weight becomes MXFP8, an activation too, and `mxfp8_matmul` multiplies them in JAX and in PyTorch: the
# bytes are the same. Products of the frameworks read the same MXFP8, each with its own wishes. No GPU is needed.

# %%
import jax
import jax.numpy as jnp
import numpy as np
import torch

from m3ops.ops.mxfp8_matmul import MXFP8Matmul

import m3ops_jax
import m3ops_torch

generator = torch.Generator().manual_seed(0)


def to_jax(tensor):
    """The same bits as an array of JAX."""
    bits = {1: torch.uint8, 2: torch.uint16}[tensor.itemsize]
    return jnp.asarray(tensor.view(bits).numpy()).view(str(tensor.dtype).removeprefix("torch."))


def to_numpy(array):
    """The numbers in float64, of either framework."""
    array = array.float().numpy() if isinstance(array, torch.Tensor) else np.asarray(array, np.float32)
    return array.astype(np.float64)


# %% [markdown]
# ## Weights, quantized along K
#
# A product sums over K, so the 32 numbers that share a scale have to lie along K. A weight is stored as `[N, K]`, one
# row for each output; the last axis is the one that `mxfp8_quantize` divides into blocks.

# %%
N, K = 96, 1024
weight = torch.randn(N, K, generator=generator).mul(K**-0.5).bfloat16()
w = m3ops_torch.mxfp8_quantize(weight)
stored = w.values.nbytes + w.scales.nbytes
print(f"values {tuple(w.values.shape)} {w.values.dtype}, scales {tuple(w.scales.shape)} {w.scales.dtype}")
print(f"{weight.nbytes} bytes have become {stored}, {stored / weight.nbytes:.3f} of them")

# %% [markdown]
# ## Activations
#
# An op such as `swiglu_oai_quantize` writes its result as MXFP8 at once.

# %%
gate_up = torch.randn(40, 2 * K, generator=generator).mul(2).bfloat16()
x = m3ops_torch.swiglu_oai_quantize(gate_up)
x_jax = jax.jit(m3ops_jax.swiglu_oai_quantize)(to_jax(gate_up))
w_jax = m3ops_jax.mxfp8_quantize(to_jax(weight))
print(f"x: values {tuple(x.values.shape)}, scales {tuple(x.scales.shape)}")

# %% [markdown]
# ## The product, in both frameworks

# %%
product = m3ops_torch.mxfp8_matmul(x, w)
product_jax = jax.jit(m3ops_jax.mxfp8_matmul)(x_jax, w_jax)
differ = np.count_nonzero(np.asarray(product_jax).view(np.uint16) != product.view(torch.uint16).numpy())
print(f"{differ} of {product.numel()} elements differ")
assert differ == 0

# %% [markdown]
# The same product by the frameworks' own operations: dequantized, which is exact, and multiplied in float32. Each adds
# in an order of its own, so that the last places differ, from ours and from each other. How many do depends on the
# machine.

# %%
in_fp32 = to_numpy(m3ops_torch.mxfp8_matmul(x, w, out_dtype=torch.float32))
x_fp32, w_fp32 = (m3ops_torch.mxfp8_dequantize(q, out_dtype=torch.float32) for q in (x, w))
plain = {"PyTorch": x_fp32 @ w_fp32.T, "JAX": jax.jit(jnp.matmul)(x_fp32.numpy(), w_fp32.numpy().T)}
for name, other in plain.items():
    print(f"{name}'s product: {np.count_nonzero(to_numpy(other) != in_fp32)} of {product.numel()} elements are others")
print(f"{np.count_nonzero(to_numpy(plain['PyTorch']) != to_numpy(plain['JAX']))} differ between the two")

# %% [markdown]
# A row does not depend on the other rows. So a token's bytes are the same in a batch and alone.

# %%
alone = m3ops_torch.mxfp8_matmul(m3ops_torch.MXFP8(x.values[7:8], x.scales[7:8], x.scale_layout), w)
assert torch.equal(alone.view(torch.uint16), product[7:8].view(torch.uint16))
print("row 7 alone has the bytes of row 7 of 40")

# %% [markdown]
# ## How good it is
#
# The product of what was quantized is nearly exact. What MXFP8 costs was lost before, when the operands were rounded.

# %%
exact = to_numpy(m3ops_torch.mxfp8_dequantize(x)) @ to_numpy(m3ops_torch.mxfp8_dequantize(w)).T
unquantized = to_numpy(m3ops_torch.swiglu_oai(gate_up, out_dtype=torch.float32)) @ to_numpy(weight).T
for name, got, want in (
    ("the product in float32, against float64", in_fp32, exact),
    ("rounded to bfloat16", to_numpy(product), exact),
    ("MXFP8 against no quantization", exact, unquantized),
):
    error = np.linalg.norm(got - want) / np.linalg.norm(want)
    print(f"{name:40} relative error {error:.1e}")
    assert error < 0.1

# %% [markdown]
# ## Fast arithmetic
#
# `arithmetic="fast"` adds as a GPU's tensor cores add bfloat16 products. A row then has the same bytes in any batch,
# but others on another kind of GPU. `error_bound` says how far they may be from the exact ones. A CPU gives those.

# %%
fast = m3ops_torch.mxfp8_matmul(x, w, arithmetic="fast")
operands = (np.asarray(array) for q in (x_jax, w_jax) for array in q)
bound = MXFP8Matmul(arithmetic="fast").error_bound(*operands)
difference = np.abs(to_numpy(fast) - to_numpy(product))
print(f"largest difference {difference.max():.2g}, allowed there {bound.flat[difference.argmax()]:.2g}")
assert np.all(difference <= bound)

# %% [markdown]
# ## Other products
#
# `jax.nn.scaled_matmul` takes row-major scales as numbers, `q.e8m0`, and a leading batch axis. On Blackwell it is one
# product of MXFP8 in hardware; elsewhere, as here, JAX dequantizes first.

# %%
scaled = jax.nn.scaled_matmul(
    *(a[None] for a in (x_jax.values, w_jax.values, x_jax.e8m0, w_jax.e8m0)), preferred_element_type=jnp.bfloat16
)[0]
error = np.linalg.norm(to_numpy(scaled) - exact) / np.linalg.norm(exact)
print(f"jax.nn.scaled_matmul: relative error {error:.1e}")
assert error < 0.01

# %% [markdown]
# PyTorch's `torch.nn.functional.scaled_mm` needs Blackwell or gfx950, and scales in tiles: `"swizzle_128x4"` of CUDA,
# `"shuffle_32x8"` of ROCm 7.14 and later. A quantizing op writes either, so that nothing has to be rearranged. The page
# Choosing has a table of the consumers.

# %%
for layout in ("row_major", "swizzle_128x4", "shuffle_32x8"):
    tiled = m3ops_torch.swiglu_oai_quantize(gate_up, scale_layout=layout)
    again = m3ops_torch.mxfp8_matmul(tiled, w)
    assert torch.equal(again.view(torch.uint16), product.view(torch.uint16))
    print(f"{layout:14} scales {tuple(tiled.scales.shape)}, the same product")
