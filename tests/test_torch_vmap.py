"""``torch.func.vmap``: batch axes become rows of one call."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
import torch
from compare import assert_same_bytes
from test_torch import arrays, every_op_of_rows, function, tensors
from torch.func import vmap
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode

import m3ops_torch
from m3ops.tools.run import flat


class Calls(TorchDispatchMode):
    """The m3ops operators that were called."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func.namespace == "m3ops":
            self.names.append(func._opname)
        return func(*args, **(kwargs or {}))


def moved(results: Any, source: int, destination: int) -> Any:
    return pytree.tree_map(lambda t: t.movedim(source, destination), results)


@every_op_of_rows
@pytest.mark.parametrize(("axis", "out_axis"), [(0, 0), (1, 1), (-2, 0)])
def test_one_call_for_all_examples(name: str, axis: int, out_axis: int, device: str) -> None:
    op, operands = function(name), tensors(name, device)
    in_dims = tuple(axis if t.ndim == 3 else None for t in operands)
    with Calls() as calls:
        got = vmap(op, in_dims, out_axis)(*operands)
    assert calls.names == [name]
    assert type(got) is type(op(*operands))
    assert_same_bytes(arrays(moved(got, out_axis, axis)), arrays(op(*operands)))


@every_op_of_rows
def test_nested(name: str, device: str) -> None:
    op, operands = function(name), tensors(name, device)
    outer = tuple(1 if t.ndim == 3 else None for t in operands)
    inner = tuple(0 if t.ndim == 3 else None for t in operands)
    with Calls() as calls:
        got = vmap(vmap(op, inner), outer)(*operands)
    assert calls.names == [name]
    assert_same_bytes(arrays(moved(got, 0, 1)), arrays(op(*operands)))


@pytest.mark.parametrize("in_dims", [(0, 0), (None, 0), (1, 0), (0, 1), (None, 1)])
def test_over_the_weight(in_dims: tuple[int | None, int], device: str) -> None:
    x = torch.randn(3, 3, 64, device=device) if in_dims[0] is not None else torch.randn(3, 64, device=device)
    weight = torch.randn(3, 64, device=device) if in_dims[1] == 0 else torch.randn(64, 3, device=device)
    got = vmap(m3ops_torch.gemma_rmsnorm, in_dims)(x, weight)
    for i in range(3):
        own_x = x if in_dims[0] is None else x.select(in_dims[0], i)
        want = m3ops_torch.gemma_rmsnorm(own_x, weight.select(in_dims[1], i))
        assert_same_bytes(arrays(got[i]), arrays(want))


def test_over_x_but_not_the_residual(device: str) -> None:
    x, residual, weight = (torch.randn(shape, device=device) for shape in [(3, 5, 64), (5, 64), (64,)])
    got = vmap(m3ops_torch.gemma_fused_add_rmsnorm, (0, None, None))(x, residual, weight)
    want = m3ops_torch.gemma_fused_add_rmsnorm(x, residual.expand(x.shape), weight)
    assert_same_bytes(arrays(got), arrays(want))


def test_nested_over_different_operands(device: str) -> None:
    """A table of all pairs: each level maps what the other keeps."""
    x, weight = torch.randn(2, 64, device=device), torch.randn(3, 64, device=device)
    got = vmap(vmap(m3ops_torch.gemma_rmsnorm, (None, 0)), (0, None))(x, weight)
    want = m3ops_torch.gemma_rmsnorm(x[:, None].expand(2, 3, 64), weight)
    assert_same_bytes(arrays(got), arrays(want))


def test_compiled(device: str) -> None:
    x = torch.randn(3, 5, 64, device=device)
    compiled = torch.compile(vmap(m3ops_torch.swiglu_oai_quantize, 1), fullgraph=True, backend="aot_eager")
    assert_same_bytes(arrays(compiled(x)), arrays(moved(m3ops_torch.swiglu_oai_quantize(x), 0, 1)))


