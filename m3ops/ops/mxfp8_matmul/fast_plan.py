"""Launch plan of products of MXFP8 matrices in fast arithmetic."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from math import gcd
from typing import Any

from m3ops import row_count
from m3ops.array import ArraySpec
from m3ops.numerics.formats import BLOCK
from m3ops.op import Specs
from m3ops.ops.mxfp8.spec import MXFP8Dequantize
from m3ops.ops.mxfp8_matmul.fast_kernel import _mxfp8_matmul_fast_kernel
from m3ops.ops.mxfp8_matmul.plan import counted, product_launch, tile_rows_of, weight_at
from m3ops.ops.mxfp8_matmul.spec import MXFP8Matmul
from m3ops.plan import Launch, Plan
from m3ops.planning.launch import bytes_moved, counts_rows
from m3ops.target import Target
from m3ops.tiles.matrix import Matrix
from m3ops.tiles.product import ProductTile

MOST_ROWS_OF_CODES = 768
"""Up to how many rows of x the kernel itself turns the weight into bfloat16. For more rows of tiles it is done once,
before. us on the H200, of 512, 768 and 1024 rows: N = 6144 111, 178 and 180 against 135, 183 and 182 and twice the
weight's memory; N = 49152 686, 1043 and 1395 against 882, 1203 and 1153.
"""

MOST_ROWS = 128
"""Rows of x of a tile at most."""

ENOUGH_PROGRAMS = 4
"""For each multiprocessor. With fewer, tiles are narrow."""


@dataclass(frozen=True)
class Choice:
    """How a product is divided among programs.

    Attributes:
        tile: The tile.
        row_tiles: Tiles of rows.
        num_warps: Warps of each.
        options: Further compiler options.
        converts: Whether the kernel reads the weight's codes.
    """

    tile: ProductTile
    row_tiles: int
    num_warps: int
    options: Mapping[str, int]
    converts: bool

    def interleaves(self, target: Target) -> bool:
        """Whether both operands are in the order of ``functions.interleave``: unless ``mma.sync`` takes codes."""
        mma_sync = self.converts and not (target.mma_of_warp_groups and self.num_warps >= 4)
        return target.vendor == "nvidia" and not mma_sync


def fast_plan(op: MXFP8Matmul, specs: Specs, target: Target, *, keep: Collection[str]) -> Plan:
    """The operands in bfloat16, x always and the weight where it is read often, and their product."""
    product, x, w = specs["product"], specs["x_values"], specs["w_values"]
    cols, size = w.shape
    rows = x.size // size
    at = weight_at(op, specs, target)
    choice = _choice(rows, cols, size // BLOCK, target, counts=counts_rows(specs))
    scratch = {"x": ArraySpec((rows, size), "bfloat16")}
    launches = [numbers("x", op.x_layout, specs, target, choice)]
    weight = {"w": w, "w_scales": specs["w_scales"]}
    if not choice.converts:
        scratch["w"] = ArraySpec((cols, size), "bfloat16")
        alone = {name: spec for name, spec in specs.items() if name != row_count.NAME}
        launches.append(numbers("w", op.w_layout, alone, target, choice))
        weight = {"w": scratch["w"]}
    given = {name: specs[name] for name in ("product", row_count.NAME) if name in specs}
    launch = fast_launch(_mxfp8_matmul_fast_kernel, {**given, **weight, "x": scratch["x"]}, at, choice, target)
    launch = counted(launch, specs, target, keep=keep)
    launches.append(launch.renamed({"w": "w_values"}) if choice.converts else launch)
    return Plan(tuple(launches), bytes_moved(specs), 2 * product.size * size, scratch)


def fast_launch(kernel: Any, arrays: Specs, weight: Matrix, choice: Choice, target: Target, **arguments: int) -> Launch:
    """The launch of a kernel that multiplies so."""
    # Of AMD's instructions one size for all tiles: others add other numbers of products at once.
    options = {} if target.vendor == "nvidia" else {"matrix_instr_nonkdim": 16}
    return product_launch(
        kernel,
        arrays,
        replace(weight, mx=replace(weight.mx, interleaves=choice.interleaves(target))),
        target,
        choice.tile,
        choice.row_tiles,
        num_warps=choice.num_warps,
        options={**choice.options, **options},
        **arguments,
    )


def numbers(name: str, layout: str, specs: Specs, target: Target, choice: Choice) -> Launch:
    """The launch that writes an operand in bfloat16, in the order that the product takes."""
    values, scales = f"{name}_values", f"{name}_scales"
    own = {"values": specs[values], "scales": specs[scales]}
    own["x"] = ArraySpec(specs[values].shape, "bfloat16")
    if row_count.NAME in specs:
        own[row_count.NAME] = specs[row_count.NAME]
    (launch,) = MXFP8Dequantize.of(scale_layout=layout).plan(own, target, keep=["x"]).launches
    mx = replace(launch.constants["MX"], interleaves=choice.interleaves(target))
    launch = replace(launch, constants={**launch.constants, "MX": mx})
    return launch.renamed({"values": values, "scales": scales, "x": name})


def _choice(rows: int, cols: int, blocks: int, target: Target, *, counts: bool) -> Choice:
    """By measurement on H100 and H200. AMD's tiles are chosen by what its compute units can hold."""
    if counts or rows <= MOST_ROWS_OF_CODES:
        tile_rows = 16 if counts else tile_rows_of(rows, target, MOST_ROWS)
        return choice_of_codes(tile_rows, -(-rows // tile_rows), cols, blocks, target)
    nvidia, row_tiles = target.vendor == "nvidia", -(-rows // 128)
    wide = nvidia and row_tiles * -(-cols // 256) >= ENOUGH_PROGRAMS * target.multiprocessors
    tile = ProductTile(128, 256 if wide else 128, blocks, True, gcd(blocks, 2))
    stages = (3 if wide else 4) if nvidia else 2
    return Choice(tile, row_tiles, 8 if wide or not nvidia else 4, {"num_stages": stages}, False)


def choice_of_codes(
    tile_rows: int, row_tiles: int, cols: int, blocks: int, target: Target, *, in_turns: bool = False
) -> Choice:
    """How such a product of so many tiles of rows is divided."""

    def choice(tile_cols: int, step: int, num_warps: int, num_stages: int) -> Choice:
        tile = ProductTile(tile_rows, tile_cols, blocks, in_turns, gcd(blocks, step))
        return Choice(tile, row_tiles, num_warps, {"num_stages": num_stages}, True)

    def enough(tile_cols: int) -> bool:
        return row_tiles * -(-cols // tile_cols) >= ENOUGH_PROGRAMS * target.multiprocessors

    if target.vendor != "nvidia":
        return choice(64, 4, 4, 2)
    # One or two warps multiply with mma.sync, for which Triton reads four codes at a time. They turn codes into
    # bfloat16 while others wait for memory, so many programs have little each. 128 weights [6144, 6144] on the H200, us
    # of 52 rows of as many groups: 463; 16 rows of x in a tile 495, 64 columns 472, and half the step too 520. One row
    # of 5 groups: 56; with four stages 63, since fewer programs have room. One row and one weight, N = 6144 and 49152:
    # 20 and 83; in 16 columns by one warp 18.6 and 82, with four stages 20 and 80.
    if tile_rows <= 16:
        return choice(32, 8, 2, 3) if tile_rows == 16 or enough(32) else choice(16, 8, 1, 4)
    if tile_rows == 32:  # one weight, N = 6144, us: 35 and 27
        return choice(64, 4, 2, 3) if enough(64) else choice(16, 8, 1, 4)
    # From here on wgmma. 128 groups with 32, 64 and 256 rows on average, us: 2210, 2520 and 6590; in 64 columns 2420,
    # 3430 and 8270. One weight, N = 6144: 128 rows 60 and 57, 256 rows 77 and 84.
    return choice(128, 2, 4, 3) if row_tiles > 1 or enough(128) else choice(64, 2, 4, 4)
