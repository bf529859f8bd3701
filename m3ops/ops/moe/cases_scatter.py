"""Cases of moe_scatter_quantize."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from itertools import product

import numpy as np

from m3ops.numerics.formats import ACTIVATION_DTYPES, FP8_FORMATS, SCALE_RULES
from m3ops.numerics.scale_layouts import TILES
from m3ops.ops.moe.cases_combine import permuted
from m3ops.testing.arrays import SPECIALS, bit_patterns, normal, random_bits, subnormals, with_specials
from m3ops.testing.case import Case, counting

case = partial(Case, "moe_scatter_quantize")

Inputs = tuple[np.ndarray, ...]


def inputs(tokens: int, slots: int, size: int, dtype: str = "bfloat16") -> Inputs:
    """Tokens and slots that name as many rows as there are, each once."""
    return normal((tokens, size), dtype, 2.0), permuted((tokens, slots))


def _into(rows: int, tokens: int, slots: int, size: int) -> Inputs:
    """The same slots, spread over more rows: some are written, and others, whole runs of them, are not."""
    x, own = inputs(tokens, slots, size)
    return x, own + (own > own.size // 2) * np.int32(rows - own.size)


def _bits(dtype: str) -> Inputs:
    return bit_patterns((9, 96), dtype), permuted((9, 4))


def _tiny(dtype: str) -> Inputs:
    return subnormals((5, 64), dtype), permuted((5, 4))


def _specials() -> Inputs:
    return with_specials(normal((6, 96), "float32"), SPECIALS), permuted((6, 2))


def _some_missing() -> Inputs:
    """Slots that are no row's: of a token some, the first, the last, and all."""
    x, slots = inputs(6, 4, 96)
    slots[0, 1], slots[1, 0], slots[2, 3] = -1, slots.size, 2**31 - 1
    slots[3], slots[4, :3] = -(2**31), -1
    return x, slots


def _named_by_several() -> Inputs:
    """Rows that two tokens name, that one names twice, and that all name."""
    x, slots = inputs(7, 4, 96)
    slots[1], slots[2, 1], slots[:, -1] = slots[-1], slots[2, 0], slots[0, -1]
    return x, slots


def _many_in_few() -> Inputs:
    return normal((130, 64), "bfloat16"), (random_bits((130, 32), "slots") % np.uint64(5)).astype(np.int32)


def _every_other_column() -> Inputs:
    x, slots = inputs(5, 4, 192)
    return x[:, ::2], np.repeat(slots, 2, axis=1)[:, ::2]


def _transposed() -> Inputs:
    x, slots = inputs(10, 4, 96)
    return x[::2], (slots[::2] // 2).T.copy().T


def _cases() -> Iterator[Case]:
    for dtype in ACTIVATION_DTYPES:
        yield case(f"normal {dtype}", partial(inputs, 13, 4, 192, dtype))
        yield case(f"random bits {dtype}", partial(_bits, dtype))
        yield case(f"subnormals {dtype}", partial(_tiny, dtype))
    for rule, fp8 in product(SCALE_RULES, FP8_FORMATS):
        given = {"scale_rule": rule, "fp8_format": fp8}
        yield case(f"NaN and infinities, {rule}, {fp8}", _specials, given)
        yield case(f"rows that several slots name, {rule}, {fp8}", _named_by_several, given)
    yield case("slots without a row", _some_missing)
    yield case("many slots of few rows", _many_in_few, {"rows": 7})
    yield case("more rows than slots", partial(_into, 100, 5, 4, 96), {"rows": 100})
    yield case("fewer rows than slots", partial(inputs, 5, 4, 96), {"rows": 11})
    yield case("buffers of 3 experts", partial(_into, 3 * 14, 5, 4, 96), {"rows": 14, "num_experts": 3})
    for slots in (1, 32):
        yield case(f"{slots} slots", partial(inputs, 5, slots, 64))
    yield case("M3, 3 tokens", partial(inputs, 3, 4, 6144))
    yield case("one token", partial(inputs, 1, 4, 64))
    yield case("no tokens", partial(inputs, 0, 4, 64))
    yield case("no tokens for 5 rows", partial(inputs, 0, 4, 64), {"rows": 5})
    yield case("an empty last axis", partial(inputs, 3, 4, 0))
    yield case("every other column", _every_other_column)
    yield case("every other row, transposed slots", _transposed)
    for layout in TILES:
        given = {"scale_layout": layout}
        yield case(f"{layout}: sorted rows", partial(inputs, 37, 4, 224), given)
        yield case(f"{layout}: more rows than slots", partial(_into, 133, 5, 4, 96), {**given, "rows": 133})
        experts = {**given, "rows": 37, "num_experts": 3}
        yield case(f"{layout}: buffers of 3 experts", partial(_into, 111, 5, 4, 96), experts)
    yield from _counted()


def _counted() -> Iterator[Case]:
    for count in (0, 1, 3, 13, 2**31 - 1, -1):
        yield case(f"{count} of 13 tokens", partial(counting, partial(inputs, 13, 4, 192), count))
    yield case("7 of 130 tokens in few rows", partial(counting, _many_in_few, 7), {"rows": 7})
    for layout in ("swizzle_128x4", "packed_ue8m0"):
        given = {"scale_layout": layout, "rows": 37, "num_experts": 3}
        yield case(f"{layout}: 3 of 5 tokens", partial(counting, partial(_into, 111, 5, 4, 96), 3), given)


CASES = tuple(_cases())
