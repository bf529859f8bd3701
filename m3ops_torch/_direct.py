"""What is kept of a call for the next ones of its kind, and which calls may use it past the dispatcher.

All that a call needs besides its tensors' addresses (checks, plan, compiled kernels) depends on the op, the layouts of
the tensors and what Triton specializes kernels by. A direct call takes 28 us of an H100's host. Before this was written
anew it took 21 us of an H200's, and one through the dispatcher 34.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import torch

from m3ops import row_count
from m3ops.op import Op
from m3ops_torch import _launch, _out, _private
from m3ops_torch._operands import Tensors, check, empty, kinds_of, spec_of

MOST_KEPT = 4096
"""Kinds of calls that are remembered; a serving loop has one for each op and batch size."""

Key = tuple[Any, ...]
Given = Sequence[torch.Tensor]
Out = Sequence[torch.Tensor] | None


class Kept:
    """What does not change between calls of one kind. Making it checks the call."""

    def __init__(self, op: Op, operands: Tensors, out: Out) -> None:
        self.replaceable = _out.replaceable(op, operands)
        self.device = next(iter(operands.values())).device
        results = check(op, operands)
        self.results = kinds_of(results)
        places = {name: number for number, name in enumerate(operands)}
        self.begun = [(places[n], [*results].index(r)) for n, r in op.updates.items() if op.inserts and r in results]
        if out is not None:
            _out.check(op, operands, out, results)
            results = {name: spec_of(tensor) for name, tensor in zip(results, out, strict=True)}
        self.plan, self.scratch, names = None, kinds_of({}), (*operands, *results)
        if any(spec.size for spec in results.values()):
            given = {name: spec_of(tensor) for name, tensor in operands.items()}
            keep = () if out is None else tuple(results)
            self.plan = op.plan({**given, **results}, _launch.target_of(self.device), keep=keep)
            self.scratch, names = kinds_of(self.plan.scratch), (*names, *self.plan.scratch)
        self.names = names
        self._launchers: list[_launch.Launcher] | None = None

    def __call__(self, operands: Given, out: Out = None) -> Given:
        """Launches on tensors of this kind, into new results unless some are given."""
        if out is None:
            results: Given = empty(self.results, self.device)
            for given, result in self.begun:
                results[result].copy_(operands[given])
        else:
            _out.check_overlap(self.replaceable, operands, out)
            _out.bump_versions(out)
            results = out
        if self.plan is not None:
            tensors = (*operands, *results, *empty(self.scratch, self.device))
            if self.device.index == torch.cuda.current_device():
                self._launch(tensors)
            else:
                with torch.cuda.device(self.device):
                    self._launch(tensors)
        return results

    def _launch(self, tensors: Given) -> None:
        if self._launchers is not None:
            for launch in self._launchers:
                launch(tensors)
        else:  # maybe in two threads at once: each launches all, and what one of them returns stays
            assert self.plan is not None
            self._launchers = _launch.launch(self.plan, self.names, tensors)


kept: dict[Key, Kept] = {}
"""By :func:`_key`."""


def compute(op: Op, operands: Tensors, out: Out = None) -> Given:
    """The implementation of an op for GPUs, which the dispatcher calls."""
    given = tuple(operands.values())
    key = _key(op, [name in operands for name in (*op.inputs, row_count.NAME)], given, out)
    call = kept.get(key)
    if call is None:
        if len(kept) >= MOST_KEPT:
            kept.clear()
        call = kept.setdefault(key, Kept(op, operands, out))
    return call(given, out)


def attempt(op: Op, operands: Sequence[torch.Tensor | None], out: Out) -> Given | None:
    """Makes a call past the dispatcher; None if that cannot be or none of its kind has been made.

    Args:
        op: The op.
        operands: The inputs and ``num_rows``, or None in its place.
        out: Memory for the results.
    """
    if not kept or not _nothing_at_work():
        return None
    given = [tensor for tensor in operands if tensor is not None]
    if not _are_plain(given) or not _are_plain(out or ()):
        return None
    call = kept.get(_key(op, [tensor is not None for tensor in operands], given, out))
    return None if call is None else call(given, out)


def _key(op: Op, present: list[bool], operands: Given, out: Out) -> Key:
    """What tells one kind of call from another; of the inputs and ``num_rows`` some may not be there."""
    facts: list[Any] = [op, *present, out is None]
    for tensor in operands if out is None else (*operands, *out):
        facts += (tensor.shape, tensor.stride(), tensor.dtype, tensor.device, _pointer_facts(tensor))
    return tuple(facts)


def _pointer_facts(tensor: torch.Tensor) -> Any:
    """What Triton specializes kernels by: alignment to 16 bytes; for AMD, whether 32-bit offsets reach all of it."""
    aligned = tensor.data_ptr() % 16 == 0
    return (aligned, tensor.untyped_storage().nbytes() < 2**31) if torch.version.hip else aligned


# Direct is a call for which the dispatcher would call :func:`compute` and nothing else, and nobody would notice.


def _nothing_at_work() -> bool:
    """Whether no mode sees operators (fake tensors, tracing, counters), no transform, no profiler."""
    return (
        _private.included_keys() in _AT_REST
        and not _private.number_of_function_modes()
        and not _private.is_profiling()
        and not _private.in_forward_mode()
    )


def _are_plain(tensors: Given) -> bool:
    """Whether these are ordinary tensors of a GPU through which no derivative is recorded.

    Not so are subclasses, what is negated or conjugated when it is read, what has no memory, and what wraps another.
    """
    plain, recording = plain_keys(), torch.is_grad_enabled()
    for tensor in tensors:
        if type(tensor) is not torch.Tensor and type(tensor) is not torch.nn.Parameter:
            return False
        if _private.dispatch_keys(tensor) not in plain or (recording and tensor.requires_grad):
            return False
    return True


def _seen(of: Any) -> list[Any]:
    """What the dispatcher sees outside of inference mode and in it."""
    seen = []
    for inference in (False, True):
        with torch.inference_mode(inference):
            seen.append(of())
    return seen


with ThreadPoolExecutor(1) as _pool:  # in a new thread, for this one may be importing inside of a mode
    _AT_REST = _pool.submit(_seen, _private.included_keys).result()

_PLAIN: list[Any] = []


def plain_keys() -> list[Any]:
    """What the dispatcher sees of an ordinary tensor on a GPU. Asked only after a call on a GPU."""
    if not _PLAIN:
        _PLAIN.extend(_seen(lambda: _private.dispatch_keys(torch.empty(0, device="cuda"))))
    return _PLAIN
