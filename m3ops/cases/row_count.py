"""Cases of every op with ``num_rows``, the number of rows that count, as one more array."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np

from m3ops.cases.case import Case, normal, one
from m3ops.cases.mxfp8_dequantize import random_bytes
from m3ops.cases.norms import fused_inputs, norm_inputs
from m3ops.numerics.scale_layouts import TILES, arrange

Arrays = Callable[[], tuple[np.ndarray, ...]]


def counting(make: Arrays, count: int) -> tuple[np.ndarray, ...]:
    """These inputs and the number of rows that count."""
    return (*make(), np.array([count], np.int32))


def _inputs(shape: tuple[int, ...]) -> Iterator[tuple[str, Arrays, dict[str, Any]]]:
    rows = partial(normal, shape, "bfloat16", 3.0)
    yield "swiglu_oai", one(rows), {}
    yield "swiglu_oai_quantize", one(rows), {"alpha": 1.3, "beta": -0.75}
    yield "mxfp8_quantize", one(rows), {}
    yield "mxfp8_dequantize", partial(random_bytes, shape), {}
    yield "gemma_rmsnorm", partial(norm_inputs, rows), {}
    yield "gemma_fused_add_rmsnorm", partial(fused_inputs, rows), {}
    yield "gemma_rmsnorm_quantize", partial(norm_inputs, rows), {}
    yield "gemma_fused_add_rmsnorm_quantize", partial(fused_inputs, rows), {"out_norm": True}
    heads = {"num_heads_q": 2, "num_heads_k": 1, "num_heads_v": 1}
    yield "gemma_rmsnorm_heads", partial(_heads, rows), heads


def _cases() -> Iterator[Case]:
    for op, make, params in _inputs((3, 7, 192)):
        yield Case(op, "10 of 3 x 7 rows", partial(counting, make, 10), params)
    for op, make, params in _inputs((300, 64)):
        yield Case(op, "3 of 300 rows", partial(counting, make, 3), params)
    case = partial(Case, "mxfp8_quantize")
    rows = one(normal, (6, 1024), "bfloat16")
    for count in (0, 6, 7, 2**31 - 1, -1, -(2**31)):
        yield case(f"{count} of 6 rows", partial(counting, rows, count))
    yield case("the one row counts", partial(counting, one(normal, (64,), "bfloat16"), 1))
    yield case("the one row does not count", partial(counting, one(normal, (64,), "bfloat16"), 0))
    yield case("none of no rows", partial(counting, one(normal, (0, 64), "bfloat16"), 0))
    view = one(lambda: normal((5, 4, 96), "bfloat16").swapaxes(0, 1))
    yield case("9 of transposed rows", partial(counting, view, 9))
    yield Case("gemma_rmsnorm", "1 of 3 wide rows", partial(counting, _wide, 1))
    for layout in TILES:
        params = {"scale_layout": layout}
        matrix, matrices = one(normal, (133, 224), "bfloat16"), one(normal, (3, 5, 96), "bfloat16")
        yield case(f"{layout}: 40 of 133 rows", partial(counting, matrix, 40), params)
        yield case(f"{layout}: 133 of 133 rows", partial(counting, matrix, 133), params)
        yield case(f"{layout}: 7 of 3 x 5 rows", partial(counting, matrices, 7), params)
        tiled = partial(counting, partial(_tiled, (37, 96), layout), 33)
        yield Case("mxfp8_dequantize", f"{layout}: 33 of 37 rows", tiled, params)
        norms = partial(counting, partial(norm_inputs, partial(normal, (37, 96), "bfloat16")), 33)
        yield Case("gemma_rmsnorm_quantize", f"{layout}: 33 of 37 rows", norms, {**params, "out_norm": True})


def _heads(make: Callable[[], np.ndarray]) -> tuple[np.ndarray, ...]:
    qkv = make()
    return qkv, *(normal((qkv.shape[-1] // 4,), dtype, 0.5) for dtype in ("bfloat16", "float32"))


def _wide() -> tuple[np.ndarray, ...]:
    return norm_inputs(partial(normal, (3, 20000), "bfloat16"))


def _tiled(shape: tuple[int, ...], layout: str) -> tuple[np.ndarray, ...]:
    values, scales = random_bytes(shape)
    return values, arrange(scales, layout)


CASES = tuple(_cases())
