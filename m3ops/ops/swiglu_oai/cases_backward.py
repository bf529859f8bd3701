"""Cases of the gradient of swiglu_oai: those of the op with gradients of the activation beside them, and more."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

import numpy as np

from m3ops.ops.swiglu_oai.cases import ACTIVATIONS
from m3ops.testing.arrays import SPECIALS, Inputs, bit_patterns, gradients, normal, with_specials
from m3ops.testing.case import Case

Array = Callable[[], np.ndarray]
case = partial(Case, "swiglu_oai_backward")


def _with_gradients(make: Inputs) -> tuple[np.ndarray, ...]:
    gate_up, *up = make()
    size = gate_up.shape[-1] if up else gate_up.shape[-1] // 2
    return gate_up, gradients((*gate_up.shape[:-1], size), gate_up.dtype.name), *up


def _cases() -> Iterator[Case]:
    for shared in ACTIVATIONS:
        if shared.gradient:
            yield case(shared.name, partial(_with_gradients, shared.make), shared.given)
    gate_up = partial(normal, (4, 128), "bfloat16", 3.0)
    for dtype in ("float16", "float32"):
        yield case(f"bfloat16 from {dtype} gradients", partial(_pair, gate_up, partial(gradients, (4, 64), dtype)))
    normal_bits = partial(_pair, partial(normal, (8, 128), "float32", 3.0), partial(bit_patterns, (8, 64), "float32"))
    yield case("random bits as gradients", normal_bits)
    specials = partial(with_specials, gradients((4, 64), "float32"), SPECIALS)
    yield case("NaN and infinite gradients of what is cut off", partial(_pair, _all_cut, specials))
    ones = partial(np.broadcast_to, np.ones((), "bfloat16"), (4, 64))
    yield case("one gradient for all elements", partial(_pair, gate_up, ones))
    yield case("gradients in every other column", partial(_pair, gate_up, _every_other_column))


def _pair(gate_up: Array, grad: Array) -> tuple[np.ndarray, ...]:
    return gate_up(), grad()


def _all_cut() -> np.ndarray:
    return np.asarray(8.0 + np.abs(normal((4, 128), "float32")))


def _every_other_column() -> np.ndarray:
    return normal((4, 64, 2), "bfloat16")[..., 0]


CASES = tuple(_cases())
