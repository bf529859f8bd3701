"""Cases of swiglu_oai_quantize."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product

import numpy as np

from m3ops.cases.case import Case, bit_patterns, normal, one
from m3ops.cases.swiglu_oai import activations
from m3ops.numerics.formats import ACTIVATION_DTYPES, FP8_FORMATS, SCALE_RULES


def _cases() -> Iterator[Case]:
    for name, make, params in activations():
        yield Case("swiglu_oai_quantize", name, one(make), params)
    for rule, fp8, rounded in product(SCALE_RULES, FP8_FORMATS, (False, True)):
        params = {"scale_rule": rule, "fp8_format": fp8, "round_activation": rounded}
        name = f"{rule}, {fp8}, {'rounded' if rounded else 'fp32'} activation"
        yield Case("swiglu_oai_quantize", name, one(normal, (4, 256), "bfloat16", 3.0), params)
        bits = one(bit_patterns, (8, 128), "bfloat16")
        yield Case("swiglu_oai_quantize", f"{name}, random bits", bits, {**params, "limit": None})
    for dtype in ACTIVATION_DTYPES:
        params = {"round_activation": True, "limit": None}
        yield Case("swiglu_oai_quantize", f"rounded {dtype}, large", one(normal, (4, 128), dtype, 200.0), params)
    past = {"round_activation": True, "limit": None}
    yield Case("swiglu_oai_quantize", "activations just past the largest bfloat16", one(_past_bfloat16), past)


def _past_bfloat16() -> np.ndarray:
    """Gates and ups whose products lie between the largest bfloat16 and infinity."""
    gate_up = np.ones((2, 128), "bfloat16")
    gate_up[:, 7], gate_up[:, 64 + 7] = 2.0**63 * 1.0078125, [2.0**64 * 1.984375, -(2.0**64) * 1.984375]
    return gate_up


CASES = tuple(_cases())
