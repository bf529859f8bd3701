"""Cases of gemma_rmsnorm_quantize and gemma_fused_add_rmsnorm_quantize."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from itertools import product
from typing import Any

import numpy as np

from m3ops.numerics.formats import ACTIVATION_DTYPES, FP8_FORMATS, SCALE_RULES
from m3ops.numerics.scale_layouts import TILES
from m3ops.ops.gemma_rmsnorm.cases import (
    fused_inputs,
    norm_inputs,
    of_shape,
    of_two_dtypes,
    residuals_of_other_dtypes,
    scaled_rows,
)
from m3ops.testing.arrays import ALIKE, SPECIALS, bit_patterns, matrices, normal, one, subnormals, views, with_specials
from m3ops.testing.case import Case, counted, counting

case = partial(Case, "gemma_rmsnorm_quantize")
fused_case = partial(Case, "gemma_fused_add_rmsnorm_quantize")


def _rows() -> Iterator[Case]:
    """Cases of either op, of which ``x`` is made alone."""
    for dtype, rounded in product(ACTIVATION_DTYPES, (False, True)):
        flags = {"round_activation": rounded, "out_norm": rounded}
        name = f"{dtype}, {'rounded, with norm' if rounded else 'fp32 norm'}"
        yield case(f"normal {name}", one(normal, (5, 160), dtype), flags)
        yield case(f"random bits {name}", one(bit_patterns, (20, 64), dtype), flags)
        yield case(f"subnormals {name}, eps 0", one(subnormals, (5, 64), dtype), {**flags, "eps": 0.0})
    for rule, fp8 in product(SCALE_RULES, FP8_FORMATS):
        given: dict[str, Any] = {"scale_rule": rule, "fp8_format": fp8}
        yield case(f"{rule}, {fp8}", one(normal, (4, 256), "bfloat16", 3.0), given)
        yield case(f"{rule}, {fp8}, rounded", one(normal, (3, 96), "float16"), {**given, "round_activation": True})
        specials = one(with_specials, normal((6, 96), "float32"), SPECIALS)
        yield case(f"NaN and infinities, {rule}, {fp8}", specials, given)
    yield case("fp32 norm, with norm", one(normal, (3, 64), "bfloat16"), {"out_norm": True})
    yield case("a large eps", one(normal, (4, 96), "bfloat16"), {"eps": 0.37})
    yield case("plain weights", one(normal, (4, 96), "bfloat16"), {"weight_offset": 0.0})
    yield case("rows of every magnitude, eps 0", one(scaled_rows), {"eps": 0.0})
    yield case("zeros", one(np.zeros, (2, 64), np.float32))
    yield case("zeros, eps 0", one(np.zeros, (2, 64), np.float32), {"eps": 0.0})
    yield case("negative zeros", one(np.full, (2, 64), np.float32(-0.0)))
    yield case("no rows", one(normal, (0, 64), "bfloat16"), {"out_norm": True})
    yield case("no leading axis", one(normal, (64,), "bfloat16"))
    yield case("one block", one(normal, (3, 32), "float32"))
    yield case("rows and columns that divide nothing", one(normal, (37, 224), "bfloat16"))
    yield case("M3 hidden, N = 6144", one(normal, (3, 6144), "bfloat16"))
    yield case("several tiles a row, N = 20000", one(normal, (2, 20000), "bfloat16"), {"out_norm": True})
    for name, make in views("bfloat16", 96).items():
        yield case(name, one(make))


def _cases() -> Iterator[Case]:
    for rows in _rows():
        yield replace(rows, make=partial(norm_inputs, rows.make))
        yield replace(rows, op="gemma_fused_add_rmsnorm_quantize", make=partial(fused_inputs, rows.make))
    for name, inputs in residuals_of_other_dtypes():
        yield fused_case(name, inputs, {"out_norm": True})
    yield fused_case(
        "a residual past the largest fp16, x in float32", partial(of_two_dtypes, "float32", "float16", 3e4)
    )
    yield from _past_fp16()
    yield from _just_past_bfloat16()
    for layout in TILES:
        yield from _tiled(layout)
    yield from counted("gemma_rmsnorm_quantize", of_shape(norm_inputs))
    yield from counted("gemma_fused_add_rmsnorm_quantize", of_shape(fused_inputs), {"out_norm": True})


def _past_fp16() -> Iterator[Case]:
    """Kernels with fp8 conversions run in a mode of AMD devices in which fp16 saturates: infinity is right."""
    large, weight = normal((6, 96), "float16", 18000.0), normal((96,), "float16", 18000.0)
    given = {"out_norm": True}
    yield case("a norm past the largest fp16", lambda: (large, weight), given)
    yield fused_case("a norm and sums past the largest fp16", lambda: (large, large, weight), given)


def _just_past_bfloat16() -> Iterator[Case]:
    """Sources disagree whether that mode reaches bfloat16: here are finite numbers that round to its infinity."""
    largest, half_a_step = (np.array(bits, np.uint16).view("bfloat16") for bits in (0x7F7F, 0x7B40))
    x, weight = np.full((2, 64), 0.99609375, "bfloat16"), np.zeros(64, "bfloat16")
    x[:, 7], weight[7] = [1.0, -1.0], largest
    summands = np.zeros((2, 2, 64), "bfloat16")
    summands[:, 0, 7], summands[:, 1, 7] = [largest, half_a_step], [-largest, -half_a_step]
    given = {"out_norm": True}
    rounded = {"round_activation": True, **given}
    yield case("a norm just past the largest bfloat16", lambda: (x, weight), rounded)
    sums = (*summands, np.zeros(64, "bfloat16"))
    yield fused_case("a sum just past the largest bfloat16", lambda: sums, given)


def _tiled(layout: str) -> Iterator[Case]:
    given: dict[str, Any] = {"scale_layout": layout}
    for name, make in matrices():
        yield case(f"{layout}: {name}", partial(norm_inputs, one(make)), given)
        yield fused_case(f"{layout}: {name}", partial(fused_inputs, one(make)), {**given, "out_norm": True})
    if layout in ALIKE:
        return
    # In a row that is not there rstd is infinite, and its scales have to be zero all the same.
    zeros = partial(norm_inputs, one(np.zeros, (3, 96), np.float32))
    yield case(f"{layout}: zeros, eps 0", zeros, {**given, "eps": 0.0})
    yield case(f"{layout}: several tiles a row", partial(norm_inputs, one(normal, (2, 20000), "bfloat16")), given)
    few = partial(counting, partial(norm_inputs, one(normal, (37, 96), "bfloat16")), 33)
    yield case(f"{layout}: 33 of 37 rows", few, {**given, "out_norm": True})


CASES = tuple(_cases())
