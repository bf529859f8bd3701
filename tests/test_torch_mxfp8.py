"""The quantized container among PyTorch's facilities: trees, compiled functions, export, files."""

from __future__ import annotations

import copy
import io
import pickle
from collections.abc import Callable
from typing import Any

import pytest
import torch
from compare import assert_same_bytes
from test_torch import arrays
from torch.utils import _pytree as pytree

import m3ops_torch
from m3ops.numerics.scale_layouts import SCALE_LAYOUTS
from m3ops_torch import MXFP8


def quantized(rows: int = 6, layout: str = "swizzle_128x4") -> MXFP8:
    x = torch.linspace(-3, 3, rows * 64).view(rows, 64)
    return m3ops_torch.mxfp8_quantize(x, scale_layout=layout)


def same(got: Any, want: MXFP8) -> None:
    assert type(got) is MXFP8
    assert got.scale_layout == want.scale_layout
    assert_same_bytes(arrays(got), arrays(want))


def saved(q: MXFP8) -> Any:
    file = io.BytesIO()
    torch.save({"q": q}, file)
    file.seek(0)
    return torch.load(file)["q"]


WAYS: dict[str, Callable[[MXFP8], Any]] = {
    "tree": lambda q: pytree.tree_map(torch.clone, q),
    "save and load": saved,
    "deepcopy": copy.deepcopy,
    "compiled": lambda q: torch.compile(lambda q: pytree.tree_map(torch.clone, q), fullgraph=True, backend="eager")(q),
}


@pytest.mark.parametrize("layout", SCALE_LAYOUTS)
@pytest.mark.parametrize("way", WAYS)
def test_it_comes_through(way: str, layout: str) -> None:
    q = quantized(layout=layout)
    same(WAYS[way](q), q)


def test_pickle() -> None:
    """Values of another dtype: plain pickle has no 8-bit floats."""
    q = MXFP8(torch.ones(2, 32), torch.zeros(2, 1, dtype=torch.uint8), "row_major")
    same(pickle.loads(pickle.dumps(q)), q)


def test_layouts_are_structures() -> None:
    tiled, plain = (pytree.tree_structure(quantized(layout=layout)) for layout in ("swizzle_128x4", "row_major"))
    assert tiled != plain
    assert [str(path) for path, _ in pytree.tree_leaves_with_path(quantized())] != []


@pytest.mark.parametrize("backend", ["eager", "aot_eager", "inductor"])
def test_into_and_out_of_a_compiled_function(backend: str) -> None:
    def again(q: MXFP8) -> tuple[MXFP8, torch.Tensor]:
        x = m3ops_torch.mxfp8_dequantize(q, out_dtype=torch.float32)
        return m3ops_torch.mxfp8_quantize(x, scale_layout=q.scale_layout), q.e8m0.view(torch.uint8) + 1

    torch._dynamo.reset()
    compiled = torch.compile(again, fullgraph=True, backend=backend)
    for q in (quantized(), quantized(layout="row_major")):  # another layout is another graph
        got, scales = compiled(q)
        same(got, q)
        assert torch.equal(scales, q.scales + 1)


def test_rows_in_a_compiled_function() -> None:
    q = quantized(layout="row_major")
    same(torch.compile(lambda q: q[1:3], fullgraph=True, backend="eager")(q), q[1:3])
    with pytest.raises(ValueError, match=r"an MXFP8 with scale_layout='swizzle_128x4' cannot be sliced"):
        quantized()[1:3]


@pytest.mark.parametrize("strict", [False, True])
def test_export_takes_and_gives_it(strict: bool) -> None:
    class Model(torch.nn.Module):
        def forward(self, q: MXFP8) -> Any:
            return q, m3ops_torch.mxfp8_dequantize(q)

    q = quantized()
    file = io.BytesIO()
    torch.export.save(torch.export.export(Model(), (q,), strict=strict), file)
    file.seek(0)
    got, numbers = torch.export.load(file).module()(q)
    same(got, q)
    assert torch.equal(numbers, m3ops_torch.mxfp8_dequantize(q))


def test_vmap_takes_and_gives_it() -> None:
    q = quantized(layout="row_major")
    got = torch.func.vmap(lambda q: m3ops_torch.mxfp8_quantize(m3ops_torch.mxfp8_dequantize(q)))(q)
    same(got, q)


def test_scales_as_numbers() -> None:
    q = quantized(layout="row_major")
    assert q.e8m0.dtype == torch.float8_e8m0fnu
    assert torch.equal(q.e8m0.float(), 2.0 ** (q.scales.float() - 127))
    assert q.e8m0.data_ptr() == q.scales.data_ptr()


@pytest.mark.parametrize("shape", [(1, 32), (5, 96), (8, 128), (3, 7, 160), (0, 64)], ids=str)
def test_scales_as_deepgemm_takes_them(shape: tuple[int, ...]) -> None:
    """Four scales a number, the first in the lowest byte, and columns that begin at multiples of 16 bytes."""
    x = torch.randn(shape, generator=torch.Generator().manual_seed(7))
    q, scales = m3ops_torch.mxfp8_quantize(x, scale_layout="packed_ue8m0"), m3ops_torch.mxfp8_quantize(x).scales
    four = torch.nn.functional.pad(scales.int(), (0, -scales.shape[-1] % 4)).unflatten(-1, (-1, 4))
    packed = q.packed_ue8m0
    assert torch.equal(packed, (four << torch.tensor([0, 8, 16, 24])).sum(-1, dtype=torch.int32))
    aligned = max(-(-shape[-2] // 4) * 4, 1)  # as of all tensors without elements
    assert packed.stride() == (aligned * packed.shape[-1], 1, aligned)[-len(shape) :]
    assert packed.data_ptr() == q.scales.data_ptr()
    compiled = torch.compile(lambda q: q.packed_ue8m0 + 1, fullgraph=True, backend="aot_eager")
    assert torch.equal(compiled(q), packed + 1)


def test_packed_scales_of_another_layout_are_refused() -> None:
    with pytest.raises(ValueError, match="packed_ue8m0 is of scale_layout='packed_ue8m0', got 'swizzle_128x4'"):
        _ = quantized().packed_ue8m0


def test_what_is_not_quantized_is_refused() -> None:
    with pytest.raises(TypeError, match="q must be an MXFP8 of this front end, got Tensor"):
        m3ops_torch.mxfp8_dequantize(torch.zeros(2, 32))  # type: ignore[arg-type]


def test_memory_for_another_layout_is_refused() -> None:
    """It would say of its scales that they lie row by row."""
    x = torch.ones(128, 128)  # in both layouts of one shape
    out = m3ops_torch.mxfp8_quantize(x)
    with pytest.raises(ValueError, match=r"out must have scale_layout='swizzle_128x4', .* got 'row_major'"):
        m3ops_torch.mxfp8_quantize(x, scale_layout="swizzle_128x4", out=out)
