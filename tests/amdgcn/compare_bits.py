"""Equality of registers that may hold NaNs, whose payloads sources disagree about and no kernel's bytes depend on."""

import numpy as np

_BITS = {"f16": (np.uint16, 0x7C00), "bf16": (np.uint16, 0x7F80), "f32": (np.uint32, 0x7F800000)}
_TYPES = {"f16", "bf16", "f32", "f64", "fp8", "b16", "b32", "b64", "u16", "u32", "u64", "i16", "i32", "i64", "u8"}


def result_type(name: str) -> str:
    """Type of the result of a vector instruction: the first type of a conversion's name, the last one of any other."""
    types = [word for word in name.split("_") if word in _TYPES]
    if not types:
        return ""
    return types[0] if "_cvt_" in name else types[-1]


def same_bits(actual: np.ndarray, expected: np.ndarray, kind: str) -> np.ndarray:
    """Per 32-bit register. Where `kind` is a float, a NaN is like any other; 16-bit ones come in pairs."""
    if kind not in _BITS:
        return actual == expected
    dtype, infinity = _BITS[kind]
    halves = [np.ascontiguousarray(x)[..., None].view(dtype) for x in (actual, expected)]
    nans = [(half & dtype(np.iinfo(dtype).max >> 1)) > infinity for half in halves]
    return ((halves[0] == halves[1]) | (nans[0] & nans[1])).all(axis=-1)
