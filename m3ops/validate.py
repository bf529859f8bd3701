"""Checks shared by the ops' specifications. Every message names the argument, what came and what was wanted."""

from __future__ import annotations

import math
import numbers
from collections.abc import Collection
from typing import Any

from m3ops.array import ArraySpec, contiguous_strides
from m3ops.numerics.constants import float32
from m3ops.numerics.formats import ACTIVATION_DTYPES, BLOCK


def array(name: str, spec: ArraySpec, dtypes: Collection[str] = ACTIVATION_DTYPES) -> None:
    """An array of one of ``dtypes`` with at least one axis."""
    dtype(name, spec, dtypes)
    if not spec.shape:
        raise ValueError(f"{name} must have at least one axis, got shape ()")


def dtype(name: str, spec: ArraySpec, dtypes: Collection[str]) -> None:
    """An array of one of ``dtypes``."""
    if spec.dtype not in dtypes:
        raise TypeError(f"{name} must have dtype {_choice(dtypes)}, got {spec.dtype}")


def axes(name: str, spec: ArraySpec, names: str) -> None:
    """An array with the axes of these names, such as ``"N, K"``."""
    count = names.count(",") + 1
    if len(spec.shape) != count:
        words = {1: "one axis", 2: "two axes", 3: "three axes"}[count]
        raise ValueError(f"{name} must have {words}, [{names}], got shape {spec.shape}")


def indices(name: str, spec: ArraySpec, names: str) -> None:
    """A contiguous int32 array with such axes."""
    dtype(name, spec, ["int32"])
    axes(name, spec, names)
    contiguous(name, spec)


def same(name: str, spec: ArraySpec, other_name: str, other: ArraySpec) -> None:
    """Two arrays of one shape and dtype."""
    if spec.dtype != other.dtype:
        raise TypeError(f"{name} must have the dtype of {other_name}, {other.dtype}, got {spec.dtype}")
    same_shape(name, spec, other_name, other)


def same_shape(name: str, spec: ArraySpec, other_name: str, other: ArraySpec) -> None:
    """Two arrays of one shape."""
    if spec.shape != other.shape:
        raise ValueError(f"{name} must have the shape of {other_name}, {other.shape}, got {spec.shape}")


def contiguous(name: str, spec: ArraySpec) -> None:
    """An array whose elements follow each other in memory."""
    wanted = contiguous_strides(spec.shape)
    apart = any(size > 1 and a != b for size, a, b in zip(spec.shape, spec.strides, wanted, strict=True))
    if apart and 0 not in spec.shape:
        raise ValueError(f"{name} must be contiguous, with strides {wanted}, got {spec.strides}")


def output(name: str, spec: ArraySpec, wanted: ArraySpec, *, contiguous_only: bool) -> None:
    """Memory for a result: of its shape and dtype, its rows contiguous and none of them on another."""
    if spec.dtype != wanted.dtype:
        raise TypeError(f"{name} must have dtype {wanted.dtype}, got {spec.dtype}")
    if spec.shape != wanted.shape:
        raise ValueError(f"{name} must have shape {wanted.shape}, got {spec.shape}")
    if contiguous_only:
        contiguous(name, spec)
    end = 1  # elements that the axes seen so far take
    for stride, size in sorted(
        (stride, size) for stride, size in zip(spec.strides, spec.shape, strict=True) if size > 1
    ):
        if stride < end:
            raise ValueError(f"{name} must not overlap itself, got strides {spec.strides}")
        end = stride * size
    if spec.shape[-1] > 1 and spec.strides[-1] != 1:
        raise ValueError(f"{name} must have contiguous rows, got strides {spec.strides}")


def blocks(name: str, size: int) -> None:
    """A last axis that whole MXFP8 blocks fill."""
    if size % BLOCK:
        raise ValueError(f"{name} must be a multiple of {BLOCK} (the MXFP8 block), got {size}")


def number(name: str, value: Any, *, low: float = -math.inf, above: float = -math.inf, high: float = math.inf) -> float:
    """A finite Python or NumPy number in [low, high] and above ``above``, also after rounding to fp32.

    Returns:
        It as a Python float, -0.0 as 0.0.
    """
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        raise TypeError(f"{name} must be a Python number, known before the kernel is compiled, got {_kind(value)}")
    try:
        number = float(value)
    except OverflowError:  # an integer past the largest float
        number = math.inf
    rounded = float32(number)
    if not (math.isfinite(rounded) and low <= rounded <= high and rounded > above):
        bounds = [
            f">= {low:g}" * (low > -math.inf),
            f"> {above:g}" * (above > -math.inf),
            f"<= {high:g}" * (high < math.inf),
        ]
        wanted = " and ".join(["a finite fp32 number", *filter(None, bounds)])
        raise ValueError(f"{name} must be {wanted}, got {value!r}")
    return number + 0.0


def count(name: str, value: Any, *, low: int = 1) -> int:
    """A Python or NumPy integer of at least ``low``, as a Python int."""
    if isinstance(value, bool) or not isinstance(value, numbers.Integral):
        raise TypeError(f"{name} must be a Python integer, known before the kernel is compiled, got {_kind(value)}")
    if value < low:
        raise ValueError(f"{name} must be at least {low}, got {value}")
    return int(value)


def flag(name: str, value: Any) -> None:
    if not isinstance(value, bool):
        raise TypeError(f"{name} must be True or False, got {_kind(value)}")


def choice(name: str, value: Any, choices: Collection[str]) -> None:
    if not isinstance(value, str):
        raise TypeError(f"{name} must be a string, got {_kind(value)}")
    if value not in choices:
        raise ValueError(f"{name} must be {_choice([repr(c) for c in choices])}, got {value!r}")


def output_dtype(name: str, value: str, dtypes: Collection[str] = ACTIVATION_DTYPES) -> None:
    if value not in dtypes:
        raise TypeError(f"{name} must be {_choice(dtypes)}, got {value}")


def _choice(names: Collection[str]) -> str:
    *first, last = names
    return f"{', '.join(first)} or {last}" if first else last


def _kind(value: Any) -> str:
    """The type's name; one name for every framework's arrays and tracers."""
    return "an array" if hasattr(value, "shape") and hasattr(value, "dtype") else type(value).__name__


def broadcasts(leading: tuple[int, ...], onto: tuple[int, ...]) -> bool:
    """Whether leading axes broadcast against others; unlike NumPy's function it leaves symbolic sizes symbols."""
    own = onto[len(onto) - len(leading) :]
    return len(leading) <= len(onto) and all(size in (1, of_x) for size, of_x in zip(leading, own, strict=True))
