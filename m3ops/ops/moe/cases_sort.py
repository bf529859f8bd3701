"""Cases of moe_sort: few slots, which are compared with each other, and more than 2048, which are counted first."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import numpy as np

from m3ops.testing.arrays import Inputs, random_bits
from m3ops.testing.case import Case

case = partial(Case, "moe_sort")

Shape = tuple[int, ...]


def some_ids(shape: Shape, low: int, high: int) -> np.ndarray:
    """Random ids, ``high`` not among them."""
    bits = random_bits(shape, f"ids {shape}") % np.uint64(high - low)
    return bits.astype(np.int32) + np.int32(low)


def _given(ids: np.ndarray) -> Inputs:
    """Inputs that are this array."""
    return lambda: (ids,)


def _cases() -> Iterator[tuple[str, np.ndarray, int]]:
    yield "experts that several tokens have", some_ids((37, 4), 0, 16), 16
    yield "experts without a slot", some_ids((9, 4), 3, 7), 128
    yield "one expert", np.zeros((5, 2), np.int32), 1
    yield "all tokens to one expert", np.full((40, 4), 5, np.int32), 8
    yield "one token", np.array([[3, 0, 2, 1]], np.int32), 4
    yield "one slot", np.array([2], np.int32), 3
    yield "no tokens", np.zeros((0, 4), np.int32), 8
    yield "no slots", np.zeros((3, 0), np.int32), 8
    yield "experts of other devices", some_ids((23, 4), -3, 9), 4
    yield "none of these experts", np.array([[-1, 4, -(2**31), 2**31 - 1]], np.int32), 4
    yield "the last of 4096 experts", some_ids((7, 4), 4090, 4098), 4096
    yield "one axis", some_ids((11,), 0, 3), 3
    yield "three axes", some_ids((2, 3, 4), 0, 6), 6
    yield "1024 experts, top 16", some_ids((17, 16), 0, 1024), 1024
    yield "M3, 16 tokens", some_ids((16, 4), 0, 128), 128
    yield "M3, 256 tokens", some_ids((256, 4), 0, 128), 128
    yield "a transposed view", some_ids((4, 12), 0, 6).T, 6
    yield "every other column", some_ids((5, 8), 0, 6)[:, ::2], 6
    yield "one token repeated", np.broadcast_to(some_ids((1, 4), 0, 6), (5, 4)), 6
    yield "2048 slots", some_ids((512, 4), -1, 17), 16
    yield "2049 slots", some_ids((2049,), -1, 9), 8
    yield "2400 slots of one expert", np.full((600, 4), 2, np.int32), 5
    yield "2400 slots of none", np.full((600, 4), -1, np.int32), 3
    yield "2560 slots, 1000 experts", some_ids((640, 4), -9, 1009), 1000
    yield "2560 slots, transposed", some_ids((4, 640), -1, 7).T, 6
    yield "2100 slots, 4096 experts", some_ids((525, 4), -1, 4097), 4096
    yield "33000 slots", some_ids((8250, 4), 0, 128), 128


def _tokens() -> Iterator[Case]:
    """The same with the tokens of the slots in their order."""
    for name, ids, num_experts in _cases():
        if name in ("experts of other devices", "no slots", "one axis", "every other column", "2400 slots of none"):
            yield case(f"{name}, tokens", _given(ids), {"num_experts": num_experts, "tokens": True})


CASES = (
    *(case(name, _given(ids), {"num_experts": num_experts}) for name, ids, num_experts in _cases()),
    *_tokens(),
)
