"""A quantized array that knows how its scales are stored. Each front end has a subclass that its framework knows."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Self

from m3ops.numerics.formats import fp8_format_of
from m3ops.numerics.scale_layouts import ROW_MAJOR


@dataclass(frozen=True, eq=False)
class MXFP8:
    """A quantized array: ``values[..., i] * 2**(scales[..., i // 32] - 127)``.

    ``values, scales = q`` unpacks it. The layout is static: two of different layouts are different structures to
    ``jax.jit``, ``torch.compile`` and the tree functions of both frameworks.

    Attributes:
        values: E4M3 values, shape ``[..., I]``, dtype ``float8_e4m3fn`` or ``float8_e4m3fnuz``.
        scales: E8M0 exponents, dtype ``uint8``, shape ``[..., I / 32]``, padded in a tiled layout.
        scale_layout: Where the scale of a row and a block is stored, see :mod:`m3ops.numerics.scale_layouts`.
    """

    values: Any
    scales: Any
    scale_layout: str = ROW_MAJOR

    def __iter__(self) -> Iterator[Any]:
        yield self.values
        yield self.scales

    def __getitem__(self, rows: Any) -> Self:
        """The rows at an index or slice of leading axes.

        Raises:
            IndexError: The index reaches the last axis, whose blocks share scales.
            ValueError: Scales in a tiled layout are not stored by row.
        """
        index = rows if isinstance(rows, tuple) else (rows,)
        if self.scale_layout != ROW_MAJOR:
            raise ValueError(f"an MXFP8 with scale_layout={self.scale_layout!r} cannot be sliced: quantize a slice")
        if len(index) >= self.values.ndim or any(part is None or part is ... for part in index):
            raise IndexError(f"an MXFP8 is indexed along leading axes only, got {rows} for shape {self.values.shape}")
        return replace(self, values=self.values[index], scales=self.scales[index])

    @property
    def fp8_format(self) -> str:
        """``"e4m3fn"`` or ``"e4m3fnuz"``."""
        return fp8_format_of(str(self.values.dtype).removeprefix("torch."))


def require(name: str, q: Any, kind: type[MXFP8]) -> None:
    """Raises TypeError unless an argument is the container of a front end."""
    if not isinstance(q, kind):
        of = f"{type(q).__module__}." if isinstance(q, MXFP8) else ""
        raise TypeError(f"{name} must be an MXFP8 of this front end, got {of}{type(q).__name__}")


def packed(results: Mapping[str, Any], kind: type[MXFP8], scale_layout: str) -> Any:
    """The results of an op as its public function returns them: one alone, several as a tuple, values with scales.

    Args:
        results: By name, in order. Scales follow their values.
        kind: The container of the front end.
        scale_layout: The layout of the scales, if there are any.
    """
    parts: list[Any] = []
    for name, array in results.items():
        parts.append(kind(parts.pop(), array, scale_layout) if name.endswith("scales") else array)
    return parts[0] if len(parts) == 1 else tuple(parts)
