"""Facts of the number formats, as data.

Sources: IEEE 754-2019 (binary16, binary32); the bfloat16 definition (binary32 cut to 16 bits); "FP8 Formats for Deep
Learning" (arXiv:2209.05433) for E4M3FN; "8-bit Numerical Formats for Deep Neural Networks" (arXiv:2206.02915) for
E4M3FNUZ; OCP Microscaling Formats (MX) v1.0 for E8M0 and for blocks of 32.
"""

from __future__ import annotations

from dataclasses import dataclass

BLOCK = 32
"""Elements of the last axis that share one scale (OCP MX v1.0, section 5.2)."""

SCALE_BIAS = 127
"""An E8M0 byte ``b`` below 255 means the scale ``2**(b - 127)``."""

SCALE_NAN = 255
"""The E8M0 byte of a block that holds a NaN or an infinity (OCP MX v1.0, section 5.4.1)."""


@dataclass(frozen=True)
class Format:
    """A binary floating-point format with one sign bit.

    Attributes:
        name: The dtype's name in NumPy (ml_dtypes), JAX and PyTorch.
        exponent_bits: Width of the exponent field.
        mantissa_bits: Width of the stored significand.
        bias: Exponent bias.
        max_code: Magnitude bits of the largest finite number.
        inf_code: Magnitude bits of infinity, None where the format has none.
        nan_code: All bits of the one NaN that is ever written.
        signed_zero: Whether -0.0 exists.
    """

    name: str
    exponent_bits: int
    mantissa_bits: int
    bias: int
    max_code: int
    inf_code: int | None
    nan_code: int
    signed_zero: bool = True

    @property
    def bits(self) -> int:
        return 1 + self.exponent_bits + self.mantissa_bits

    @property
    def min_exponent(self) -> int:
        """Exponent of the smallest normal number; subnormals lie on its grid."""
        return 1 - self.bias

    @property
    def max_exponent(self) -> int:
        """Exponent of the largest finite number (``emax`` in OCP MX v1.0)."""
        return (self.max_code >> self.mantissa_bits) - self.bias

    @property
    def max(self) -> float:
        significand = (self.max_code & ((1 << self.mantissa_bits) - 1)) + (1 << self.mantissa_bits)
        return float(significand) * 2.0 ** (self.max_exponent - self.mantissa_bits)


FLOAT32 = Format("float32", 8, 23, 127, 0x7F7FFFFF, 0x7F800000, 0x7FC00000)
BFLOAT16 = Format("bfloat16", 8, 7, 127, 0x7F7F, 0x7F80, 0x7FC0)
FLOAT16 = Format("float16", 5, 10, 15, 0x7BFF, 0x7C00, 0x7E00)
E4M3FN = Format("float8_e4m3fn", 4, 3, 7, 0x7E, None, 0x7F)
E4M3FNUZ = Format("float8_e4m3fnuz", 4, 3, 8, 0x7F, None, 0x80, signed_zero=False)

FORMATS = {f.name: f for f in (FLOAT32, BFLOAT16, FLOAT16, E4M3FN, E4M3FNUZ)}

ACTIVATION_DTYPES = ("bfloat16", "float16", "float32")
"""What the ops read and write unquantized."""

FP8_FORMATS = {"e4m3fn": E4M3FN, "e4m3fnuz": E4M3FNUZ}
"""Values of ``fp8_format``: OCP's E4M3 everywhere, the FNUZ variant for the matrix cores of gfx942 (CDNA 3)."""


def fp8_format_of(dtype: str) -> str:
    """The name among :data:`FP8_FORMATS` of a dtype."""
    return next(name for name, fmt in FP8_FORMATS.items() if fmt.name == dtype)


SCALE_RULES = ("rceil", "floor")
"""Values of ``scale_rule``; the rules themselves are in :mod:`m3ops.numerics.exact.functions`."""
