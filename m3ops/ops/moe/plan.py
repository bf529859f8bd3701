"""Launch plans of the choice of experts and of the sum of their results."""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import replace

from m3ops import row_count
from m3ops.array import ArraySpec
from m3ops.numerics.constants import LANES, float32, sigmoid_constants
from m3ops.numerics.formats import FP8_FORMATS
from m3ops.op import Specs
from m3ops.ops.moe.combine_backward_kernel import (
    CombineBackward,
    CombineBackwardAt,
    _moe_combine_backward_kernel,
)
from m3ops.ops.moe.combine_kernel import Combine, CombineAt, _moe_combine_kernel
from m3ops.ops.moe.logits_backward_kernel import WeightAt, _moe_logits_weight_kernel
from m3ops.ops.moe.logits_kernel import LogitsAt, _moe_logits_kernel
from m3ops.ops.moe.owners_kernel import _moe_owners_kernel
from m3ops.ops.moe.route_kernel import Route, RouteAt, _moe_route_backward_kernel, _moe_route_kernel
from m3ops.ops.moe.scatter_kernel import Scatter, ScatterAt, _moe_scatter_quantize_kernel
from m3ops.ops.moe.scatter_spec import MoEScatterQuantize
from m3ops.ops.moe.spec import (
    MoECombine,
    MoECombineBackward,
    MoELogits,
    MoELogitsBackward,
    MoERoute,
    MoERouteBackward,
    Routing,
)
from m3ops.plan import Launch, Plan, pointers
from m3ops.planning.launch import bytes_moved, counts_rows, tiled_launch
from m3ops.planning.mx import FLOPS_PER_ELEMENT as QUANTIZE_FLOPS
from m3ops.planning.mx import mx, scale_plan
from m3ops.planning.narrowing import narrowing
from m3ops.planning.rows import rows_of
from m3ops.planning.tiling import ROW_TILE, Tiling, block_tiling, element_tiling, power_of_two_at_least, tiling
from m3ops.target import Target
from m3ops.tiles.rows import Rows

FLOPS_PER_LOGIT = 24

LOGITS_OF_A_THREAD = 4
"""Few: each is compared twice for each expert that is chosen, one expert after the other. Others were not measured. The
top 4 of 128 experts take 4.1 us for one token on the H200 and 32 for 65536, at 0.4 of the bandwidth of a copy.
"""


def logits_plan(op: MoELogits, specs: Specs, target: Target, *, keep: Collection[str]) -> Plan:
    experts, size = specs["w"].shape
    total_rows, at = rows_of({name: specs[name] for name in ("x", "logits")})
    _, of_w = rows_of({"w": specs["w"]})
    tiles = tiling(total_rows, experts, *_logits_tile(total_rows * experts, target, decode=counts_rows(specs)))
    constants = {"AT": LogitsAt(**at, **of_w), "NARROWING": narrowing("float32", target, beside_fp8=False)}
    launch = tiled_launch(_moe_logits_kernel, op, specs, target, tiles, total_rows, constants, keep=keep)
    return Plan((launch,), bytes_moved(specs), 2 * size * specs["logits"].size)


def logits_backward_plan(op: MoELogitsBackward, specs: Specs, target: Target) -> Plan:
    """A product along the experts for the tokens, and one along the tokens for the weight."""
    launches = (_of_tokens(specs, target), _of_weight(specs, target))
    return Plan(launches, bytes_moved(specs), 4 * specs["w"].shape[-1] * specs["grad"].size)


