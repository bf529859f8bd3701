"""``out=``: results written into tensors that the caller has, checked before anything is launched."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch.autograd import forward_ad

from m3ops import validate
from m3ops.numerics.scale_layouts import ROW_MAJOR
from m3ops.op import Op
from m3ops_torch import _private
from m3ops_torch._mxfp8 import MXFP8
from m3ops_torch._operands import Specs, Tensors, same_device, spec_of


def flattened(op: Op, out: Any) -> list[Any]:
    """The tensors of ``out``, which is one tensor, an ``MXFP8``, or a tuple of these, as the result is."""
    if isinstance(out, tuple | list):
        return [tensor for part in out for tensor in flattened(op, part)]
    if not isinstance(out, MXFP8):
        return [out]
    wanted = getattr(op, "scale_layout", ROW_MAJOR)
    if out.scale_layout != wanted:
        raise ValueError(f"out must have scale_layout={wanted!r}, as the result does, got {out.scale_layout!r}")
    return [out.values, out.scales]


def names(count: int) -> list[str]:
    """What errors call the tensors of ``out``."""
    return ["out"] if count == 1 else [f"out[{number}]" for number in range(count)]


def refuse(operands: Tensors, out: Tensors) -> None:
    """Raises if a transformation of PyTorch would have to look into the call."""
    everything = {**operands, **out}
    if _differentiated(everything.values()):
        raise ValueError("out has no derivative: call under torch.no_grad(), or with tensors that require no gradient")
    for name, tensor in everything.items():
        if _private.is_batchedtensor(tensor):
            raise ValueError(
                "out has no rule for torch.func.vmap: call the op once, with the examples as a leading axis"
            )
        if hasattr(tensor, "__tensor_flatten__"):  # by this PyTorch knows a tensor that wraps others
            raise ValueError(f"{name} must be a plain tensor where out is given, got {type(tensor).__name__}")


def check(op: Op, operands: Tensors, out: Sequence[torch.Tensor], wanted: Specs) -> None:
    """Raises unless the op, whose operands are valid, can write its results there.

    Args:
        op: The op.
        operands: Its operands.
        out: The memory.
        wanted: What the results are like.
    """
    if len(out) != len(wanted):
        raise ValueError(f"out must hold {len(wanted)} tensors, as the result does, got {len(out)}")
    first = next(iter(operands))
    inserted = op.updates.values() if op.inserts else ()
    results = zip(names(len(out)), out, wanted.items(), op.axes_of(operands).results, strict=True)
    for name, tensor, (result, spec), axes in results:
        validate.output(name, spec_of(tensor), spec, contiguous_only=axes.of_matrices and result not in inserted)
        same_device(name, tensor, first, operands[first])


def replaceable(op: Op, operands: Tensors) -> dict[str, bool]:
    """For each operand whether a result may take its place.

    Then the op reads each element of it before it writes a result there, and nobody reads it again.
    """
    inputs = dict(zip(op.inputs, op.axes.inputs, strict=True))
    return {name: op.in_place and name in inputs and not inputs[name].broadcast for name in operands}


def check_overlap(replaceable: dict[str, bool], operands: Sequence[torch.Tensor], out: Sequence[torch.Tensor]) -> None:
    """Raises if a result would be written where something else is, but for in-place use that the op allows.

    Args:
        replaceable: The operands' names, and whether a result may take their place.
        operands: The operands.
        out: The memory for the results.
    """
    inputs = [(*named, given, _extent(given)) for named, given in zip(replaceable.items(), operands, strict=True)]
    outputs: list[tuple[str, torch.Tensor, tuple[int, int]]] = []
    for name, tensor in zip(names(len(out)), out, strict=True):
        start, end = extent = _extent(tensor)
        for other_name, other, (other_start, other_end) in outputs:
            if start < other_end and other_start < end and not _take_turns(tensor, other):
                raise ValueError(f"{name} must not overlap {other_name}")
        for other_name, may_be_replaced, given, (other_start, other_end) in inputs:
            if start < other_end and other_start < end and not (may_be_replaced and _same(tensor, given)):
                if _take_turns(tensor, given):
                    continue
                same = ", unless it is the same tensor" if may_be_replaced else ""
                raise ValueError(f"{name} must not overlap {other_name}{same}")
        outputs.append((name, tensor, extent))


def _same(result: torch.Tensor, given: torch.Tensor) -> bool:
    return result.data_ptr() == given.data_ptr() and spec_of(result) == spec_of(given)


def _take_turns(one: torch.Tensor, other: torch.Tensor) -> bool:
    """Whether tensors whose memory is one stretch have no byte in common: they are pieces that repeat at the same
    distances with room for both, as k and v in one cache do.
    """
    (size, period), (other_size, other_period) = _pieces(one), _pieces(other)
    distance = math.gcd(period, other_period)
    apart = (other.data_ptr() - one.data_ptr()) % distance if distance else 0
    return size <= apart <= distance - other_size


def _pieces(tensor: torch.Tensor) -> tuple[int, int]:
    """The bytes of the contiguous pieces of a tensor, and a divisor of all distances between them."""
    size, period = tensor.itemsize, 0
    for stride, count in sorted((s * tensor.itemsize, n) for s, n in zip(tensor.stride(), tensor.shape, strict=True)):
        if stride == size and not period:
            size *= count
        elif count > 1:
            period = math.gcd(period, stride)
    return size, period


def _extent(tensor: torch.Tensor) -> tuple[int, int]:
    """The first byte and that after the last; an empty tensor has none."""
    start = tensor.data_ptr()
    if tensor.numel() == 0:
        return start, start
    last = sum((size - 1) * stride for size, stride in zip(tensor.shape, tensor.stride(), strict=True))
    return start, start + (last + 1) * tensor.itemsize


def _differentiated(tensors: Any) -> bool:
    """Whether a derivative would go through the call, backward or forward."""
    if torch.is_grad_enabled() and any(tensor.requires_grad for tensor in tensors):
        return True
    return _private.in_forward_mode() and any(forward_ad.unpack_dual(t).tangent is not None for t in tensors)


def bump_versions(out: Sequence[torch.Tensor]) -> None:
    """Tells autograd: a gradient that needs what these tensors held before is then an error."""
    torch.autograd.graph.increment_version(out)
