"""One of two processes that call the ops on DTensors: ``python dtensor_worker.py RANK DEVICE FOLDER``."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from inputs import ROWS_FIRST
from processes import WORLD, join
from test_torch import function
from torch.utils import _pytree as pytree

import m3ops_torch  # before DTensor, which it has to notice later


def same_bytes(actual: torch.Tensor, expected: torch.Tensor) -> bool:
    raw = [t.contiguous().view(torch.uint8) for t in (actual, expected)]
    return actual.dtype == expected.dtype and torch.equal(*raw)


def main(rank: int, device: str, folder: Path) -> None:
    from torch.distributed.tensor import DTensor, Replicate, Shard, init_device_mesh
    from torch.distributed.tensor.debug import CommDebugMode

    join(rank, device, folder)
    mesh = init_device_mesh(device, (WORLD,))
    everything = torch.load(folder / "operands", map_location=device)

    def distributed(t: torch.Tensor, placement: Any) -> DTensor:
        local = t.chunk(WORLD, placement.dim)[rank].contiguous() if isinstance(placement, Shard) else t
        return DTensor.from_local(local, mesh, [placement], run_check=False, shape=t.shape, stride=t.stride())

    def check(op: Callable[..., Any], operands: list[torch.Tensor], axis: int, sharded: bool) -> None:
        placements = [Shard(axis) if t.ndim == operands[0].ndim else Replicate() for t in operands]
        inputs = [distributed(t, placement) for t, placement in zip(operands, placements, strict=True)]
        with CommDebugMode() as communication:
            got = op(*inputs)
        assert (communication.get_total_counts() == 0) == sharded, communication.get_comm_counts()
        check_results(got, op(*operands), Shard(axis) if sharded else None)

    def check_results(got: Any, want: Any, wanted: Any) -> None:
        """Of which placement, too; for None it is DTensor's choice, by what it takes communication to cost."""
        assert pytree.tree_structure(got) == pytree.tree_structure(want)
        for actual, expected in zip(pytree.tree_leaves(got), pytree.tree_leaves(want), strict=True):
            (placement,) = actual.placements
            assert wanted in (None, placement), placement
            assert actual.shape == expected.shape
            local = expected.chunk(WORLD, placement.dim)[rank] if isinstance(placement, Shard) else expected
            assert same_bytes(actual.to_local(), local), placement

    for name in ROWS_FIRST:
        op, operands = function(name), everything[name]
        for axis in range(operands[0].ndim - 1):
            check(op, operands, axis, sharded=True)
        if device == "cuda" or all(t.itemsize > 1 for t in operands):  # gloo cannot gather 8-bit floats
            check(op, operands, operands[0].ndim - 1, sharded=False)

    (x,) = everything["mxfp8_quantize"]
    uneven = torch.cat([x, x[:1]])
    check(m3ops_torch.mxfp8_quantize, [uneven], 0, sharded=True)

    def tiled(x: torch.Tensor) -> Any:
        return m3ops_torch.mxfp8_quantize(x, scale_layout="swizzle_128x4")

    check(tiled, [x], 0, sharded=True)
    check(tiled, [x], 1, sharded=False)  # the rows of a matrix share tiles

    def check_columns(name: str, kinds: list[Any], result: Any) -> None:
        """What passes through an op that has no rows first is divided without communication."""
        with CommDebugMode() as communication:
            got = function(name)(*(distributed(t, kind) for t, kind in zip(everything[name], kinds, strict=True)))
        assert communication.get_total_counts() == 0
        check_results(got, function(name)(*everything[name]), result)

    whole = Replicate()
    check_columns("mxfp8_grouped_matmul", [whole, whole, Shard(1), Shard(1), whole, whole], Shard(1))
    check_columns("mxfp8_k_grouped_matmul", [Shard(0), Shard(0), whole, whole, whole], Shard(1))
    check_columns("mxfp8_k_grouped_matmul", [whole, whole, Shard(0), Shard(0), whole], Shard(2))
    check_columns("moe_combine", [Shard(1), whole, whole, Shard(2)], Shard(2))
    check_columns("moe_combine", [whole, Shard(0), Shard(0), Shard(0)], Shard(0))

    (x,) = everything["swiglu_oai"]
    for axis in range(x.ndim):  # the last one too: gates and ups are not parts of it
        check(m3ops_torch.swiglu_oai, [x, x.flip(-1)], axis, sharded=True)

    def counted(x: torch.Tensor, number: torch.Tensor) -> Any:
        return m3ops_torch.mxfp8_quantize(x, num_rows=number)

    number = torch.tensor([13], dtype=torch.int32, device=device)
    check(counted, [x, number], 0, sharded=False)  # which rows count, only all of them together tell
    counts = torch.tensor([6, 0, 2, 9], dtype=torch.int32, device=device)
    with CommDebugMode() as communication:
        got = counted(distributed(x, Shard(0)), distributed(counts, Shard(0)))
    assert communication.get_total_counts() == 0
    check_results(got, counted(x, counts), Shard(0))
    with pytest.raises(ValueError, match="x must be a plain tensor where out is given, got DTensor"):
        m3ops_torch.mxfp8_quantize(distributed(x, Shard(0)), out=m3ops_torch.mxfp8_quantize(x))

    x, weight = everything["gemma_rmsnorm"]
    many = weight.expand(*x.shape).contiguous()
    check(m3ops_torch.gemma_rmsnorm, [x, many], 1, sharded=True)
    check(m3ops_torch.gemma_rmsnorm, [x, many[:1].clone()], 1, sharded=True)

    compiled = torch.compile(m3ops_torch.gemma_rmsnorm, fullgraph=True, backend="aot_eager")
    got = compiled(distributed(x, Shard(0)), distributed(weight, Replicate()))
    check_results(got, m3ops_torch.gemma_rmsnorm(x, weight), Shard(0))

    sharded = [distributed(x, Shard(0)).requires_grad_(), distributed(weight, Replicate()).requires_grad_()]
    whole = [x.clone().requires_grad_(), weight.clone().requires_grad_()]
    for operands in (sharded, whole):
        m3ops_torch.gemma_rmsnorm(*operands).float().square().sum().backward()
    for ours, theirs in zip(sharded, whole, strict=True):
        assert same_bytes(ours.grad.full_tensor(), theirs.grad), "gradients"
    dist.destroy_process_group()


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2], Path(sys.argv[3]))
