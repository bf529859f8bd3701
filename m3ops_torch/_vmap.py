"""``torch.func.vmap``: the rows of all examples run in one launch, by what the op's axes allow."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NoReturn

import torch

from m3ops import row_count
from m3ops.array import ArraySpec
from m3ops.op import Op
from m3ops_torch._operands import empty, kinds_of, named, spec_of

Batched = tuple[list[torch.Tensor], list[int]]


def batched(
    op_type: type[Op],
    operator: Callable[..., list[torch.Tensor]],
    info: Any,
    dims: Sequence[int | None],
    *tensors: torch.Tensor | None,
    **params: Any,
) -> Batched:
    """Calls an operator on operands with a batch axis each, or none where all examples share the operand.

    Args:
        op_type: What the operator computes.
        operator: The operator.
        info: ``batch_size`` is the size of the batch axes.
        dims: For each operand its batch axis, or None.
        tensors: The operands.
        params: The parameters.

    Returns:
        The results and their batch axes, all 0.
    """
    op = op_type.of(**params)
    operands, mapped = named(op, tensors), dict(zip((*op.inputs, row_count.NAME), dims, strict=False))
    for name, axes in zip(op.inputs, op.axes.inputs, strict=True):
        if mapped.get(name) and len(axes.axes) == 1 and not axes.rows:  # sizes of groups have to lie side by side
            operands[name], mapped[name] = operands[name].movedim(mapped[name], 0).contiguous(), 0
    results = op.check({name: _example(tensor, mapped[name]) for name, tensor in operands.items()})
    if info.batch_size == 0:
        none = {name: ArraySpec((0, *spec.shape), spec.dtype) for name, spec in results.items()}
        stacked = empty(kinds_of(none), next(iter(operands.values())).device)
    elif _rows_of_all(op, info.batch_size, operands, mapped):
        stacked = _as_rows(op, operator, info.batch_size, operands, mapped, params)
    else:
        stacked = _one_by_one(op, operator, info.batch_size, operands, mapped, params)
    return stacked, [0] * len(stacked)


def refused(op_type: type[Op], *_: Any, **__: Any) -> NoReturn:
    """The rule for PyTorch's older vmap, whose tensors nothing public takes apart."""
    raise NotImplementedError(
        f"{op_type.name} has no rule for is_grads_batched=True, nor for vectorize=True of torch.autograd.functional; "
        "use torch.func.vmap or torch.func.jacrev"
    )


def _example(tensor: torch.Tensor, dim: int | None) -> ArraySpec:
    """An operand as one example has it."""
    spec = spec_of(tensor)
    if dim is None:
        return spec
    shape, strides = list(spec.shape), list(spec.strides)
    del shape[dim], strides[dim]
    return ArraySpec(tuple(shape), spec.dtype, tuple(strides))


def _rows_of_all(op: Op, batch_size: int, operands: dict[str, torch.Tensor], mapped: dict[str, int | None]) -> bool:
    """Whether a batch axis can be one more axis of rows, or of buffers with rows that count in each."""
    have_rows = all(axes.rows or mapped.get(name) is None for name, axes in zip(op.inputs, op.axes.inputs, strict=True))
    if row_count.NAME not in operands:
        return have_rows and not op.axes.joins_rows
    buffers = operands[row_count.NAME].numel() * (1 if mapped[row_count.NAME] is not None else batch_size)
    return have_rows and op.counts_buffers and row_count.can_be(buffers)


def _as_rows(
    op: Op,
    operator: Callable[..., list[torch.Tensor]],
    batch_size: int,
    operands: dict[str, torch.Tensor],
    mapped: dict[str, int | None],
    params: dict[str, Any],
) -> list[torch.Tensor]:
    """One call. What examples share and may lack rows stays as it is, unless a sum over rows is asked for: each has its
    own. Else it is repeated by a stride of zero. Nothing is copied.
    """
    axes = dict(zip(op.inputs, op.axes.inputs, strict=True))
    inputs = {name: tensor for name, tensor in operands.items() if name in axes}
    leading = {
        name: tensor.ndim - (mapped[name] is not None) - len(axes[name].axes)
        for name, tensor in inputs.items()
        if axes[name].rows
    }
    most = max(leading.values())
    given = {}
    for name, tensor in inputs.items():
        dim = mapped[name]
        if dim is None and axes[name].rows and (not axes[name].broadcast or op.axes.sums_rows):
            tensor, dim = tensor.expand(batch_size, *tensor.shape), 0
        if dim is not None:
            missing = most - leading[name]
            tensor = tensor.movedim(dim, 0)[(slice(None), *(None,) * missing)]
        given[name] = tensor
    if row_count.NAME in operands:
        given[row_count.NAME] = _counts_of_all(operands[row_count.NAME], mapped[row_count.NAME], batch_size)
    results = list(operator(*_by_place(op, given), **params))
    own = next((leading[name] for name in inputs if axes[name].broadcast), most)
    for number, result in enumerate(op.axes.results):
        if result.summed:  # it has the axes that its weight was given
            results[number] = results[number].flatten(0, most - own)
    return results


def _counts_of_all(num_rows: torch.Tensor, dim: int | None, batch_size: int) -> torch.Tensor:
    """The counts of all examples, each with one or several buffers."""
    of_all = num_rows.expand(batch_size, *num_rows.shape) if dim is None else num_rows.movedim(dim, 0)
    return (of_all.flatten() if of_all.shape[1:].numel() == 1 else of_all).contiguous()


def _by_place(op: Op, operands: dict[str, torch.Tensor]) -> list[torch.Tensor | None]:
    """The operands as an operator takes them: None for what is optional and not there."""
    return [operands.get(name) for name in (*op.inputs, row_count.NAME)]


def _one_by_one(
    op: Op,
    operator: Callable[..., list[torch.Tensor]],
    batch_size: int,
    operands: dict[str, torch.Tensor],
    mapped: dict[str, int | None],
    params: dict[str, Any],
) -> list[torch.Tensor]:
    def example(i: int) -> dict[str, torch.Tensor]:
        return {n: t if (dim := mapped[n]) is None else t.select(dim, i) for n, t in operands.items()}

    each = [operator(*_by_place(op, example(i)), **params) for i in range(batch_size)]
    stacked = [torch.stack([part.view(torch.uint8) for part in parts]) for parts in zip(*each, strict=True)]
    return [raw.view(part.dtype) for raw, part in zip(stacked, each[0], strict=True)]
