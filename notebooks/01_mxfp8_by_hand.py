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
# # MXFP8 by hand
#
# MXFP8 stores 32 neighbours of a tensor as 32 one-byte numbers, **E4M3**, and one byte for all of them, the **E8M0**
# scale. That is 8.25 bits a number. This notebook builds both bytes with a few lines of NumPy, looks at what they can
# and cannot hold, and ends with the same bytes as `m3ops`. The formats are those of the OCP Microscaling (MX)
# specification, version 1.0.

# %%
import matplotlib.pyplot as plt
import numpy as np
import torch

import m3ops_torch

plt.style.use("m3ops.mplstyle")
device = "cuda" if torch.cuda.is_available() else "cpu"

# %% [markdown]
# ## One value: a sign, 4 bits of exponent, 3 bits of mantissa
#
# | exponent field | value |
# |---|---|
# | 1 to 15 | `±2**(exponent - 7) * (1 + mantissa / 8)` |
# | 0 | `±2**-6 * mantissa / 8`, the subnormal numbers |
# | 15 with mantissa 7 | NaN; there is no infinity |

# %%
codes = np.arange(256, dtype=np.uint8)
sign = np.where(codes >> 7, -1.0, 1.0)
exponent, mantissa = (codes >> 3) & 15, codes & 7
e4m3 = sign * np.where(exponent > 0, 2.0 ** (exponent - 7.0) * (1 + mantissa / 8), 2.0**-6 * mantissa / 8)
e4m3[(codes & 0x7F) == 0x7F] = np.nan

# PyTorch's own float8 has the same 256 values.
np.testing.assert_array_equal(e4m3, torch.from_numpy(codes).view(torch.float8_e4m3fn).float().numpy())

positive = e4m3[:0x7F]  # codes 0x00 .. 0x7E in order
print(f"smallest above 0: {positive[1]} = 2**-9, smallest normal: {positive[8]} = 2**-6, largest: {positive[-1]}")

# %% [markdown]
# Between two powers of two there are always eight numbers, so their distance doubles with each power. That is why a
# value near 400 is stored in steps of 32 and one near 4 in steps of 1/2.

# %%
fig, (near, all_of_them) = plt.subplots(2, 1, figsize=(9, 4.2))
near.eventplot(positive[positive <= 32], lineoffsets=0.5, linelengths=0.8, colors="C0")
near.set(title="E4M3 numbers from 0 to 32, on a linear axis", xlabel="value", yticks=[], xticks=range(0, 33, 4))
all_of_them.eventplot(positive[1:8], lineoffsets=0.5, linelengths=0.8, colors="C1", label="subnormal")
all_of_them.eventplot(positive[8:], lineoffsets=0.5, linelengths=0.8, colors="C0", label="normal")
all_of_them.set_xscale("log", base=2)
all_of_them.set(title="all of them above 0, on a logarithmic axis", xlabel="value", yticks=[], ylim=(0, 1.35))
all_of_them.legend(loc="upper right", ncols=2)
plt.show()

# %% [markdown]
# ## Rounding: to the nearest, ties to the even code


# %%
def round_e4m3(x: np.ndarray) -> np.ndarray:
    """The codes of the nearest numbers; a tie goes to the code whose last bit is 0, what is too large to 448."""
    above = np.clip(np.searchsorted(positive, np.abs(x)), 1, len(positive) - 1)
    below = above - 1
    to_below, to_above = np.abs(x) - positive[below], positive[above] - np.abs(x)
    tie_to_below = (to_below == to_above) & (below % 2 == 0)
    code = np.where((to_below < to_above) | tie_to_below, below, above)
    return (code | np.where(np.signbit(x), 0x80, 0)).astype(np.uint8)


for x in (1.0625, 1.1875, 300.0, -0.0014, 500.0):
    code = round_e4m3(np.array(x))
    print(f"{x:8} -> code {code:#04x} = {e4m3[code]}")

