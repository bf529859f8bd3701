"""Launch plans of the choice of experts and of the sum of their results."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace

from m3ops.numerics.constants import float32, sigmoid_constants
from m3ops.op import Specs
from m3ops.ops.moe.combine_kernel import Combine, CombineAt, _moe_combine_kernel
from m3ops.ops.moe.logits_kernel import LogitsAt, _moe_logits_kernel
from m3ops.ops.moe.route_kernel import Route, RouteAt, _moe_route_backward_kernel, _moe_route_kernel
from m3ops.ops.moe.spec import MoECombine, MoELogits, MoERoute, MoERouteBackward, Routing
from m3ops.plan import Launch, Plan, pointers
from m3ops.planning.launch import bytes_moved, counts_rows, tiled_launch
from m3ops.planning.narrowing import narrowing
from m3ops.planning.rows import rows_of
from m3ops.planning.tiling import ROW_TILE, Tiling, element_tiling, power_of_two_at_least, tiling
from m3ops.target import Target

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
    launch = tiled_launch(
        _moe_logits_kernel, op, specs, target, tiles, total_rows, {"AT": LogitsAt(**at, **of_w)}, keep=keep
    )
    return Plan((launch,), bytes_moved(specs), 2 * size * specs["logits"].size)


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
    route = _route(op)
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


def _route(op: Routing) -> Route:
    return Route(op.top_k, power_of_two_at_least(op.top_k), *sigmoid_constants(1.0))


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
