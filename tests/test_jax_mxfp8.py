"""``m3ops_jax.MXFP8``: a tree of two arrays that knows how its scales are stored."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from test_jax import same

import m3ops_jax
from m3ops.numerics.scale_layouts import SCALE_LAYOUTS, TILES
from m3ops.testing.arrays import normal

X = normal((3, 5, 96), "bfloat16", 3.0)
every_layout = pytest.mark.parametrize("layout", SCALE_LAYOUTS)


def quantized(layout: str = "row_major", x: Any = X) -> m3ops_jax.MXFP8:
    return m3ops_jax.mxfp8_quantize(x, scale_layout=layout)


@every_layout
def test_the_layout_travels_with_the_scales(layout: str) -> None:
    wanted = m3ops_jax.mxfp8_dequantize(quantized())
    there_and_back = jax.jit(lambda x: m3ops_jax.mxfp8_dequantize(quantized(layout, x)))
    same(there_and_back(X), wanted)
    same(jax.jit(m3ops_jax.mxfp8_dequantize)(quantized(layout)), wanted)
    same(jax.vmap(m3ops_jax.mxfp8_dequantize)(quantized(layout)), wanted)
    same(m3ops_jax.mxfp8_dequantize(jax.tree.map(jnp.copy, quantized(layout))), wanted)


def test_two_layouts_are_two_structures() -> None:
    structures = {jax.tree.structure(quantized(layout)) for layout in SCALE_LAYOUTS}
    assert len(structures) == len(SCALE_LAYOUTS)
    with pytest.raises(TypeError, match="the pytree node metadata does not match"):
        jax.lax.cond(True, lambda x: quantized("swizzle_128x4", x), lambda x: quantized("shuffle_32x8", x), X)


def test_its_parts_have_names() -> None:
    paths = [jax.tree_util.keystr(path) for path, _ in jax.tree_util.tree_leaves_with_path(quantized())]
    assert paths == [".values", ".scales"]


def test_its_format() -> None:
    assert quantized().fp8_format == "e4m3fn"
    assert m3ops_jax.mxfp8_quantize(X, fp8_format="e4m3fnuz").fp8_format == "e4m3fnuz"
    assert quantized().e8m0.dtype == jnp.float8_e8m0fnu
    assert jax.jit(lambda q: q.e8m0)(quantized()).shape == (3, 5, 3)


def test_rows_of_it() -> None:
    q, wanted = quantized(), m3ops_jax.mxfp8_dequantize(quantized())
    for rows in (1, slice(1, 3), (0, slice(2)), (slice(None), 4)):
        same(m3ops_jax.mxfp8_dequantize(q[rows]), wanted[rows])
        same(jax.jit(lambda q, rows=rows: m3ops_jax.mxfp8_dequantize(q[rows]))(q), wanted[rows])
    with pytest.raises(IndexError, match="is indexed along leading axes only"):
        q[0, 0, :32]
    for layout in TILES:
        with pytest.raises(ValueError, match=f"scale_layout='{layout}' cannot be sliced"):
            quantized(layout)[0]


@every_layout
def test_an_exported_program_gives_and_takes_it(layout: str) -> None:
    program = jax.export.export(jax.jit(lambda x: quantized(layout, x)), platforms=["cpu"])(X)
    result = jax.export.deserialize(program.serialize()).call(jnp.asarray(X))
    assert (type(result), result.scale_layout) == (m3ops_jax.MXFP8, layout)
    same(result, quantized(layout))
    back = jax.export.export(jax.jit(m3ops_jax.mxfp8_dequantize), platforms=["cpu"])(result)
    same(jax.export.deserialize(back.serialize()).call(result), m3ops_jax.mxfp8_dequantize(quantized()))


@pytest.mark.parametrize("wrong", [jnp.zeros((2, 64)), (np.zeros((2, 64), "float8_e4m3fn"), np.zeros((2, 2), "uint8"))])
def test_anything_else_is_refused(wrong: Any) -> None:
    with pytest.raises(TypeError, match=f"q must be an MXFP8 of this front end, got {type(wrong).__name__}"):
        m3ops_jax.mxfp8_dequantize(wrong)
