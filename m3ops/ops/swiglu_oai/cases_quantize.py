"""Cases of swiglu_oai_quantize and swiglu_oai_fake_quant."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from itertools import product
from typing import Any

import numpy as np

from m3ops.numerics.formats import ACTIVATION_DTYPES, FP8_FORMATS, SCALE_RULES
from m3ops.numerics.scale_layouts import OF_GROUPS, TILES
from m3ops.ops.mxfp8.cases_groups import Sizes, counted, counting, numbers, of_groups
from m3ops.ops.swiglu_oai.cases import apart, of_whole_blocks, together
from m3ops.testing import case as testing
from m3ops.testing.arrays import Shape, bit_patterns, matrices, normal, one
from m3ops.testing.case import Case

case = partial(Case, "swiglu_oai_quantize")
SKEWED = {"alpha": 1.3, "beta": -0.75}


def _cases() -> Iterator[Case]:
    for shared in of_whole_blocks():
        yield replace(shared, op="swiglu_oai_quantize")
    for rule, fp8, rounded in product(SCALE_RULES, FP8_FORMATS, (False, True)):
        given = {"scale_rule": rule, "fp8_format": fp8, "round_activation": rounded}
        name = f"{rule}, {fp8}, {'rounded' if rounded else 'fp32'} activation"
        yield case(name, one(normal, (4, 256), "bfloat16", 3.0), given)
        yield case(f"{name}, random bits", one(bit_patterns, (8, 128), "bfloat16"), {**given, "limit": None})
    for dtype in ACTIVATION_DTYPES:
        given = {"round_activation": True, "limit": None}
        yield case(f"rounded {dtype}, large", one(normal, (4, 128), dtype, 200.0), given)
    yield case(
        "activations just past the largest bfloat16", one(_past_bfloat16), {"round_activation": True, "limit": None}
    )
    for layout in TILES:
        for name, make in matrices():
            yield case(f"{layout}: {name}", one(_gate_up, make), {"scale_layout": layout, **SKEWED})
    yield from counted("swiglu_oai_quantize", lambda shape: together(one(normal, shape, "bfloat16", 3.0)), SKEWED)
    yield case("2 of 5 rows of several tiles", partial(counting, together(one(normal, (5, 6144), "bfloat16", 3.0)), 2))
    experts = partial(counting, together(one(normal, (3, 6, 256), "bfloat16", 3.0)), 6, 0, 4)
    yield case("experts: 2 groups", experts, {"groups": 2})
    yield case("experts: interleaved", experts, {"layout": "interleaved"})
    for layout in TILES:
        yield case(f"experts: {layout}", experts, {"scale_layout": layout})
        yield case(f"apart, {layout}", apart(normal, (133, 448), "bfloat16", 3.0), {"scale_layout": layout, **SKEWED})
    of_experts = partial(counting, apart(normal, (3, 6, 256), "bfloat16", 3.0), 6, 0, 4)
    yield case("apart, rounded, experts", of_experts, {"round_activation": True})
    yield from of_groups("swiglu_oai_quantize", _together_in_groups, width=2)
    yield case("apart, groups", _apart_in_groups, {"scale_layout": OF_GROUPS[0], **SKEWED})


def _fake_quant() -> Iterator[Case]:
    fake = partial(Case, "swiglu_oai_fake_quant")
    for dtype, rounded in product(ACTIVATION_DTYPES, (False, True)):
        given = {"round_activation": rounded, **SKEWED}
        yield fake(f"random bits {dtype}{', rounded' * rounded}", one(bit_patterns, (9, 128), dtype), given)
    normals = one(normal, (5, 192), "bfloat16", 3.0)
    for rule, fp8 in product(SCALE_RULES, FP8_FORMATS):
        yield fake(f"{rule}, {fp8}", normals, {"scale_rule": rule, "fp8_format": fp8})
    yield fake("3 groups to float32", normals, {"groups": 3, "out_dtype": "float32"})
    yield fake("no rows", one(normal, (0, 64), "bfloat16"))
    yield fake("apart", apart(normal, (5, 192), "bfloat16", 3.0), {"round_activation": True})
    own = lambda shape: together(one(normal, shape, "bfloat16", 3.0))  # noqa: E731
    yield from testing.counted("swiglu_oai_fake_quant", own, SKEWED)
    counting_apart = partial(testing.counting, apart(normal, (3, 7, 192), "bfloat16", 3.0), 10)
    yield fake("apart, 10 of 3 x 7 rows", counting_apart)


def _past_bfloat16() -> np.ndarray:
    """Gates and ups whose products lie between the largest bfloat16 and infinity."""
    gate_up = np.ones((2, 128), "bfloat16")
    gate_up[:, 7], gate_up[:, 64 + 7] = 2.0**63 * 1.0078125, [2.0**64 * 1.984375, -(2.0**64) * 1.984375]
    return gate_up


def _together_in_groups(shape: Shape, sizes: Sizes) -> tuple[Any, ...]:
    gate_up, group_sizes = numbers(shape, sizes)
    return gate_up, None, group_sizes


def _apart_in_groups() -> tuple[np.ndarray, ...]:
    return *apart(normal, (150, 192), "bfloat16", 3.0)(), np.array([3, 140, 0], np.int32)


def _gate_up(make: Callable[[], np.ndarray]) -> np.ndarray:
    return np.concatenate([make(), np.flip(make(), -1)], axis=-1)


CASES = (*_cases(), *_fake_quant())
