"""Launch plans of products of MXFP8 matrices."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace

from m3ops import row_count
from m3ops.array import ArraySpec
from m3ops.numerics.constants import CHUNK_BLOCKS
from m3ops.numerics.formats import BLOCK, fp8_format_of
from m3ops.op import Specs
from m3ops.ops.mxfp8_matmul.kernel import ProductTile, _mxfp8_matmul_kernel, _mxfp8_matmul_sum_kernel
from m3ops.ops.mxfp8_matmul.spec import MXFP8Matmul
from m3ops.plan import Launch, Plan, pointers
from m3ops.planning.launch import PROGRAMS, bytes_moved, counts_rows, tiled_launch
from m3ops.planning.mx import cast, scale_plan
from m3ops.planning.narrowing import narrowing
from m3ops.planning.rows import rows_of
from m3ops.planning.tiling import element_tiling, power_of_two_at_least
from m3ops.target import Target
from m3ops.tiles.matrix import Matrix
from m3ops.tiles.mx import Mx
from m3ops.tiles.row_count import RowCount
from m3ops.tiles.rows import Rows

MOST_ROWS = 64
"""Rows of x that a program takes at most."""

COLS = 64
"""Columns of the product that a program takes: what four warps of an H100 multiply at once."""


def matmul_plan(op: MXFP8Matmul, specs: Specs, target: Target, *, keep: Collection[str]) -> Plan:
    product, size = specs["product"], specs["x_values"].shape[-1]
    rows, cols = product.size // max(product.shape[-1], 1), product.shape[-1]
    tile_rows = 16 if counts_rows(specs) else min(max(power_of_two_at_least(rows), 16), MOST_ROWS)
    tiles, chunks = -(-rows // tile_rows) * -(-cols // COLS), -(-size // (BLOCK * CHUNK_BLOCKS))
    divided = chunks > 1 and (counts_rows(specs) or tiles < 2 * target.multiprocessors)
    tile = ProductTile(tile_rows, COLS, size // BLOCK, chunks if divided else 1)
    flops = 2 * rows * cols * size
    if not divided:
        return Plan((_product_launch(op, specs, target, tile, tiles, keep=keep),), bytes_moved(specs), flops)
    partials = ArraySpec((chunks, rows, cols), "float32")
    parts = _product_launch(op, {**specs, "product": partials}, target, tile, tiles * chunks, keep=("product",))
    total = _sum_launch(op, specs, target, chunks, keep=keep)
    launches = (parts.renamed({"product": "partials"}), total)
    return Plan(launches, bytes_moved(specs), flops, {"partials": partials})


def _product_launch(
    op: MXFP8Matmul, specs: Specs, target: Target, tile: ProductTile, programs: int, *, keep: Collection[str]
) -> Launch:
    product = specs["product"]
    alike = {} if tile.parts > 1 else {"product": product}
    total_rows, x, at = _matrix(specs, "x", op.x_layout, target, alike)
    _, w, _ = _matrix(specs, "w", op.w_layout, target, {})
    if counts_rows(specs):
        programs = PROGRAMS * target.multiprocessors
    return Launch(
        kernel=_mxfp8_matmul_kernel,
        grid=(programs,),
        arguments={**pointers(_mxfp8_matmul_kernel, specs), "total_rows": total_rows},
        constants={
            "X": x,
            "W": w,
            "PRODUCT": at.get("product", Rows(product.shape[-1], (), (product.shape[-1], 1))),
            "TILE": tile,
            "NARROWING": narrowing(product.dtype, target, beside_fp8=False),
            "COUNT": RowCount(programs, tuple(keep)) if counts_rows(specs) else None,
        },
        writes=("product",),
        num_warps=4 if target.vendor == "nvidia" else 2,
        options={"num_stages": 3 if target.vendor == "nvidia" else 2},
    )


def _matrix(specs: Specs, name: str, layout: str, target: Target, others: Specs) -> tuple[int, Matrix, dict[str, Rows]]:
    """The rows of a quantized operand, where they lie, and where those of others do."""
    values, scales = specs[f"{name}_values"], specs[f"{name}_scales"]
    tiles = scale_plan(layout, values, scales).tiles
    total_rows, at = rows_of({"values": values, **({} if tiles else {"scales": scales}), **others})
    fp8 = fp8_format_of(values.dtype)
    return (
        total_rows,
        Matrix(at["values"], at.get("scales", Rows(0, (), ())), Mx(fp8, cast(fp8, target), scale_tiles=tiles)),
        at,
    )


def _sum_launch(op: MXFP8Matmul, specs: Specs, target: Target, parts: int, *, keep: Collection[str]) -> Launch:
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
