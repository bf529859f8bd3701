"""How a launch reads or writes MXFP8: the target's conversions and the layout of the scales."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

from m3ops.array import ArraySpec
from m3ops.numerics.formats import BLOCK, FP8_FORMATS
from m3ops.numerics.scale_layouts import OF_GROUPS, ROW_MAJOR, TILES, TILES_OF_GROUPS
from m3ops.op import Specs
from m3ops.target import Target
from m3ops.tiles.mx import Mx
from m3ops.tiles.rows import Rows
from m3ops.tiles.scales import PADDING_CHUNK, ScaleTiles, padded_size

FLOPS_PER_ELEMENT = 4


@dataclass(frozen=True)
class ScalePlan:
    """What a plan has to know of the scales of its values.

    Attributes:
        tiles: The tiled layout; None where scales are rows like those of the other operands.
        size: Elements of a row of values with the blocks that pad it, for tilings to cover.
        pads_blocks: Whether there are such blocks: tiles then reach past the edges of the values.
        padding: Programs that write padding rows, beside those that work on tiles.
    """

    tiles: ScaleTiles | None
    size: int
    pads_blocks: bool = False
    padding: int = 0

    def rows(self, specs: Specs) -> dict[str, ArraySpec]:
        """The operands that have rows: all but numbers of rows, and scales in tiles."""
        left_out = {"num_rows"} if self.tiles is None else {"num_rows", "group_sizes", "scales"}
        return {name: spec for name, spec in specs.items() if name not in left_out}

    def at(self, rows: dict[str, Rows]) -> dict[str, Rows]:
        """Those rows and the scales, of which only the size counts where they are in tiles."""
        return {"scales": Rows(rows["values"].size // BLOCK, (), ()), **rows}


def scale_plan(scale_layout: str, values: ArraySpec, scales: ArraySpec) -> ScalePlan:
    """The layout of the scales of these values."""
    size = values.shape[-1]
    if scale_layout == ROW_MAJOR:
        return ScalePlan(None, size)
    of_groups = scale_layout in OF_GROUPS
    layout = TILES[TILES_OF_GROUPS if of_groups else scale_layout]
    *batch, total_rows, _ = values.shape
    padded_rows, padded_blocks = scales.shape[-2:]
    matrix_rows = total_rows if prod(batch) > 1 else 0
    tiles = ScaleTiles(
        layout.rows, layout.blocks, layout.strides, layout.pad_rows, layout.by_columns, padded_blocks, matrix_rows
    )
    full_rows = total_rows // tiles.tile_rows * tiles.tile_rows if not matrix_rows else 0
    padding = scales.size - full_rows * padded_blocks if total_rows != padded_rows and not of_groups else 0
    padded = padded_size(size, tiles)
    return ScalePlan(tiles, padded, padded != size, -(-padding // PADDING_CHUNK))


def cast(fp8_format: str, target: Target) -> str:
    """How a target converts to and from a format, the CAST of ``fp32.encode_e4m3``."""
    wanted = FP8_FORMATS[fp8_format].name
    if wanted in target.hardware_fp8:
        return target.vendor
    return "fnuz" if wanted == "float8_e4m3fn" and "float8_e4m3fnuz" in target.hardware_fp8 else "integer"


def mx(fp8_format: str, scale_rule: str, scales: ScalePlan, target: Target, *, round_activation: bool = False) -> Mx:
    """The constexpr of a kernel that quantizes."""
    return Mx(fp8_format, cast(fp8_format, target), scale_rule, scales.tiles, round_activation)
