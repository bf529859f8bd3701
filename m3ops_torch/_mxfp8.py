"""The quantized container of this front end: to PyTorch a tree of two tensors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from m3ops import mxfp8
from m3ops.numerics.scale_layouts import ROW_MAJOR
from m3ops.op import Op
from m3ops_torch import _private


@dataclass(frozen=True, eq=False)
class MXFP8(mxfp8.MXFP8):
    """Values and scales of a quantized tensor, and how the scales are stored.

    ``values, scales = q`` unpacks it, ``q[rows]`` slices leading axes, and ``q.scale_layout`` names the layout of the
    scales. To ``torch.compile``, ``torch.export``, ``torch.func`` and ``torch.utils`` it is a tree of two tensors;
    ``torch.save`` and ``torch.load`` take it.
    """

    values: torch.Tensor
    scales: torch.Tensor

    @property
    def e8m0(self) -> torch.Tensor:
        """The scales as numbers: ``float8_e8m0fnu``, the same memory."""
        return self.scales.view(torch.float8_e8m0fnu)

    @property
    def packed_ue8m0(self) -> torch.Tensor:
        """The scales as DeepGEMM takes them, the same memory: int32 ``[..., M, K / 128]``, where M has a stride of 1.

        Raises:
            ValueError: They are stored in another layout.
        """
        if self.scale_layout != "packed_ue8m0":
            raise ValueError(f"packed_ue8m0 is of scale_layout='packed_ue8m0', got {self.scale_layout!r}")
        *batch, rows, blocks = self.scales.shape
        columns = self.scales.view(torch.int32).view(*batch, blocks // 4, rows)
        return columns.mT[..., : self.values.shape[-2], :]


MXFP8.__module__ = "m3ops_torch"  # what saved files and exported programs call it

Children = tuple[list[Any], str]


def quantized(name: str, q: Any) -> MXFP8:
    """An argument that has to be quantized.

    Raises:
        TypeError: It is not.
    """
    mxfp8.require(name, q, MXFP8)
    given: MXFP8 = q
    return given


def packed(op: Op, results: Sequence[torch.Tensor]) -> Any:
    """The results of an op as its public function returns them. Scales, the only bytes, follow their values.

    :func:`m3ops.mxfp8.packed` asks for their names, which only the checks of a call tell.
    """
    parts: list[Any] = []
    for tensor in results:
        scales = tensor.dtype == torch.uint8
        parts.append(MXFP8(parts.pop(), tensor, getattr(op, "scale_layout", ROW_MAJOR)) if scales else tensor)
    return parts[0] if len(parts) == 1 else tuple(parts)


def _children(q: MXFP8) -> Children:
    return [q.values, q.scales], q.scale_layout


def _named_children(q: MXFP8) -> tuple[list[tuple[Any, Any]], str]:
    return [(_private.GetAttrKey(name), getattr(q, name)) for name in ("values", "scales")], q.scale_layout


def _with_children(children: Any, scale_layout: Any) -> MXFP8:
    values, scales = children
    return MXFP8(values, scales, scale_layout)


_private.register_pytree_node(
    MXFP8,
    _children,
    _with_children,
    serialized_type_name="m3ops.MXFP8",
    to_dumpable_context=lambda scale_layout: scale_layout,
    from_dumpable_context=lambda scale_layout: scale_layout,
    flatten_with_keys_fn=_named_children,  # type: ignore[arg-type]
)
torch.serialization.add_safe_globals([MXFP8])
