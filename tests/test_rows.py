"""Row layouts and tilings: pure functions, checked on their own."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from backends import array_spec

from m3ops.numerics.constants import PARTIAL_ROWS
from m3ops.op import ArraySpec
from m3ops.ops import EVERY_OP
from m3ops.rows import row_layout
from m3ops.target import Target
from m3ops.tiling import Tiling, column_tiling, row_block_tiling, row_tiling, tiling

H100 = Target("nvidia", "sm_90", 132)
MI300X = Target("amd", "gfx942", 304)
BASE = np.arange(2 * 3 * 4 * 5 * 8, dtype=np.int32).reshape(2, 3, 4, 5, 8)


@pytest.mark.parametrize(
    ("view", "inner_sizes"),
    [
        (BASE, ()),
        (BASE[:, :, :, :, 2:6], ()),
        (BASE[:, :, 1:3], (10,)),
        (BASE[:, ::2], (2, 20)),
        (BASE.transpose(3, 1, 0, 2, 4), (3, 2, 4)),
        (BASE[:, :1].swapaxes(0, 1), (20,)),
        (BASE[0, 0, 0, 0], ()),
        (np.broadcast_to(BASE[0, 0, 0, :1], (7, 8)), ()),
    ],
)
def test_row_layout_finds_every_row(view: np.ndarray, inner_sizes: tuple[int, ...]) -> None:
    layout = row_layout(array_spec(view))
    assert layout.inner_sizes == inner_sizes
    *row_strides, column_stride = layout.strides[0]
    outer = layout.num_rows // int(np.prod(inner_sizes))
    rows = np.ndindex(outer, *inner_sizes)
    first = view.reshape(-1)[0]  # BASE holds its own offsets
    offsets = [sum(i * s for i, s in zip(row, row_strides, strict=True)) for row in rows]
    found = np.array(offsets)[:, None] + np.arange(8)[: view.shape[-1]] * column_stride + first
    np.testing.assert_array_equal(found, view.reshape(-1, view.shape[-1]))


def test_row_layout_of_a_shared_weight_does_not_move() -> None:
    assert row_layout(ArraySpec((4, 5, 64), "float32"), ArraySpec((64,), "float32")).strides == ((64, 1), (0, 1))
    assert row_layout(ArraySpec((4, 5, 64), "float32"), ArraySpec((5, 64), "float32")).strides == (
        (320, 64, 1),
        (0, 64, 1),
    )


def test_the_number_of_rows_is_no_part_of_the_layout() -> None:
    """Else every batch size would compile a kernel of its own."""
    layouts = [row_layout(ArraySpec((n, 64), "float32"), ArraySpec((64,), "float32")) for n in (1, 2, 3, 1000)]
    assert len({(layout.inner_sizes, layout.strides) for layout in layouts}) == 1


SIZES = [1, 2, 31, 32, 33, 96, 128, 300, 384, 1000, 1536, 3072, 6144, 12288, 65536]


SHAPES = list(itertools.product([1, 2, 3, 7, 8, 33, 4096, 2**20 + 1], SIZES))


def _check(t: Tiling, num_rows: int, size: int, column_tiles: int, target: Target) -> None:
    assert t.masked == (num_rows % t.rows != 0 or t.cols * column_tiles != size)
    assert t.cols * column_tiles >= size
    assert t.rows & (t.rows - 1) == 0
    assert t.cols & (t.cols - 1) == 0
    assert t.cols >= 32, "a block of 32 must not be split"
    assert t.num_warps & (t.num_warps - 1) == 0
    assert 1 <= t.num_warps <= 1024 // target.warp_size


@pytest.mark.parametrize("target", [H100, MI300X], ids=lambda t: t.arch)
def test_column_tilings_cover_everything(target: Target) -> None:
    for num_rows, size in SHAPES:
        t = column_tiling(num_rows, size, target)
        column_tiles = -(-size // t.cols)
        assert t.grid == -(-num_rows // t.rows) * column_tiles
        _check(t, num_rows, size, column_tiles, target)


@pytest.mark.parametrize("inputs", [1, 2])
@pytest.mark.parametrize("target", [H100, MI300X], ids=lambda t: t.arch)
def test_row_tilings_cover_everything(target: Target, inputs: int) -> None:
    for num_rows, size in SHAPES:
        t = row_tiling(num_rows, [ArraySpec((num_rows, size), "bfloat16")] * inputs, target)
        assert t.grid == -(-num_rows // t.rows)
        assert t.cols * (t.tiles - 1) < size
        _check(t, num_rows, size, t.tiles, target)
        if size % 32 == 0:
            t = row_block_tiling(num_rows, size, target)
            assert t.grid == -(-num_rows // t.rows)
            assert t.cols * (t.tiles - 1) < size
            _check(t, num_rows, size, t.tiles, target)


def test_rows_are_read_again_where_registers_or_time_run_out() -> None:
    def reload(num_rows: int, size: int, target: Target) -> bool:
        return row_tiling(num_rows, [ArraySpec((num_rows, size), "bfloat16")], target).reload

    assert reload(16384, 6144, H100)
    assert reload(1, 32768, H100)
    assert reload(1, 32768, MI300X)
    assert not reload(64, 6144, H100)
    assert not reload(16384, 6144, MI300X)
    assert not reload(16384, 12288, H100)


@pytest.mark.parametrize("target", [H100, MI300X], ids=lambda t: t.arch)
def test_many_rows_that_are_quantized_waste_no_lanes(target: Target) -> None:
    for size in (2048, 3072, 5120, 6144, 7168, 8192, 12288, 65536):
        t = row_block_tiling(65536, size, target)
        assert not t.masked
        assert t.cols * t.tiles == size


def test_more_programs_than_a_grid_holds() -> None:
    with pytest.raises(ValueError, match="need 2147483648 programs, more than a grid holds"):
        tiling(2**31, 32, 1, 32, 1)


def test_more_programs_of_a_gradient_than_a_grid_holds() -> None:
    def grid(programs: int) -> int:
        op, rows = EVERY_OP["gemma_rmsnorm_backward"], ArraySpec((programs * PARTIAL_ROWS, 1024), "bfloat16")
        specs, params = (rows, ArraySpec((1024,), "bfloat16"), rows), op.filled({})
        return op.plan(specs, op.infer(*specs, **params), params, H100).grid

    assert grid(2**31 - 1) == 2**31 - 1
    with pytest.raises(ValueError, match="need 2147483648 programs, more than a grid holds"):
        grid(2**31)


def test_programs_are_on_the_first_axis_of_the_grid() -> None:
    """The second and third axes end at 65,535 programs."""
    assert column_tiling(65536 * 8, 3072, H100).grid > 65535