def _of_tokens(specs: Specs, target: Target) -> Launch:
    w, grad_x = specs["w"], specs["grad_x"]
    total_rows, at = rows_of({name: specs[name] for name in ("grad", "grad_x")})
    _, of_w = rows_of({"w": ArraySpec(w.shape[::-1], w.dtype, w.strides[::-1])})
    tiles = _of_a_product(total_rows, grad_x.shape[-1], target)
    return Launch(
        kernel=_moe_logits_kernel,
        grid=(tiles.num_tiles,),
        arguments={
            "x_ptr": "grad",
            "w_ptr": "w",
            "num_rows_ptr": None,
            "total_rows": total_rows,
            "logits_ptr": "grad_x",
        },
        constants={
            "AT": LogitsAt(at["grad"], of_w["w"], at["grad_x"]),
            "TILE": tiles.tile,
            "NARROWING": narrowing(grad_x.dtype, target, beside_fp8=False),
            "COUNT": None,
        },
        writes=("grad_x",),
        num_warps=tiles.num_warps,
    )


def _of_weight(specs: Specs, target: Target) -> Launch:
    grad_w = specs["grad_w"]
    experts, size = grad_w.shape
    total_rows, at = rows_of({name: specs[name] for name in ("x", "grad")})
    _, of_w = rows_of({"grad_w": grad_w})
    tiles = _of_a_product(experts, size, target)
    return Launch(
        kernel=_moe_logits_weight_kernel,
        grid=(tiles.num_tiles,),
        arguments={**pointers(_moe_logits_weight_kernel, specs), "total_rows": total_rows},
        constants={
            "AT": WeightAt(**at, **of_w),
            "TILE": tiles.tile,
            "NARROWING": narrowing(grad_w.dtype, target, beside_fp8=False),
        },
        writes=("grad_w",),
        num_warps=tiles.num_warps,
    )


def _of_a_product(rows: int, cols: int, target: Target) -> Tiling:
    """A program is there where no result is: the other result of the call may be."""
    tiles = tiling(rows, cols, *_logits_tile(rows * cols, target, decode=False))
    masked = tiles.tile.masked or not tiles.num_tiles
    return replace(tiles, tile=replace(tiles.tile, masked=masked), num_tiles=max(tiles.num_tiles, 1))


def _logits_tile(results: int, target: Target, *, decode: bool) -> tuple[int, int, int]:
    """Tokens, experts and warps of a program: one each as long as that many programs run at once.

    M3's router on the H200, us, by tokens: 1 token 7.8, where a product of fp32 by PyTorch takes 11.4; 16 9.3, with two
    experts 11.1, with four tokens 17.1 (PyTorch 20.7); 64 with two experts 15.2, with two tokens of these 17.5 (20.9);
    8192 with 8 x 16 670, with 16 x 8 812, with 4 x 8 and one warp 904 (403). Loads ahead through shared memory change
    none of these.
    """
    if decode or results <= 16 * target.multiprocessors:
        return 1, 1, 1
    return (1, 2, 1) if results < 256 * target.multiprocessors else (8, 16, 4)


def route_plan(op: MoERoute, specs: Specs, target: Target, *, keep: Collection[str]) -> Plan:
    total_rows, rows = rows_of({name: spec for name, spec in specs.items() if name != "num_rows"})
    route = _route(op, op.shared_experts)
    tiles = _tiling(total_rows, specs["logits"].shape[-1], target, masked=route.cols != op.top_k)
    constants = {"AT": RouteAt(**rows), "ROUTE": route}
    launch = tiled_launch(_moe_route_kernel, op, specs, target, tiles, total_rows, constants, keep=keep)
    return Plan((launch,), bytes_moved(specs), FLOPS_PER_LOGIT * specs["logits"].size)


def route_backward_plan(op: MoERouteBackward, specs: Specs, target: Target) -> Plan:
    logits = specs["logits"]
    total_rows, rows = rows_of(specs)
    route = replace(_route(op), narrowing=narrowing(logits.dtype, target, beside_fp8=False))
    tiles = _tiling(total_rows, logits.shape[-1], target, masked=route.cols != op.top_k)
    launch = Launch(
        kernel=_moe_route_backward_kernel,
        grid=(tiles.num_tiles,),
        arguments={**pointers(_moe_route_backward_kernel, specs), "total_rows": total_rows},
        constants={"AT": RouteAt(**rows), "TILE": tiles.tile, "ROUTE": route},
        writes=("grad_logits",),
        num_warps=tiles.num_warps,
    )
    return Plan((launch,), bytes_moved(specs), FLOPS_PER_LOGIT * logits.size)


