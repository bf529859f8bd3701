"""Launch plan of products of MXFP8 matrices in fast arithmetic."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from math import gcd
from typing import Any

from m3ops import row_count
from m3ops.array import ArraySpec
from m3ops.numerics.formats import BLOCK
from m3ops.op import Specs
from m3ops.ops.mxfp8.spec import MXFP8Dequantize
from m3ops.ops.mxfp8_matmul.fast_kernel import _mxfp8_matmul_fast_kernel
from m3ops.ops.mxfp8_matmul.plan import counted, product_launch, weight_at
from m3ops.ops.mxfp8_matmul.spec import MXFP8Matmul
from m3ops.plan import Launch, Plan
from m3ops.planning.launch import bytes_moved, counts_rows
from m3ops.planning.tiling import power_of_two_at_least
from m3ops.target import Target
from m3ops.tiles.matrix import Matrix
from m3ops.tiles.product import ProductTile

MOST_ROWS_OF_CODES = 512
"""Up to how many rows of x the kernel itself turns the weight into bfloat16. For more rows of tiles it is done once,
before. N = 6144 on the H100, us: with 256 rows 71 against 95, with 512 117 against 115, with 1024 189 against 162.
"""

ENOUGH_PROGRAMS = 4
"""For each multiprocessor. With fewer, each has to have more on its way: of 32 rows us on the H100 with two stages and
three, N = 49152: 151 and 157; of 16, N = 6144: 43 and 33.
"""

HARDWARE_STEP, STEP = 8, 4
"""Blocks of codes at once, where the hardware converts them and elsewhere: there 8 need 132 KiB of shared memory for a
tile of 64 rows, and some GPUs have 99.
"""

SLIM = {"num_stages": 3, "maxnreg": 80}
"""Of 16 rows and enough programs: with 80 registers six of them fit on a multiprocessor, which then reads all the time
and has no second round that is half empty. N = 49152 on the H100, us: 133; 139 with as many registers as it asks for,
142 with twice the step and half the programs at once.
"""

WIDE = {"num_stages": 3}
"""Of 128 rows and 128 columns, where there are enough: 32 groups of 256 rows, N = 6144 on the H200, us: 1753; 2261 with
64 columns, 1736 to 1848 with 256 rows, which more groups would leave half empty, 2094 with 256 columns.
"""


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


def fast_plan(op: MXFP8Matmul, specs: Specs, target: Target, *, keep: Collection[str]) -> Plan:
    """The operands in bfloat16, x always and the weight where it is read often, and their product."""
    product, x, w = specs["product"], specs["x_values"], specs["w_values"]
    cols, size = w.shape
    rows = x.size // size
    at = weight_at(op, specs, target)
    choice = _choice(rows, cols, size // BLOCK, step_of(at), target, counts=counts_rows(specs))
    scratch = {"x": ArraySpec((rows, size), "bfloat16")}
    launches = [numbers("x", op.x_layout, specs, target)]
    weight = {"w": w, "w_scales": specs["w_scales"]}
    if not choice.converts:
        scratch["w"] = ArraySpec((cols, size), "bfloat16")
        alone = {name: spec for name, spec in specs.items() if name != row_count.NAME}
        launches.append(numbers("w", op.w_layout, alone, target))
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
        weight,
        target,
        choice.tile,
        choice.row_tiles,
        num_warps=choice.num_warps,
        options={**choice.options, **options},
        **arguments,
    )


def numbers(name: str, layout: str, specs: Specs, target: Target) -> Launch:
    """The launch that writes an operand in bfloat16."""
    values, scales = f"{name}_values", f"{name}_scales"
    own = {"values": specs[values], "scales": specs[scales]}
    own["x"] = ArraySpec(specs[values].shape, "bfloat16")
    if row_count.NAME in specs:
        own[row_count.NAME] = specs[row_count.NAME]
    (launch,) = MXFP8Dequantize.of(scale_layout=layout).plan(own, target, keep=["x"]).launches
    return launch.renamed({"values": values, "scales": scales, "x": name})


def step_of(weight: Matrix) -> int:
    """How many blocks of codes are multiplied at once."""
    return HARDWARE_STEP if weight.mx.cast == "nvidia" else STEP


def _choice(rows: int, cols: int, blocks: int, step: int, target: Target, *, counts: bool) -> Choice:
    """By measurement on the H100. AMD's tiles are chosen by what its compute units can hold."""
    if counts or rows <= MOST_ROWS_OF_CODES:
        tile_rows = 16 if counts else tile_rows_of_codes(rows)
        return choice_of_codes(tile_rows, -(-rows // tile_rows), cols, blocks, step, target)
    nvidia, row_tiles = target.vendor == "nvidia", -(-rows // 128)
    wide = nvidia and row_tiles * -(-cols // 256) >= ENOUGH_PROGRAMS * target.multiprocessors
    tile = ProductTile(128, 256 if wide else 128, blocks, True, gcd(blocks, 2))
    stages = (3 if wide else 4) if nvidia else 2
    return Choice(tile, row_tiles, 8 if wide or not nvidia else 4, {"num_stages": stages}, False)


def tile_rows_of_codes(rows: int) -> int:
    """Rows of a tile for so many rows of x, where the kernel reads the weight's codes."""
    return min(max(power_of_two_at_least(rows), 16), 128)


def choice_of_codes(
    tile_rows: int, row_tiles: int, cols: int, blocks: int, step: int, target: Target, *, in_turns: bool = False
) -> Choice:
    """How such a product of so many tiles of rows is divided."""
    nvidia, enough = target.vendor == "nvidia", ENOUGH_PROGRAMS * target.multiprocessors
    if nvidia and tile_rows == 128 and row_tiles * -(-cols // 128) >= enough:
        return Choice(ProductTile(128, 128, blocks, in_turns, gcd(blocks, 2)), row_tiles, 4, WIDE, True)
    many = row_tiles * -(-cols // 64) >= enough and tile_rows < 128
    slim = nvidia and many and tile_rows == 16
    step = STEP if slim or tile_rows == 128 else step
    options = SLIM if slim else {"num_stages": 2 if many or not nvidia else 3}
    return Choice(ProductTile(tile_rows, 64, blocks, in_turns, gcd(blocks, step)), row_tiles, 4, options, True)
