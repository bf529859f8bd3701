"""Launch plan of products of MXFP8 matrices in fast arithmetic."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from math import gcd

from m3ops import row_count
from m3ops.array import ArraySpec
from m3ops.numerics.formats import BLOCK
from m3ops.op import Specs
from m3ops.ops.mxfp8.spec import MXFP8Dequantize
from m3ops.ops.mxfp8_matmul.fast_kernel import _mxfp8_matmul_fast_kernel
from m3ops.ops.mxfp8_matmul.plan import product_launch, weight_at
from m3ops.ops.mxfp8_matmul.spec import MXFP8Matmul
from m3ops.plan import Launch, Plan
from m3ops.planning.launch import bytes_moved, counts_rows
from m3ops.planning.tiling import power_of_two_at_least
from m3ops.target import Target
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


@dataclass(frozen=True)
class Choice:
    """How a product is divided among programs.

    Attributes:
        tile: The tile.
        programs: How many there are.
        num_warps: Warps of each.
        options: Further compiler options.
        converts: Whether the kernel reads the weight's codes.
    """

    tile: ProductTile
    programs: int
    num_warps: int
    options: Mapping[str, int]
    converts: bool


def fast_plan(op: MXFP8Matmul, specs: Specs, target: Target, *, keep: Collection[str]) -> Plan:
    """The operands in bfloat16, x always and the weight where it is read often, and their product."""
    product, x, w = specs["product"], specs["x_values"], specs["w_values"]
    cols, size = w.shape
    rows = x.size // size
    at = weight_at(op, specs, target)
    step = HARDWARE_STEP if at.mx.cast == "nvidia" else STEP
    choice = _choice(rows, cols, size // BLOCK, step, target, counted=counts_rows(specs))
    scratch = {"x": ArraySpec((rows, size), "bfloat16")}
    launches = [_numbers("x", op.x_layout, specs, target)]
    weight = {"w": w, "w_scales": specs["w_scales"]}
    if not choice.converts:
        scratch["w"] = ArraySpec((cols, size), "bfloat16")
        alone = {name: spec for name, spec in specs.items() if name != row_count.NAME}
        launches.append(_numbers("w", op.w_layout, alone, target))
        weight = {"w": scratch["w"]}
    given = {name: specs[name] for name in ("product", row_count.NAME) if name in specs}
    # Of AMD's instructions one size for all tiles: others add other numbers of products at once.
    options = {} if target.vendor == "nvidia" else {"matrix_instr_nonkdim": 16}
    launch = product_launch(
        _mxfp8_matmul_fast_kernel,
        {**given, **weight, "x": scratch["x"]},
        at,
        target,
        choice.tile,
        choice.programs,
        keep=keep,
        num_warps=choice.num_warps,
        options={**choice.options, **options},
    )
    launches.append(launch.renamed({"w": "w_values"}) if choice.converts else launch)
    return Plan(tuple(launches), bytes_moved(specs), 2 * product.size * size, scratch)


def _numbers(name: str, layout: str, specs: Specs, target: Target) -> Launch:
    """The launch that writes an operand in bfloat16."""
    values, scales = f"{name}_values", f"{name}_scales"
    own = {"values": specs[values], "scales": specs[scales]}
    own["x"] = ArraySpec(specs[values].shape, "bfloat16")
    if row_count.NAME in specs:
        own[row_count.NAME] = specs[row_count.NAME]
    (launch,) = MXFP8Dequantize.of(scale_layout=layout).plan(own, target, keep=["x"]).launches
    return launch.renamed({"values": values, "scales": scales, "x": name})


def _choice(rows: int, cols: int, blocks: int, step: int, target: Target, *, counted: bool) -> Choice:
    """By measurement on the H100. AMD's tiles are chosen by what its compute units can hold."""
    nvidia, enough = target.vendor == "nvidia", ENOUGH_PROGRAMS * target.multiprocessors
    if counted or rows <= MOST_ROWS_OF_CODES:
        tile_rows = 16 if counted else min(max(power_of_two_at_least(rows), 16), 128)
        programs = -(-rows // tile_rows) * -(-cols // 64)
        many = programs >= enough and tile_rows < 128
        slim = nvidia and many and tile_rows == 16
        step = STEP if slim or tile_rows == 128 else step
        options = SLIM if slim else {"num_stages": 2 if many or not nvidia else 3}
        return Choice(ProductTile(tile_rows, 64, blocks, False, gcd(blocks, step)), programs, 4, options, True)
    wide = nvidia and -(-rows // 128) * -(-cols // 256) >= enough
    tile = ProductTile(128, 256 if wide else 128, blocks, True, gcd(blocks, 2))
    programs = -(-rows // 128) * -(-cols // tile.cols)
    stages = (3 if wide else 4) if nvidia else 2
    return Choice(tile, programs, 8 if wide or not nvidia else 4, {"num_stages": stages}, False)
