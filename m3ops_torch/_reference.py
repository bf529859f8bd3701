"""The CPU implementation: the specification itself, on NumPy views of the tensors."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from m3ops.op import Op
from m3ops.row_count import written

_RAW = {1: torch.uint8, 2: torch.uint16, 4: torch.uint32}


def run(op: Op, *tensors: torch.Tensor, **params: Any) -> list[torch.Tensor]:
    """Computes an op by its specification."""
    return [_to_tensor(array) for array in op.reference(*map(_to_array, tensors), **params)]


def run_out(op: Op, *tensors: torch.Tensor, out: list[torch.Tensor], **params: Any) -> None:
    """Computes an op into ``out``."""
    results = op.reference(*map(_to_array, tensors), **params)
    masks = written(results, _to_array(tensors[-1]), params) if op.counted else [np.True_] * len(results)
    for place, result, mask in zip(out, results, masks, strict=True):
        np.copyto(_to_array(place), result, where=mask)


def _to_array(tensor: torch.Tensor) -> np.ndarray:
    return tensor.view(_RAW[tensor.itemsize]).numpy().view(np.dtype(str(tensor.dtype).removeprefix("torch.")))


def _to_tensor(array: np.ndarray) -> torch.Tensor:
    raw = np.ascontiguousarray(array).view(f"uint{8 * array.itemsize}")
    return torch.from_numpy(raw).view(getattr(torch, array.dtype.name))
