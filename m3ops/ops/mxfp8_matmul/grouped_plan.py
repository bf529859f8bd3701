"""Launch plans of grouped products: x as its arithmetic wants it, and the product."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace
from typing import Any

from m3ops import row_count
from m3ops.array import ArraySpec
from m3ops.numerics.formats import BLOCK
from m3ops.numerics.scale_layouts import OF_GROUPS, TILES_OF_GROUPS
from m3ops.op import Specs
from m3ops.ops.mxfp8_matmul import fast_plan as fast
from m3ops.ops.mxfp8_matmul import plan as exact
from m3ops.ops.mxfp8_matmul.grouped_kernel import (
    _mxfp8_grouped_matmul_fast_kernel,
    _mxfp8_grouped_matmul_kernel,
)
from m3ops.ops.mxfp8_matmul.spec import MXFP8GroupedMatmul
from m3ops.plan import Launch, Plan
from m3ops.planning.launch import bytes_moved, counts_rows
from m3ops.planning.scale_groups import Launches, in_groups
from m3ops.target import Target
from m3ops.tiles import groups
from m3ops.tiles.matrix import Matrix


@dataclass(frozen=True)
class _Call:
    """What both arithmetics have in common of a call.

    Attributes:
        op: The op.
        specs: All operands by name.
        target: The device.
        keep: Results that keep what their memory held in the rows that do not count.
    """

    op: MXFP8GroupedMatmul
    specs: Specs
    target: Target
    keep: Collection[str]

    @property
    def shape(self) -> tuple[int, int, int]:
        """Rows and columns of the product, and K."""
        return (*self.specs["product"].shape, self.specs["x_values"].shape[-1])  # type: ignore[return-value]

    @property
    def groups(self) -> int:
        return self.specs["w_values"].shape[0]

    @property
    def rows_each(self) -> int:
        """Rows of a group on average; where the device counts rows they are taken for few."""
        return exact.FEWEST_ROWS if counts_rows(self.specs) else -(-self.shape[0] // max(self.groups, 1))

    @property
    def x(self) -> Specs:
        """The operands of what is done with x beforehand. Which rows are gathered, only the product knows."""
        left_out = row_count.NAME if "rows" in self.specs else ""
        return {name: spec for name, spec in self.specs.items() if name != left_out}

    @property
    def weight(self) -> Matrix:
        """The weights; none where x has no rows, so that nobody looks for one."""
        at = exact.weight_at(self.op, self.specs, self.target)
        return at if self.specs["x_values"].shape[0] else replace(at, groups=0)

    def plan(self, scratch: dict[str, ArraySpec], launches: list[Launch]) -> Plan:
        rows, cols, size = self.shape
        return Plan(tuple(launches), bytes_moved(self.specs), 2 * rows * cols * size, scratch)

    def in_groups(self, launch: Launch, *, keep: Collection[str]) -> Launches:
        """The launch of what is done with x beforehand, where its scales are those of groups."""
        return in_groups(launch, self.op.x_layout, self.specs, "x_scales", self.target, keep=keep)

    def row_tiles(self, tile_rows: int) -> int:
        return groups.most_tiles(self.shape[0], self.groups, tile_rows)

    def of_groups(self, launch: Launch) -> Launch:
        """The launch of a kernel that multiplies, with what it has to know of the groups."""
        return replace(launch, constants={**launch.constants, "GROUPS": self.groups})


def exact_plan(op: MXFP8GroupedMatmul, specs: Specs, target: Target, *, keep: Collection[str]) -> Plan:
    """The digits of x, their products with those of the weights, and where K is divided the sum of its parts."""
    call = _Call(op, specs, target, keep)
    rows, cols, size = call.shape
    x_rows = specs["x_values"].shape[0]
    tile_rows = exact.tile_rows_of(call.rows_each, target)
    decode = counts_rows(specs)
    tile = exact.tile_of(rows, tile_rows, call.row_tiles(tile_rows), cols, size, target, decode=decode)
    kept = ("product",) if tile.parts > 1 else keep
    scratch: dict[str, ArraySpec] = {}
    launches: list[Launch] = []
    if size and x_rows:
        digits = exact.digits_of(x_rows, size)
        own, beside = call.in_groups(exact.digits_launch(op, {**call.x, **digits}, target), keep=digits)
        scratch, launches = digits | beside, [*own]
    arrays: dict[str, Any] = {**specs, **scratch}
    if tile.parts > 1:
        arrays["product"] = scratch["partials"] = ArraySpec((tile.parts, rows, cols), "float32")
    launch = exact.product_launch(
        _mxfp8_grouped_matmul_kernel,
        arrays,
        call.weight,
        target,
        tile,
        call.row_tiles(tile_rows),
        num_warps=exact.warps_of(tile, target),
        options=exact.stages_of(tile, target),
        x_rows=x_rows,
    )
    launch = exact.counted(call.of_groups(launch), specs, target, keep=kept)
    return call.plan(scratch, [*launches, *exact.summed(launch, op, specs, target, tile.parts, keep=keep)])


def fast_plan(op: MXFP8GroupedMatmul, specs: Specs, target: Target, *, keep: Collection[str]) -> Plan:
    """The rows of x in bfloat16 and their products with the weights, whose codes the kernel converts."""
    call = _Call(op, specs, target, keep)
    _, cols, size = call.shape
    x_rows, weight = specs["x_values"].shape[0], call.weight
    tile_rows = exact.tile_rows_of(2 * call.rows_each, target, fast.MOST_ROWS)
    scratch = {"x": ArraySpec((x_rows, size), "bfloat16")}
    launches: list[Launch] = []
    choice = fast.choice_of_codes(
        tile_rows,
        call.row_tiles(tile_rows),
        cols,
        size // BLOCK,
        target,
        in_turns=call.rows_each > tile_rows,
    )
    if x_rows:
        layout = TILES_OF_GROUPS if op.x_layout in OF_GROUPS else op.x_layout
        own, beside = call.in_groups(fast.numbers("x", layout, call.x, target, choice), keep=["x"])
        scratch, launches = scratch | beside, [*own]
    launch = fast.fast_launch(
        _mxfp8_grouped_matmul_fast_kernel,
        {**specs, **scratch},
        weight,
        choice,
        target,
        x_rows=x_rows,
    )
    return call.plan(scratch, [*launches, exact.counted(call.of_groups(launch), specs, target, keep=keep)])