def test_wrong_call_speaks_of_one_example(device: str) -> None:
    with pytest.raises(ValueError, match=r"the last axis of x must be a multiple of 32 .*, got 40"):
        vmap(m3ops_torch.mxfp8_quantize, 1)(torch.randn(40, 3, device=device))


@pytest.mark.parametrize("name", ["swiglu_oai", "gemma_rmsnorm", "gemma_fused_add_rmsnorm"])
@pytest.mark.parametrize("num_rows", [5, 64])
def test_many_gradients_at_once(name: str, num_rows: int, device: str) -> None:
    """The backward operator under vmap, in which examples share the operands and each has gradients of its own."""
    op = function(name)
    operands = [torch.randn(num_rows, 64, device=device) for _ in range(3)]
    operands = {"swiglu_oai": operands[:1], "gemma_rmsnorm": [operands[0], operands[1][0]]}.get(
        name, [*operands[:2], operands[2][0]]
    )
    operands = [t.clone().requires_grad_() for t in operands]
    result = op(*operands)
    result = result[0] if isinstance(result, tuple) else result
    cotangents = torch.randn(4, *result.shape, device=device)
    with Calls() as calls:
        got = vmap(lambda cotangent: torch.autograd.grad(result, operands, cotangent, retain_graph=True))(cotangents)
    assert calls.names == [f"{name}_backward"]
    for i, cotangent in enumerate(cotangents):
        want = torch.autograd.grad(result, operands, cotangent, retain_graph=True)
        assert_same_bytes(arrays([g[i] for g in got]), arrays(want))


@every_op_of_rows
@pytest.mark.parametrize("counted", [False, True], ids=["all rows", "num_rows"])
def test_no_examples(name: str, counted: bool, device: str) -> None:
    op, operands = function(name), [t[:0] if t.ndim == 3 else t for t in tensors(name, device)]
    given = {"num_rows": torch.ones(1, dtype=torch.int32, device=device)} if counted else {}
    in_dims = tuple(0 if t.ndim == 3 else None for t in operands)
    got = flat(vmap(lambda *t: op(*t, **given), in_dims)(*operands))
    want = flat(op(*operands, **given))
    assert [(t.shape, t.dtype, t.stride()) for t in got] == [(t.shape, t.dtype, t.stride()) for t in want]


def test_examples_of_what_has_no_rows() -> None:
    """One after another: tiled scales have matrices for rows, weights of examples are of rows."""
    x = torch.randn(3, 5, 64)
    got = vmap(partial(m3ops_torch.mxfp8_quantize, scale_layout="swizzle_128x4"))(x)
    assert_same_bytes(arrays(got), arrays(m3ops_torch.mxfp8_quantize(x, scale_layout="swizzle_128x4")))


def test_sizes_of_groups_along_any_axis() -> None:
    """Those of an example do not lie side by side then."""
    x, sizes = torch.randn(3, 8, 64, dtype=torch.bfloat16), torch.tensor([[3, 2, 1], [5, 0, 4]], dtype=torch.int32)

    def quantized(x: torch.Tensor, sizes: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return tuple(m3ops_torch.mxfp8_quantize(x, sizes, scale_layout="swizzle_128x4_groups"))

    got = vmap(quantized, (0, 1))(x, sizes)
    for i in range(3):
        assert_same_bytes(arrays(tuple(part[i] for part in got)), arrays(quantized(x[i], sizes[:, i].contiguous())))


def test_the_older_vmap_is_refused_by_name() -> None:
    x = torch.ones(2, 64, requires_grad=True)
    y = m3ops_torch.gemma_rmsnorm(x, torch.zeros(64))
    with pytest.raises(NotImplementedError, match=r"no rule for is_grads_batched=True.*torch\.func\.jacrev"):
        torch.autograd.grad(y, x, torch.ones(3, 2, 64), is_grads_batched=True)
