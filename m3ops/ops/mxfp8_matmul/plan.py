"""Launch plan of exact products of MXFP8 matrices."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace
from math import prod
from typing import Any

from m3ops import row_count
from m3ops.array import ArraySpec
from m3ops.numerics.constants import CHUNK_BLOCKS
from m3ops.numerics.formats import BLOCK, fp8_format_of
from m3ops.op import Specs
from m3ops.ops.mxfp8_matmul.kernel import (
    DigitsAt,
    _mxfp8_matmul_digits_kernel,
    _mxfp8_matmul_kernel,
    _mxfp8_matmul_sum_kernel,
)
from m3ops.ops.mxfp8_matmul.spec import MXFP8Matmul, Product
from m3ops.plan import Launch, Plan, pointers
from m3ops.planning.launch import PROGRAMS, bytes_moved, counts_rows, tiled_launch
from m3ops.planning.mx import cast, scale_plan
from m3ops.planning.narrowing import narrowing
from m3ops.planning.rows import rows_of
from m3ops.planning.tiling import block_tiling, element_tiling, power_of_two_at_least
from m3ops.target import Target
from m3ops.tiles.matrix import Matrix
from m3ops.tiles.mx import Mx
from m3ops.tiles.product import ROWS_OF_TILES, ProductTile
from m3ops.tiles.row_count import RowCount
from m3ops.tiles.rows import Rows

MOST_ROWS = 64
"""Rows of x that a program takes at most."""

COLS = 64
"""Columns of the product that a program takes: the fewest that Hopper's tensor cores multiply at once."""

FEWEST_ROWS = 8
"""Rows of a program where there are no more, on NVIDIA. The weights of 51 of 128 groups with one row or two, N = 6144
on the H200, us: 858; 1112 with 16 rows.
"""

FEW_ROWS = 16
"""Up to so many two warps multiply with ``mma.sync``, and load further ahead. One row, N = 49152 on the H200, us: 145;
181 in 128 columns with four warps, 190 in 32 columns. 16 rows: 192; 219 with four warps, 202 in 128 columns of these.
"""

MOST_PARTIALS = 1 << 28
"""Bytes of the sums of chunks where the device counts rows: there is memory for those of all rows. Without a bound a
buffer of 8192 rows of 6144, K = 6144, whose product has 96 MiB, would come with 1152.
"""

OVERLAPPING_PROGRAMS = 8
"""Programs for each multiprocessor from which on a product's launch overlaps that of what is done with x. Fast, us on
the H200, N = 6144: one row (2.9) 21, and 26 where it overlaps, 128 rows (0.7) 59 and 80. One token of a layer, whose
products have 8.7: 95, and 100 where no kernel lets the next begin before it ends.
"""

PROGRAMS_OF_A_DECODE = 8
"""Programs for each multiprocessor that a product of few rows is divided into, as far as its chunks allow; of more rows
half as many. One row, N = 49152 on the H200, us: 145, and undivided 172 at best, in 128 columns; 16 rows 197 and 192.
"""


