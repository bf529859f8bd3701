"""The launch that quantizes a matrix along its rows, along its columns or along both."""

from __future__ import annotations

import math
from dataclasses import replace

from m3ops.array import ArraySpec
from m3ops.numerics.formats import BLOCK
from m3ops.numerics.scale_layouts import ROW_MAJOR, TILES
from m3ops.op import Specs
from m3ops.ops.mxfp8.matrix_kernel import Matrices, _mxfp8_quantize_matrix_kernel
from m3ops.ops.mxfp8.spec import MatrixQuantization, MXFP8QuantizeTransposed
from m3ops.plan import Launch, Plan, pointers
from m3ops.planning.launch import bytes_moved
from m3ops.planning.mx import FLOPS_PER_ELEMENT, mx, scale_plan
from m3ops.planning.rows import rows_of
from m3ops.planning.tiling import matrix_tiling
from m3ops.target import Target
from m3ops.tiles.mx import Mx


def matrix_plan(op: MatrixQuantization, specs: Specs, target: Target) -> Plan:
    named = _named(op, specs)
    *batch, num_rows, size = specs["x"].shape
    matrices = math.prod(batch)
    _, at = rows_of({"x": specs["x"]})
    tiling, row_tiles = matrix_tiling(num_rows, size, matrices, _multiple(op.scale_layout), target)
    col_tiles = tiling.num_tiles // (matrices * row_tiles)
    launch = Launch(
        kernel=_mxfp8_quantize_matrix_kernel,
        grid=(tiling.num_tiles,),
        arguments={**pointers(_mxfp8_quantize_matrix_kernel, named), "row_blocks": num_rows // BLOCK},
        constants={
            "AT": Matrices(at["x"], col_tiles, row_tiles if matrices > 1 else 0),
            "TILE": tiling.tile,
            "MX": _mx(op, named, "", target),
            "TRANSPOSED_MX": _mx(op, named, "transposed_", target),
            "SQUARE": op.square_blocks,
        },
        writes=tuple(name for name in named if name != "x"),
        num_warps=tiling.num_warps,
        overlaps=True,
    )
    own = dict(zip(named, specs, strict=True))
    return Plan((launch.renamed(own),), bytes_moved(specs), FLOPS_PER_ELEMENT * specs["x"].size)


def _multiple(scale_layout: str) -> int:
    """So many rows and columns fill whole tiles of scales, of the matrix and of the transposed one."""
    if scale_layout == ROW_MAJOR:
        return BLOCK
    tiles = TILES[scale_layout]
    return max(tiles.pad_rows, tiles.shape[1] * BLOCK)


def _named(op: MatrixQuantization, specs: Specs) -> dict[str, ArraySpec]:
    """The operands by the kernel's names."""
    if not isinstance(op, MXFP8QuantizeTransposed):
        return dict(specs)
    return {name if name == "x" else f"transposed_{name}": spec for name, spec in specs.items()}


def _mx(op: MatrixQuantization, named: Specs, prefix: str, target: Target) -> Mx | None:
    """How one of the results is written; None where it is not."""
    if f"{prefix}values" not in named:
        return None
    scales = scale_plan(op.scale_layout, named[f"{prefix}values"], named[f"{prefix}scales"])
    made = mx(op.fp8_format, op.scale_rule, scales, target)
    # The kernel numbers the rows of each matrix by themselves.
    return replace(made, scale_tiles=made.scale_tiles and replace(made.scale_tiles, matrix_rows=0))
