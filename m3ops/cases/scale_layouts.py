"""Cases of every op that takes ``scale_layout``, in the tiled layouts."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np

from m3ops.cases.case import SPECIALS, Case, normal, one, with_specials
from m3ops.cases.mxfp8_dequantize import random_bytes
from m3ops.cases.norms import fused_inputs, norm_inputs
from m3ops.numerics.scale_layouts import TILES, arrange

Rows = Callable[[], np.ndarray]


def _rows() -> Iterator[tuple[str, Rows]]:
    yield "rows and blocks that divide nothing", partial(normal, (133, 224), "bfloat16", 3.0)
    yield "one row", partial(normal, (1, 64), "bfloat16")
    yield "several matrices", partial(normal, (2, 2, 5, 96), "bfloat16", 3.0)


def _special_rows() -> Iterator[tuple[str, Rows]]:
    yield "whole tiles", partial(normal, (256, 256), "bfloat16")
    yield "half a tile, whole ones of the kernel", partial(normal, (64, 256), "bfloat16")
    yield "no rows", partial(normal, (0, 64), "bfloat16")
    yield "no matrix", partial(normal, (0, 3, 64), "bfloat16")
    yield "an empty last axis", partial(normal, (3, 0), "bfloat16")
    yield "NaN and infinities", partial(with_specials, normal((6, 96), "float32"), SPECIALS)
    yield "transposed leading axes", lambda: normal((5, 3, 64), "bfloat16").swapaxes(0, 1)


def _cases() -> Iterator[Case]:
    for layout in TILES:
        params: dict[str, Any] = {"scale_layout": layout}
        for name, make in (*_rows(), *_special_rows()):
            yield Case("mxfp8_quantize", f"{layout}: {name}", one(make), params)
        for name, make in _rows():
            yield Case("mxfp8_dequantize", f"{layout}: {name}", partial(_bytes, make().shape, layout), params)
            pair = partial(_gate_up, make)
            yield Case("swiglu_oai_quantize", f"{layout}: {name}", one(pair), {**params, "alpha": 1.3, "beta": -0.75})
            yield Case("gemma_rmsnorm_quantize", f"{layout}: {name}", partial(norm_inputs, make), params)
            fused = partial(fused_inputs, make)
            yield Case("gemma_fused_add_rmsnorm_quantize", f"{layout}: {name}", fused, {**params, "out_norm": True})
        # In a row that is not there rstd is infinite, and its scales have to be zero all the same.
        zeros = partial(norm_inputs, partial(np.zeros, (3, 96), np.float32))
        yield Case("gemma_rmsnorm_quantize", f"{layout}: zeros, eps 0", zeros, {**params, "eps": 0.0})
        wide = partial(norm_inputs, partial(normal, (2, 20000), "bfloat16"))
        yield Case("gemma_rmsnorm_quantize", f"{layout}: several tiles a row", wide, params)


def _gate_up(make: Rows) -> np.ndarray:
    return np.concatenate([make(), np.flip(make(), -1)], axis=-1)


def _bytes(shape: tuple[int, ...], layout: str) -> tuple[np.ndarray, np.ndarray]:
    values, scales = random_bytes(shape)
    return values, arrange(scales, layout)


CASES = tuple(_cases())
