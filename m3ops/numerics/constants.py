"""Constants of the arithmetic, shared by the specification (exact/) and the kernels (tile/).

A change here changes published bytes: the error bounds and the golden digests in tests/ pin every one of them.
"""

from __future__ import annotations

import ctypes
import struct

LOG2_E = 1.4426950408889634

ROUND_TO_INTEGER = 12582912.0
"""1.5 * 2**23: adding it to |x| < 2**22 leaves rint(x) in the low mantissa bits."""

EXP2_POLYNOMIAL = (
    1.0,
    0.6931469440460205,
    0.24022240936756134,
    0.05550757423043251,
    0.00967174768447876,
    0.0013263828586786985,
)
"""Minimax coefficients of 2**f on [-1/2, 1/2], constant term first, each an fp32 number.

Relative error in exact arithmetic 8.7e-8, with every fma rounded to fp32 1.6e-7 (1.3 ulp of the result's binade).
"""

RECIPROCAL_SEED = 0x7EF31100
"""``seed - bits(d)`` are the bits of 1/d to within 5.06 %, the best that one integer subtraction gives."""

MAX_SIGMOID_EXPONENT = 125.0
"""|alpha * gate * log2(e)| is clamped here: 2**n, 1 + 2**n and its reciprocal then stay normal numbers."""

SUM_GROUP = 8
"""Neighbouring products added as a fixed tree before the order-independent sum: what one 16-byte load of bf16 holds."""

SUM_COARSE = 192.0
"""1.5 * 2**7: adding it to -1 < y < 1 rounds y to multiples of 2**-16."""

SUM_FINE = 0.00146484375
"""1.5 * 2**-10: adding it to |r| <= 2**-17 rounds r to multiples of 2**-33."""

SUM_COARSE_GRID = 2.0**-16
SUM_FINE_GRID = 2.0**-33

MAX_NORM_SIZE = 131072
"""The int32 sums of the row sum hold 2**14 groups of 8."""

LANES = 128
"""Chains that a product of fp32 numbers has for each result: enough that all threads of a warp load 16 bytes."""

CHUNK_BLOCKS = 32
"""Blocks of 32 along K whose sum a matrix product makes by itself, before it is added to the total."""

DIGIT_ROUNDING = 1536.0
"""1.5 * 2**10: added to a number of E4M3 in fp16 it leaves no place for the fraction."""

FLOAT32_MAX = 3.4028234663852886e38


def float32(x: float) -> float:
    """``x`` rounded to fp32; beyond the fp32 range, infinity."""
    return ctypes.c_float(x).value


def float32_bits(x: float) -> int:
    """The bits of ``x`` as fp32."""
    return int(struct.unpack("<i", struct.pack("<f", x))[0])


def sigmoid_constants(alpha: float) -> tuple[float, float]:
    """Constants of ``sigmoid(alpha * gate)`` for one alpha.

    Returns:
        ``(slope, bound)`` in fp32: ``slope = -alpha * log2(e)``, and the largest |gate| for which
        ``|slope * gate|`` is at most :data:`MAX_SIGMOID_EXPONENT`. With alpha 0 the sigmoid is 1/2 of every gate.
    """
    if alpha == 0:
        return 0.0, FLOAT32_MAX
    slope = float32(-alpha * LOG2_E)
    return slope, float32(min(MAX_SIGMOID_EXPONENT / -slope, FLOAT32_MAX))