def _route(op: Routing, shared_experts: int = 0) -> Route:
    return Route(op.top_k, power_of_two_at_least(op.top_k + shared_experts), *sigmoid_constants(1.0))


def _tiling(total_rows: int, size: int, target: Target, *, masked: bool) -> Tiling:
    """Whole rows, short ones gathered."""
    cols = power_of_two_at_least(max(size, 32))
    rows = max(1, min(ROW_TILE // cols, power_of_two_at_least(total_rows)))
    base = tiling(total_rows, size, rows, cols, max(1, rows * cols // (LOGITS_OF_A_THREAD * target.warp_size)))
    return replace(base, tile=replace(base.tile, masked=base.tile.masked or masked))


def combine_plan(op: MoECombine, specs: Specs, target: Target, *, keep: Collection[str]) -> Plan:
    y, slots, result = specs["y"], specs["slots"], specs["result"]
    total_rows, rows = rows_of({name: spec for name, spec in specs.items() if name not in ("y", "num_rows")})
    _, of_y = rows_of({"y": y})
    tiles = element_tiling(total_rows, y.shape[-1], target, decode=counts_rows(specs))
    constants = {
        "AT": CombineAt(**of_y, **rows),
        "COMBINE": Combine(float32(op.scale), narrowing(result.dtype, target, beside_fp8=False)),
    }
    launch = tiled_launch(_moe_combine_kernel, op, specs, target, tiles, total_rows, constants, keep=keep)
    launch = replace(launch, arguments={**launch.arguments, "y_rows": y.shape[0]})
    return Plan((launch,), bytes_moved(specs), 2 * slots.shape[-1] * result.size)


SLOTS_OF_A_THREAD = 8
"""Slots that a thread looks at together to see which rows they name. No measurement chose this or the next three."""

OWNERS_THREADS = 512
"""Threads of a program that does this for all slots and some rows, so that it is over soon."""

FEWEST_ROWS = 1024
"""Rows of y that such a program looks for at least: each goes through all slots."""

ROWS_TOGETHER = 32
"""Rows of y that a program looks at for those which no slot names alone: there are few, or they are many zeros."""


def combine_backward_plan(op: MoECombineBackward, specs: Specs, target: Target) -> Plan:
    """The numbers of slots that name each row, those that alone do, and then each gradient in one launch.

    A program for each token reads its gradient once, and each row of y that it names; it writes the gradients of rows
    that it alone names. Programs after these write the other rows'. So each byte of the operands is moved once; beside
    them 20 are for each row of y, in the numbers of slots.
    """
    y, slots = specs["y"], specs["slots"]
    total_rows, at = rows_of({name: specs[name] for name in specs if name not in ("y", "grad_y")})
    _, of_y = rows_of({name: specs[name] for name in ("y", "grad_y")})
    num_warps = max(1, power_of_two_at_least(slots.shape[-1]) * LANES // 512)
    programs = total_rows + -(-y.shape[0] // ROWS_TOGETHER)
    if max(slots.size, y.shape[0], programs) > 2**30:
        raise ValueError(f"{slots.size} slots of {y.shape[0]} rows are more than a kernel numbers (2**30)")
    owners = ArraySpec((max(y.shape[0], 1),), "int32")
    scratch = {"named_by": owners, "owners": owners}
    backward = CombineBackward(
        scale=float32(op.scale),
        narrowing=narrowing(y.dtype, target, beside_fp8=False),
        places=power_of_two_at_least(slots.shape[-1]),
        rows=ROWS_TOGETHER,
        elements=SLOTS_OF_A_THREAD * target.warp_size * num_warps,
    )
    launch = Launch(
        kernel=_moe_combine_backward_kernel,
        grid=(programs,),
        arguments={
            **pointers(_moe_combine_backward_kernel, {**specs, **scratch}),
            "y_rows": y.shape[0],
            "total_rows": total_rows,
        },
        constants={"AT": CombineBackwardAt(**of_y, **at), "BACKWARD": backward},
        writes=("grad_y", "grad_weights"),
        num_warps=num_warps,
    )
    owner_launches = [_owners_launch(name, at["slots"], total_rows, specs, scratch, target) for name in scratch]
    return Plan((*owner_launches, launch), bytes_moved(specs), 4 * slots.shape[-1] * specs["grad"].size, scratch)


def _owners_launch(name: str, slots: Rows, total_rows: int, specs: Specs, scratch: Specs, target: Target) -> Launch:
    """The launch that writes one of the scratch arrays, the second by the first."""
    y_rows = scratch[name].size
    rows_each = max(FEWEST_ROWS, -(-y_rows // target.multiprocessors))
    return Launch(
        kernel=_moe_owners_kernel,
        grid=(-(-y_rows // rows_each),),
        arguments={
            "slots_ptr": "slots",
            "num_rows_ptr": row_count.NAME if row_count.NAME in specs else None,
            "named_by_ptr": None if name == "named_by" else "named_by",
            "y_rows": y_rows,
            "rows_each": rows_each,
            "total_rows": total_rows,
            "owners_ptr": name,
        },
        constants={"AT": slots, "TOGETHER": SLOTS_OF_A_THREAD * OWNERS_THREADS},
        writes=(name,),
        num_warps=OWNERS_THREADS // target.warp_size,
    )


def scatter_plan(op: MoEScatterQuantize, specs: Specs, target: Target, *, keep: Collection[str]) -> Plan:
    """The numbers of slots that name each row, those that alone do, and then all results in one launch.

    Each token is read and quantized once, by programs that write it to the rows that it alone names. Programs after
    these write what pads scales, and the rows that no slot names alone.
    """
    values = specs["values"]
    result_rows = math.prod(values.shape[:-1])
    scales = scale_plan(op.scale_layout, values, specs["scales"])
    total_rows, at = rows_of({name: specs[name] for name in op.inputs})
    owners = ArraySpec((max(result_rows, 1),), "int32")
    scratch = {"named_by": owners, "owners": owners}
    tiles = block_tiling(total_rows, scales.size, target, decode=counts_rows(specs))
    groups = -(-result_rows // ROWS_TOGETHER)
    if max(specs["slots"].size, result_rows, tiles.num_tiles + scales.padding + groups) > 2**30:
        raise ValueError(f"{specs['slots'].size} slots of {result_rows} rows are more than a kernel numbers (2**30)")
    constants = {
        "AT": ScatterAt(**at),
        "MX": mx(op.fp8_format, op.scale_rule, scales, target),
        "SCATTER": Scatter(
            nan_code=FP8_FORMATS[op.fp8_format].nan_code,
            clears="values" not in keep,
            rows=ROWS_TOGETHER,
            elements=16 * target.warp_size * tiles.num_warps,
        ),
    }
    kernel = _moe_scatter_quantize_kernel
    launch = tiled_launch(kernel, op, specs, target, tiles, total_rows, constants, keep=keep, scales=scales)
    given: dict[str, str | int | None] = {"owners_ptr": "owners", "result_rows": result_rows, "padding": scales.padding}
    grid = launch.grid if row_count.NAME in specs else (launch.grid[0] + groups,)
    launch = replace(launch, grid=grid, arguments={**launch.arguments, **given})
    owner_launches = [_owners_launch(name, at["slots"], total_rows, specs, scratch, target) for name in scratch]
    flops = QUANTIZE_FLOPS * specs["x"].size
    return Plan((*owner_launches, launch), bytes_moved(specs), flops, scratch)
