"""The CPU implementation: the specification itself, on NumPy views of the tensors."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from m3ops.op import Op
from m3ops_torch import _out
from m3ops_torch._operands import Tensors, check, empty, kinds_of

_RAW = {1: torch.uint8, 2: torch.uint16, 4: torch.uint32, 8: torch.uint64}


def compute(op: Op, operands: Tensors, out: Sequence[torch.Tensor] | None = None) -> list[torch.Tensor]:
    """Computes an op by its specification, into ``out`` if that is given."""
    specs = check(op, operands)
    if out is not None:
        _out.check(op, operands, out, specs)
        _out.check_overlap(_out.replaceable(op, operands), list(operands.values()), out)
    arrays = {name: to_array(tensor) for name, tensor in operands.items()}
    op.check_values(arrays)
    results = op.reference(arrays, threads=torch.get_num_threads())
    if out is None:
        places, masks = empty(kinds_of(specs), torch.device("cpu")), {}
    else:
        places, masks = list(out), op.written(arrays, results)
        _out.bump_versions(out)
    for place, (name, result) in zip(places, results.items(), strict=True):
        np.copyto(to_array(place), result, where=masks.get(name, np.True_))
    return places


def to_array(tensor: torch.Tensor) -> np.ndarray:
    """The memory of a tensor as an array. ``Tensor.numpy`` would forbid the storage to be resized for ever after."""
    raw = np.from_dlpack(tensor.detach().view(_RAW[tensor.itemsize]))
    return raw.view(np.dtype(str(tensor.dtype).removeprefix("torch.")))