# %% [markdown]
# The relative error of a normal number is at most 1/16. Below `2**-6` the steps stop shrinking and the error grows;
# above 448 a value saturates. A scale has one task: to bring the numbers of a block into the flat part.

# %%
x = 2.0 ** np.linspace(-11, 10, 6000)
error = np.abs(e4m3[round_e4m3(x)] - x) / x

fig, axis = plt.subplots(figsize=(9, 3.4))
axis.plot(x, error, linewidth=0.9)
axis.axhline(1 / 16, color="C1", linestyle="--", label="1/16: the bound for normal numbers")
axis.axvspan(x[0], 2**-6, color="C3", alpha=0.12, label="subnormal")
axis.axvspan(448, x[-1], color="C4", alpha=0.2, label="saturated")
axis.set_xscale("log", base=2)
axis.set(title="Rounding to E4M3", xlabel="value", ylabel="relative error", xlim=(x[0], x[-1]), ylim=(0, 1.02))
axis.legend(loc="upper center")
plt.show()

# %% [markdown]
# ## One scale for 32 values
#
# E8M0 is a bare exponent: byte `b` means `2**(b - 127)`, and 255 means NaN. The byte is chosen from the largest
# magnitude of the block, `amax`. Implementations differ in the rule:
#
# | rule | exponent | |
# |---|---|---|
# | `rceil` | the smallest with `amax / 2**e <= 448` | the default of m3ops: nothing saturates |
# | `floor` | `floor(log2(amax)) - 8` | OCP MX v1.0; an amax of 1.75 to 2 times a power of two saturates |
# | vLLM's first | `floor(log2(amax))` | 7 or 8 larger than those of `rceil`: the values end up below 2 |


# %%
def exponent_of(amax: np.ndarray, rule: str) -> np.ndarray:
    fraction, power = np.frexp(amax)  # amax = fraction * 2**power with fraction in [0.5, 1)
    floor = power - 1
    if rule == "rceil":
        return floor - 8 + (2 * fraction > 1.75)  # 448 = 1.75 * 2**8
    return floor - 8 if rule == "floor" else floor


def quantize(x: np.ndarray, rule: str) -> tuple[np.ndarray, np.ndarray]:
    """Codes ``[..., 32]`` and scale bytes ``[...]`` of blocks ``[..., 32]`` without NaN or infinity."""
    amax = np.abs(x).max(axis=-1)
    e = np.where(amax > 0, np.maximum(exponent_of(amax, rule), -127), -127)
    return round_e4m3(x / 2.0 ** e[..., None]), (e + 127).astype(np.uint8)


def dequantize(codes: np.ndarray, scales: np.ndarray) -> np.ndarray:
    return e4m3[codes] * 2.0 ** (scales[..., None] - 127.0)


def snr_db(x: np.ndarray, back: np.ndarray) -> float:
    return float(10 * np.log10(np.sum(x**2) / np.sum((back - x) ** 2)))


# %% [markdown]
# Here is a block of ordinary numbers with one outlier of 61, which is 1.9 times a power of two. Under `floor` the
# outlier does not fit and saturates. Under vLLM's first rule it fits easily, but the ordinary numbers are pushed down
# into the subnormal range, where the steps are coarse, and the smallest become 0.

# %%
RULES = ("rceil", "floor", "vLLM's first")
block = np.random.default_rng(4).normal(0, 0.2, 32).astype(np.float32).astype(np.float64)
block[11] = 61.0
others = np.arange(32) != 11

fig, axes = plt.subplots(1, 3, figsize=(11, 3.9), sharey=True)
for axis, rule in zip(axes, RULES, strict=True):
    block_codes, scale = quantize(block, rule)
    back = dequantize(block_codes, scale)
    axis.plot(np.abs(block), "o", color="0.6", markersize=7, label="value")
    axis.plot(np.abs(back), "_", color="C1", markersize=11, markeredgewidth=2.2, label="after MXFP8")
    axis.set_yscale("symlog", linthresh=2**-6, linscale=0.6, base=2)
    zeros = np.count_nonzero(back == 0)
    title = f"{rule}: scale 2^{int(scale) - 127}\n61 becomes {back[11]:g}, {zeros} zeros\n"
    title += f"SNR of the others {snr_db(block[others], back[others]):.1f} dB"
    axis.set_title(title, fontsize=10)
    axis.set(xlabel="element of the block", ylim=(0, 160), yticks=[0, *2.0 ** np.arange(-6, 7, 2)])
