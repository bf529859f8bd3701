"""Cases of gemma_rmsnorm_quantize and gemma_fused_add_rmsnorm_quantize."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from itertools import product
from typing import Any

import numpy as np

from m3ops.cases.case import SPECIALS, Case, bit_patterns, normal, subnormals, views, with_specials
from m3ops.cases.norms import fused_inputs, norm_inputs, scaled_rows
from m3ops.numerics.formats import ACTIVATION_DTYPES, FP8_FORMATS, SCALE_RULES

Rows = Callable[[], np.ndarray]


def _rows() -> Iterator[tuple[str, Rows, dict[str, Any]]]:
    for dtype, rounded in product(ACTIVATION_DTYPES, (False, True)):
        flags = {"round_activation": rounded, "out_norm": rounded}
        name = f"{dtype}, {'rounded, with norm' if rounded else 'fp32 norm'}"
        yield f"normal {name}", partial(normal, (5, 160), dtype), flags
        yield f"random bits {name}", partial(bit_patterns, (20, 64), dtype), flags
        yield f"subnormals {name}, eps 0", partial(subnormals, (5, 64), dtype), {**flags, "eps": 0.0}
    for rule, fp8 in product(SCALE_RULES, FP8_FORMATS):
        params: dict[str, Any] = {"scale_rule": rule, "fp8_format": fp8}
        yield f"{rule}, {fp8}", partial(normal, (4, 256), "bfloat16", 3.0), params
        yield f"{rule}, {fp8}, rounded", partial(normal, (3, 96), "float16"), {**params, "round_activation": True}
        specials = partial(with_specials, normal((6, 96), "float32"), SPECIALS)
        yield f"NaN and infinities, {rule}, {fp8}", specials, params
    yield "fp32 norm, with norm", partial(normal, (3, 64), "bfloat16"), {"out_norm": True}
    yield "a large eps", partial(normal, (4, 96), "bfloat16"), {"eps": 0.37}
    yield "rows of every magnitude, eps 0", scaled_rows, {"eps": 0.0}
    yield "zeros", partial(np.zeros, (2, 64), np.float32), {}
    yield "zeros, eps 0", partial(np.zeros, (2, 64), np.float32), {"eps": 0.0}
    yield "negative zeros", partial(np.full, (2, 64), np.float32(-0.0)), {}
    yield "no rows", partial(normal, (0, 64), "bfloat16"), {"out_norm": True}
    yield "no leading axis", partial(normal, (64,), "bfloat16"), {}
    yield "one block", partial(normal, (3, 32), "float32"), {}
    yield "rows and columns that divide nothing", partial(normal, (37, 224), "bfloat16"), {}
    yield "M3 hidden, N = 6144", partial(normal, (3, 6144), "bfloat16"), {}
    yield "several tiles a row, N = 20000", partial(normal, (2, 20000), "bfloat16"), {"out_norm": True}
    for name, make in views("bfloat16", 96).items():
        yield name, make, {}


def _cases() -> Iterator[Case]:
    for name, make, params in _rows():
        yield Case("gemma_rmsnorm_quantize", name, partial(norm_inputs, make), params)
        yield Case("gemma_fused_add_rmsnorm_quantize", name, partial(fused_inputs, make), params)
    # Kernels with fp8 conversions run in a mode of AMD devices in which fp16 saturates: infinity is what the rules say.
    large, weight = normal((6, 96), "float16", 18000.0), normal((96,), "float16", 18000.0)
    past = {"out_norm": True}
    yield Case("gemma_rmsnorm_quantize", "a norm past the largest fp16", lambda: (large, weight), past)
    yield Case(
        "gemma_fused_add_rmsnorm_quantize",
        "a norm and sums past the largest fp16",
        lambda: (large, large, weight),
        past,
    )
    # Sources disagree whether the mode reaches bfloat16, so here are finite numbers that round to its infinity.
    row, sums, row_weight = _past_bfloat16()
    rounded = {"round_activation": True, **past}
    yield Case("gemma_rmsnorm_quantize", "a norm just past the largest bfloat16", lambda: (row, row_weight), rounded)
    yield Case(
        "gemma_fused_add_rmsnorm_quantize",
        "a sum just past the largest bfloat16",
        lambda: (*sums, np.zeros_like(row_weight)),
        past,
    )


def _past_bfloat16() -> tuple[np.ndarray, tuple[np.ndarray, np.ndarray], np.ndarray]:
    """Rows whose norms, times a weight, and two rows whose sums lie between the largest bfloat16 and infinity."""
    largest, half_a_step = (np.array(bits, np.uint16).view("bfloat16") for bits in (0x7F7F, 0x7B40))
    x, weight = np.full((2, 64), 0.99609375, "bfloat16"), np.zeros(64, "bfloat16")
    x[:, 7], weight[7] = [1.0, -1.0], largest
    sums = np.zeros((2, 2, 64), "bfloat16")
    sums[:, 0, 7], sums[:, 1, 7] = [largest, half_a_step], [-largest, -half_a_step]
    return x, (sums[0], sums[1]), weight


CASES = tuple(_cases())
