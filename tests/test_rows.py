"""Row layouts and tilings: pure functions, checked on their own."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
from backends import H100, array_spec

from m3ops.array import ArraySpec
from m3ops.op import bind
from m3ops.ops import EVERY_OP
from m3ops.planning.rows import rows_of
from m3ops.planning.tiling import Tiling, block_tiling, element_tiling, row_block_tiling, row_tiling, tiling
from m3ops.target import Target

MI300X = Target.named("gfx942")
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
def test_every_row_is_found(view: np.ndarray, inner_sizes: tuple[int, ...]) -> None:
    total_rows, at = rows_of({"x": array_spec(view)})
    assert at["x"].inner_sizes == inner_sizes
    assert at["x"].size == view.shape[-1]
    *row_strides, column_stride = at["x"].strides
    outer = total_rows // int(np.prod(inner_sizes))
    rows = np.ndindex(outer, *inner_sizes)
    first = view.reshape(-1)[0]  # BASE holds its own offsets
    offsets = [sum(i * s for i, s in zip(row, row_strides, strict=True)) for row in rows]
    found = np.array(offsets)[:, None] + np.arange(8)[: view.shape[-1]] * column_stride + first
    np.testing.assert_array_equal(found, view.reshape(-1, view.shape[-1]))


def strides(x: tuple[int, ...], weight: tuple[int, ...]) -> list[tuple[int, ...]]:
    _, at = rows_of({"x": ArraySpec(x, "float32"), "weight": ArraySpec(weight, "float32")})
    return [rows.strides for rows in at.values()]


def test_a_shared_weight_does_not_move() -> None:
    assert strides((4, 5, 64), (64,)) == [(64, 1), (0, 1)]
    assert strides((4, 5, 64), (5, 64)) == [(320, 64, 1), (0, 64, 1)]


def test_the_number_of_rows_is_no_part_of_the_layout() -> None:
    """Else every batch size would compile a kernel of its own."""
    layouts = [rows_of({"x": ArraySpec((n, 64), "float32"), "w": ArraySpec((64,), "float32")}) for n in (1, 2, 3, 1000)]
    assert [total_rows for total_rows, _ in layouts] == [1, 2, 3, 1000]
    assert all(at == layouts[0][1] for _, at in layouts)


SIZES = [1, 2, 31, 32, 33, 96, 128, 300, 384, 1000, 1536, 3072, 6144, 12288, 65536]


SHAPES = list(itertools.product([1, 2, 3, 7, 8, 33, 4096, 2**20 + 1], SIZES))


def _check(t: Tiling, num_rows: int, size: int, column_tiles: int, target: Target) -> None:
    tile = t.tile
    assert tile.masked == (num_rows % tile.rows != 0 or tile.cols * column_tiles != size)
    assert tile.cols * column_tiles >= size
    assert tile.rows & (tile.rows - 1) == 0
    assert tile.cols & (tile.cols - 1) == 0
    assert tile.cols >= 32, "a block of 32 must not be split"
    assert t.num_warps & (t.num_warps - 1) == 0
    assert 1 <= t.num_warps <= 1024 // target.warp_size


@pytest.mark.parametrize("decode", [False, True])
@pytest.mark.parametrize("make", [block_tiling, element_tiling])
@pytest.mark.parametrize("target", [H100, MI300X], ids=lambda t: t.arch)
def test_tilings_of_columns_cover_everything(target: Target, make: Any, decode: bool) -> None:
    for num_rows, size in SHAPES:
        t = make(num_rows, size, target, decode=decode)
        column_tiles = -(-size // t.tile.cols)
        assert t.tile.parts == 1
        assert t.num_tiles == -(-num_rows // t.tile.rows) * column_tiles
        _check(t, num_rows, size, column_tiles, target)


@pytest.mark.parametrize("decode", [False, True])
@pytest.mark.parametrize("target", [H100, MI300X], ids=lambda t: t.arch)
def test_tilings_of_whole_rows_cover_everything(target: Target, decode: bool) -> None:
    for num_rows, size in SHAPES:
        tilings = [row_tiling(num_rows, size, summands, target, decode=decode) for summands in (1, 2)]
        tilings += [row_block_tiling(num_rows, size, target, decode=decode)] * (size % 32 == 0)
        for t in tilings:
            assert t.num_tiles == -(-num_rows // t.tile.rows)
            assert t.tile.cols * (t.tile.parts - 1) < size
            _check(t, num_rows, size, t.tile.parts, target)


def test_rows_are_read_again_where_registers_or_time_run_out() -> None:
    def reload(num_rows: int, size: int, target: Target) -> bool:
        return row_tiling(num_rows, size, 1, target, decode=False).tile.reload

    assert reload(16384, 6144, H100)
    assert reload(1, 32768, H100)
    assert reload(1, 32768, MI300X)
    assert not reload(64, 6144, H100)
    assert not reload(16384, 6144, MI300X)
    assert not reload(16384, 12288, H100)


@pytest.mark.parametrize("target", [H100, MI300X], ids=lambda t: t.arch)
def test_many_rows_that_are_quantized_waste_no_lanes(target: Target) -> None:
    for size in (2048, 3072, 5120, 6144, 7168, 8192, 12288, 65536):
        tile = row_block_tiling(65536, size, target, decode=False).tile
        assert not tile.masked
        assert tile.width == size


def test_more_programs_than_a_grid_holds() -> None:
    with pytest.raises(ValueError, match="need 2147483648 programs, more than a grid holds"):
        tiling(2**31, 32, 1, 32, 1)


def test_more_programs_of_a_gradient_than_a_grid_holds() -> None:
    def grid(groups: int) -> int:
        op, rows = EVERY_OP["gemma_rmsnorm_backward"].of(), ArraySpec((1, groups, 1024), "bfloat16")
        specs = bind(op, (rows, ArraySpec((groups, 1024), "bfloat16"), rows))
        return op.plan({**specs, **op.check(specs)}, H100).launches[0].grid[0]

    assert grid(2**31 - 1) == 2**31 - 1
    with pytest.raises(ValueError, match="need 2147483648 programs, more than a grid holds"):
        grid(2**31)


def test_programs_are_on_the_first_axis_of_the_grid() -> None:
    """The second and third axes end at 65,535 programs."""
    assert block_tiling(65536 * 8, 3072, H100, decode=False).num_tiles > 65535