axes[0].set_ylabel("magnitude")
axes[0].legend(loc="upper left")
plt.show()

# %% [markdown]
# ## What a rule costs over every amax
#
# The chart above shows one block. The next one shows random blocks, scaled so that the largest number is anywhere
# between two powers of two. Only the fraction of amax matters, because scales are powers of two. In blocks without
# outliers a scale that is too large costs almost nothing; one that is too small makes values saturate.

# %%
rng = np.random.default_rng(0)
shape = rng.normal(size=(200, 32))
shape /= np.abs(shape).max(axis=-1, keepdims=True)
fractions = np.linspace(1, 2, 101)[:-1]

fig, axis = plt.subplots(figsize=(9, 3.6))
for rule, style, width in zip(RULES, ("-", "-", "--"), (6, 2.2, 2.2), strict=True):  # where they are equal, all show
    snr = [snr_db(shape * f, dequantize(*quantize(shape * f, rule))) for f in fractions]
    axis.plot(fractions, snr, style, linewidth=width, label=rule)
axis.axvline(1.75, color="0.3", linestyle=":", label="448 = 1.75 x 256")
axis.set(title="Signal-to-noise ratio of normal numbers under three scale rules", xlim=(1, 2))
axis.set(xlabel="amax / the power of two below it", ylabel="SNR [dB]")
axis.legend(ncols=2)
plt.show()

# %% [markdown]
# ## The same bytes as m3ops
#
# The next cell quantizes a hundred thousand blocks of very different magnitudes by hand and with the package. On a GPU
# the package runs its Triton kernel, elsewhere its specification. It returns an `MXFP8`, which unpacks into values and
# scales.

# %%
x = rng.normal(size=(100_000, 32)) * 2.0 ** rng.integers(-100, 100, (100_000, 1))
x = x.astype(np.float32)
for rule in ("rceil", "floor"):
    ours = m3ops_torch.mxfp8_quantize(torch.from_numpy(x).to(device), scale_rule=rule)
    by_hand_values, by_hand_scales = quantize(x.astype(np.float64), rule)
    values, scales = (t.cpu().view(torch.uint8).numpy() for t in ours)
    different = np.count_nonzero(values != by_hand_values) + np.count_nonzero(scales[:, 0] != by_hand_scales)
    print(f"{rule}: {different} of {values.size + scales.size} bytes differ")
    assert different == 0

# %% [markdown]
# ## The corners
#
# `m3ops` also defines what the few lines above leave out. A NaN or an infinity makes its whole block NaN (scale byte
# 255, value bytes 0x7F), a block of zeros has scale byte 0, and no scale is below `2**-127`. The numerics page,
# `m3ops/numerics/README.md`, has all the rules.

# %%
corners = {
    "zeros of both signs": [0.0, -0.0],
    "a NaN": [1.0, np.nan],
    "an infinity": [1.0, -np.inf],
    "448 and its neighbour": [448.0, 447.0],
    "just above 448": [448.00003, 447.0],
    "the smallest fp32 number": [2.0**-149],
}
blocks = np.zeros((len(corners), 32), np.float32)
for row, head in zip(blocks, corners.values(), strict=True):
    row[: len(head)] = head
values, scales = m3ops_torch.mxfp8_quantize(torch.from_numpy(blocks).to(device))
for name, value, scale in zip(corners, values.view(torch.uint8).tolist(), scales.tolist(), strict=True):
    print(f"{name:26} scale byte {scale[0]:3}, first value bytes {value[0]:#04x} {value[1]:#04x}")