def exact_plan(op: MXFP8Matmul, specs: Specs, target: Target, *, keep: Collection[str]) -> Plan:
    """The digits of x, their products with those of the weight, and where K is divided the sum of its parts."""
    product, size = specs["product"], specs["x_values"].shape[-1]
    rows, cols = product.size // max(product.shape[-1], 1), product.shape[-1]
    decode = counts_rows(specs)
    tile_rows = 16 if decode else tile_rows_of(rows, target)
    row_tiles = 1 if decode else -(-rows // tile_rows)
    tile = tile_of(rows, tile_rows, row_tiles, cols, size, target, decode=decode)
    moved, flops = bytes_moved(specs), 2 * rows * cols * size
    scratch, launches = {}, []
    if size:
        scratch = digits_of(rows, size)
        specs = {**specs, **scratch}
        launches.append(digits_launch(op, specs, target))
    weight = weight_at(op, specs, target)
    arrays, keeps = specs, keep
    if tile.parts > 1:
        scratch["partials"] = ArraySpec((tile.parts, rows, cols), "float32")
        arrays, keeps = {**specs, "product": scratch["partials"]}, ("product",)
    launch = product_launch(
        _mxfp8_matmul_kernel,
        arrays,
        weight,
        target,
        tile,
        row_tiles,
        num_warps=warps_of(tile, target),
        options=stages_of(tile, target),
    )
    launch = counted(launch, specs, target, keep=keeps)
    return Plan((*launches, *summed(launch, op, specs, target, tile.parts, keep=keep)), moved, flops, scratch)


def tile_rows_of(rows: int, target: Target, most: int = MOST_ROWS) -> int:
    """Rows of a tile for so many rows of x."""
    fewest = FEWEST_ROWS if target.vendor == "nvidia" else 16
    return min(max(power_of_two_at_least(rows), fewest), most)


def tile_of(
    rows: int, tile_rows: int, row_tiles: int, cols: int, size: int, target: Target, *, decode: bool
) -> ProductTile:
    """The tile of a product of so many rows in so many tiles, or where the device counts them of at most so many."""
    chunks, few = -(-size // (BLOCK * CHUNK_BLOCKS)), tile_rows <= FEW_ROWS
    enough = PROGRAMS_OF_A_DECODE * target.multiprocessors // (1 if few else 2)
    divided = row_tiles * -(-cols // COLS) < enough
    if decode:
        divided = 4 * chunks * rows * cols <= MOST_PARTIALS
    # Where rows are counted there may be fewer tiles than take turns.
    in_turns = row_tiles > ROWS_OF_TILES and not decode
    return ProductTile(tile_rows, COLS, size // BLOCK, in_turns, parts=max(chunks, 1) if divided else 1)


def warps_of(tile: ProductTile, target: Target) -> int:
    """Warps of a program that multiplies."""
    return 2 if tile.rows <= FEW_ROWS or target.vendor != "nvidia" else 4


def stages_of(tile: ProductTile, target: Target) -> dict[str, int]:
    """How far it loads ahead."""
    return {"num_stages": (4 if tile.rows <= FEW_ROWS else 3) if target.vendor == "nvidia" else 2}


def digits_of(rows: int, size: int) -> dict[str, ArraySpec]:
    """The memory for the digits of so many rows of x, and for their factors."""
    return {
        "digits": ArraySpec((rows, 2, size), "float16"),
        "factors": ArraySpec((size // BLOCK, rows), "float32"),
    }


def digits_launch(op: Product, specs: Specs, target: Target) -> Launch:
    values, scales = specs["x_values"], specs["x_scales"]
    *leading, size = values.shape
    beside = ArraySpec((*leading, 2 * size), "float16")
    layout = scale_plan(op.x_layout, values, scales)
    own = {"values": values, "scales": scales, "digits": ArraySpec((*leading, size), "float16", beside.strides)}
    total_rows, at = rows_of(layout.rows(own))
    fp8 = fp8_format_of(values.dtype)
    given = ("x_values", "x_scales", row_count.NAME, "digits", "factors")
    return tiled_launch(
        _mxfp8_matmul_digits_kernel,
        op,
        {name: specs[name] for name in given if name in specs},
        target,
        block_tiling(total_rows, size, target, decode=counts_rows(specs)),
        total_rows,
        {"AT": DigitsAt(**layout.at(at)), "MX": Mx(fp8, cast(fp8, target), scale_tiles=layout.tiles)},
        keep=("digits", "factors"),
    )


def product_launch(
    kernel: Any,
    arrays: Specs,
    weight: Matrix,
    target: Target,
    tile: ProductTile,
    row_tiles: int,
    *,
    num_warps: int,
    options: Mapping[str, Any],
    **numbers: int,
) -> Launch:
    """The launch of a kernel that multiplies.

    Args:
        kernel: The kernel.
        arrays: Those of its pointers, by name.
        weight: Where the weight lies.
        target: The device.
        tile: The tile.
        row_tiles: Tiles of rows.
        num_warps: Warps of a program.
        options: Further compiler options.
        numbers: Arguments of the kernel beside pointers and how many rows and tiles of rows there are.
    """
    product = arrays["product"]
    total_rows, at = rows_of({"product": product})
    if tile.parts > 1:
        total_rows, at = total_rows // tile.parts, {"product": Rows(product.shape[-1], (), (product.shape[-1], 1))}
    numbers |= {"total_rows": total_rows, "row_tiles": row_tiles}
    grid = (row_tiles * -(-product.shape[-1] // tile.cols) * tile.parts,)
    return Launch(
        kernel=kernel,
        grid=grid,
        arguments={**pointers(kernel, arrays), **{name: n for name, n in numbers.items() if name in kernel.arg_names}},
        constants={
            "W": weight,
            "PRODUCT": at["product"],
            "TILE": tile,
            "NARROWING": narrowing(product.dtype, target, beside_fp8=False),
        },
        writes=("product",),
        num_warps=num_warps,
        options=options,
        overlaps=overlaps(grid, target),
    )


def overlaps(grid: tuple[int, ...], target: Target) -> bool:
    """Whether the launch of a product overlaps the one before it."""
    return prod(grid) >= OVERLAPPING_PROGRAMS * target.multiprocessors


def counted(launch: Launch, specs: Specs, target: Target, *, keep: Collection[str]) -> Launch:
    """The launch of a kernel that can count rows, as one that does if the call does."""
    if not counts_rows(specs):
        return replace(launch, constants={**launch.constants, "COUNT": None})
    count = RowCount(PROGRAMS * target.multiprocessors, tuple(keep))
    return replace(launch, grid=(count.programs,), constants={**launch.constants, "COUNT": count}, overlaps=False)


def weight_at(op: Product, specs: Specs, target: Target) -> Matrix:
    """Where the weight lies and how its bytes are read."""
    values, scales = specs["w_values"], specs["w_scales"]
    tiles = scale_plan(op.w_layout, values, scales).tiles
    _, at = rows_of({"values": values, **({} if tiles else {"scales": scales})})
    fp8 = fp8_format_of(values.dtype)
    mx = Mx(fp8, cast(fp8, target), scale_tiles=tiles)
    *groups, rows, _ = values.shape
    return Matrix(at["values"], at.get("scales", Rows(0, (), ())), mx, rows, prod(groups))


def summed(
    launch: Launch, op: Product, specs: Specs, target: Target, parts: int, *, keep: Collection[str]
) -> tuple[Launch, ...]:
    """The launch of a product, and where K is divided that which adds its parts."""
    if parts == 1:
        return (launch,)
    return launch.renamed({"product": "partials"}), _sum_launch(op, specs, target, parts, keep=keep)


def _sum_launch(op: Product, specs: Specs, target: Target, parts: int, *, keep: Collection[str]) -> Launch:
    product = specs["product"]
    each = ArraySpec(product.shape, "float32")
    total_rows, at = rows_of({"partials": each, "product": product})
    operands = {"partials": each, "product": product}
    if counts_rows(specs):
        operands[row_count.NAME] = specs[row_count.NAME]
    launch = tiled_launch(
        _mxfp8_matmul_sum_kernel,
        op,
        operands,
        target,
        element_tiling(total_rows, product.shape[-1], target, decode=counts_rows(specs)),
        total_rows,
        {
            "PARTIALS": at["partials"],
            "PRODUCT": at["product"],
            "PARTS": parts,
            "NARROWING": narrowing(product.dtype, target, beside_fp8=False),
        },
        keep=keep,
    )
    return replace(launch, writes=("product",))
