"""Values of AMD's pseudocode: bits of some width that are read as unsigned, signed, raw or floating point.

Arithmetic on floats is exact, in rationals, and rounded once: nothing of the interpreter's own arithmetic is used.
"""

import math
from fractions import Fraction
from typing import NamedTuple

# (precision, smallest exponent of a normal number)
_FORMATS = {"f16": (11, -14), "bf16": (8, -126), "f32": (24, -126), "f64": (53, -1022)}


class Value(NamedTuple):
    """`kind` is u, i, b (raw) or the name of a float format without its width: f or bf."""

    kind: str
    width: int
    bits: int

    @property
    def is_float(self) -> bool:
        return self.kind in ("f", "bf")

    @property
    def format(self) -> tuple[int, int]:
        return _FORMATS[f"{self.kind}{self.width}"]

    @property
    def number(self) -> int | float:
        if self.is_float:
            return _decode(self.bits, self.width, self.format)
        sign = self.kind == "i" and self.bits >> (self.width - 1) & 1
        return self.bits - (sign << self.width)

    def as_type(self, kind: str, width: int) -> "Value":
        """The low bits, read as another type."""
        return Value(kind, width, self.bits & ((1 << width) - 1))

    def slice(self, high: int, low: int) -> "Value":
        """Bits [high : low]; with high below low in reverse order."""
        if high < low:
            reverse = int(format(self.bits >> high & ((1 << (low - high + 1)) - 1), f"0{low - high + 1}b")[::-1], 2)
            return Value("u", low - high + 1, reverse)
        return Value("u", high - low + 1, self.bits >> low & ((1 << (high - low + 1)) - 1))


def integer(kind: str, width: int, number: int) -> Value:
    return Value(kind, width, number & ((1 << width) - 1))


def truth(condition: bool) -> Value:
    return Value("u", 1, int(condition))


def floating(kind: str, width: int, number: float | Fraction) -> Value:
    """A number rounded to nearest even; infinities, NaN (quiet, positive) and the sign of a zero come as floats."""
    precision, smallest = _FORMATS[f"{kind}{width}"]
    exponent_bits = width - precision
    negative = math.copysign(1.0, number) < 0 if isinstance(number, float) else number < 0
    sign = int(negative) << (width - 1)
    infinity = ((1 << exponent_bits) - 1) << (precision - 1)
    if isinstance(number, float) and math.isnan(number):
        return Value(kind, width, infinity | 1 << (precision - 2))
    if isinstance(number, float) and math.isinf(number):
        return Value(kind, width, sign | infinity)
    exact = abs(Fraction(number))
    if exact == 0:
        return Value(kind, width, sign)
    power = exact.numerator.bit_length() - exact.denominator.bit_length()
    power -= exact < Fraction(2) ** power
    unit = max(power, smallest) - precision + 1
    steps = round(exact / Fraction(2) ** unit)
    # one step of the last place is one code, and a carry out of the significand moves on into the exponent
    code = steps + (max(power, smallest) - smallest) * (1 << (precision - 1))
    return Value(kind, width, sign | min(code, infinity))


def _decode(bits: int, width: int, format_: tuple[int, int]) -> float:
    precision, smallest = format_
    field, fraction = bits >> (precision - 1) & ((1 << (width - precision)) - 1), bits & ((1 << (precision - 1)) - 1)
    sign = -1.0 if bits >> (width - 1) & 1 else 1.0
    if field == (1 << (width - precision)) - 1:
        return math.nan if fraction else sign * math.inf
    whole = fraction | (1 << (precision - 1) if field else 0)
    return sign * math.ldexp(whole, max(field, 1) - 1 + smallest - precision + 1)


# ---- operations


def multiply_add(a: Value, b: Value, c: Value) -> Value:
    """A * b + c, rounded once, in the format of a."""
    x, y, z = a.number, b.number, c.number
    if not all(map(math.isfinite, (x, y, z))):
        with_product = x * y if math.isfinite(x) == math.isfinite(y) else _infinite_product(x, y)
        return floating(a.kind, a.width, math.nan if math.isnan(with_product) else float(with_product) + z)
    exact = Fraction(x) * Fraction(y) + Fraction(z)
    if exact == 0:  # of two zeros that differ in sign, and of x - x, the sum is +0
        negative = math.copysign(1, x) * math.copysign(1, y) < 0 and math.copysign(1, z) < 0
        both_zero = x * y == 0 and z == 0
        return floating(a.kind, a.width, -0.0 if negative and both_zero else 0.0)
    return floating(a.kind, a.width, exact)


def _infinite_product(x: float, y: float) -> float:
    return (
        math.nan if 0 in (x, y) or math.isnan(x) or math.isnan(y) else math.copysign(math.inf, x) * math.copysign(1, y)
    )


def arithmetic(operator: str, a: Value, b: Value) -> Value:
    if a.is_float or b.is_float:
        return _float_arithmetic(operator, a if a.is_float else b, a.number, b.number)
    width = max(a.width, b.width) if operator not in ("<<", ">>") else a.width
    kind = a.kind if operator in ("<<", ">>") or a.kind == b.kind else "u"
    x, y = a.number, b.number
    results = {
        "+": lambda: x + y, "-": lambda: x - y, "*": lambda: x * y, "&": lambda: x & y, "|": lambda: x | y,
        "^": lambda: x ^ y, "/": lambda: x // y, "%": lambda: x % y, "<<": lambda: x << y, ">>": lambda: x >> y,
    }  # fmt: skip
    return integer(kind, width, results[operator]())


def _float_arithmetic(operator: str, like: Value, x: float, y: float) -> Value:
    if math.isfinite(x) and math.isfinite(y) and (operator != "/" or y != 0):
        zero = {
            "+": lambda: x + y,
            "-": lambda: x - y,
            "*": lambda: _sign(x) * _sign(y) * 0.0,
            "/": lambda: x * _sign(y),
        }
        exact = {
            "+": lambda: Fraction(x) + Fraction(y), "-": lambda: Fraction(x) - Fraction(y),
            "*": lambda: Fraction(x) * Fraction(y), "/": lambda: Fraction(x) / Fraction(y),
        }[operator]()  # fmt: skip
        return floating(like.kind, like.width, exact if exact else float(zero[operator]()))
    if operator == "/" and y == 0:
        special = math.nan if x == 0 or math.isnan(x) else _sign(x) * _sign(y) * math.inf
    else:
        special = {"+": lambda: x + y, "-": lambda: x - y, "*": lambda: x * y, "/": lambda: x / y}[operator]()
    return floating(like.kind, like.width, special)


def _sign(x: float) -> float:
    return math.copysign(1.0, x)


def compare(operator: str, a: Value, b: Value) -> Value:
    x, y = a.number, b.number
    return truth({
        "==": x == y, "!=": x != y, "<>": x < y or x > y, "<": x < y, "<=": x <= y, ">": x > y, ">=": x >= y,
    }[operator])  # fmt: skip
