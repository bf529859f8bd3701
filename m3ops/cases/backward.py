"""Cases of the gradients: those of the ops themselves with gradients of the results beside them, and what sums rows."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

import numpy as np

from m3ops.cases import norms, swiglu_oai
from m3ops.cases.case import SPECIALS, Case, bit_patterns, normal, views, with_specials
from m3ops.numerics.formats import ACTIVATION_DTYPES

Inputs = Callable[[], tuple[np.ndarray, ...]]


_SHOWN_BY_OTHERS = {
    *(f"{a} to {b}" for a in ACTIVATION_DTYPES for b in ACTIVATION_DTYPES),
    *(f"random bits {dtype}, no limit" for dtype in ("bfloat16", "float16")),
    *(f"unusual parameters {dtype}" for dtype in ("float16", "float32")),
    *(f"subnormals {dtype}" for dtype in ACTIVATION_DTYPES),
    *(f"subnormals {dtype}{params}" for dtype in ("bfloat16", "float16") for params in (", beta 0", ", eps 0")),
    *(name for name in views("bfloat16", 96) if name not in ("transposed leading axes", "every other column")),
    *("five axes", "an empty last axis", "negative zeros", "M3 dense, I = 12288", "several tiles a row, N = 20000"),
    *("tensor parallel slice, I = 384", "tensor parallel slice, I = 1536", "I = 1", "a subnormal eps", "zeros"),
    *("2 groups of nothing", "M3 dense in 8 groups", "I = 5 in 5 groups"),
    *(f"{name}, 2 groups" for name in views("bfloat16", 128)),
    *("a weight for each head, fp32", "a weight for each batch, fp16", "rows and columns that divide nothing"),
}
"""Cases of the ops that say nothing more about their gradients."""

_INTERLEAVED = {
    *(f"interleaved, random bits {dtype}" for dtype in ACTIVATION_DTYPES),
    *("interleaved, one row", "interleaved, rows and columns that divide nothing", "interleaved, 2 groups"),
    *("interleaved, M3 MoE, I = 3072", "interleaved, transposed leading axes", "interleaved, I = 3"),
}


def _with_grads(make: Inputs, op: str) -> tuple[np.ndarray, ...]:
    """The inputs of an op and gradients of its results."""
    inputs = make()
    rows = inputs[0]
    if op == "swiglu_oai":
        return *inputs, _grad((*rows.shape[:-1], rows.shape[-1] // 2), rows.dtype.name)
    return *inputs, *(_grad(rows.shape, rows.dtype.name, seed) for seed in range(len(inputs) - 1))


def _grad(shape: tuple[int, ...], dtype: str, seed: int = 0) -> np.ndarray:
    """Gradients of several magnitudes, the same for every shape with this last axis and dtype."""
    rows = normal((seed + 3, *shape), dtype, 0.5)[seed + 2]
    scales = np.exp2(np.arange(int(np.prod(shape[:-1]))) % 5 - 2.0).reshape(*shape[:-1], 1)
    return np.asarray(rows.astype(np.float64) * scales, np.float64).astype(dtype)


def _cases() -> Iterator[Case]:
    for case in (*swiglu_oai.CASES, *norms.CASES):
        if case.name in _SHOWN_BY_OTHERS or ("interleaved" in case.name and case.name not in _INTERLEAVED):
            continue
        given = {name: value for name, value in case.given.items() if name != "out_dtype"}
        yield Case(f"{case.op}_backward", case.name, partial(_with_grads, case.make, case.op), given)
    yield from _swiglu()
    for op in ("gemma_rmsnorm", "gemma_fused_add_rmsnorm"):
        yield from _norm(op)


def _swiglu() -> Iterator[Case]:
    op, gate_up = "swiglu_oai_backward", partial(normal, (4, 128), "bfloat16", 3.0)
    for dtype in ("float16", "float32"):
        yield Case(op, f"bfloat16 from {dtype} gradients", lambda d=dtype: (gate_up(), _grad((4, 64), d)))  # type: ignore[misc]
    yield Case(
        op, "random bits as gradients", lambda: (normal((8, 128), "float32", 3.0), bit_patterns((8, 64), "float32"))
    )
    specials = lambda: (_all_cut((4, 128)), with_specials(_grad((4, 64), "float32"), SPECIALS))  # noqa: E731
    yield Case(op, "NaN and infinite gradients of what is cut off", specials)
    broadcast = lambda: (gate_up(), np.broadcast_to(np.ones((), "bfloat16"), (4, 64)))  # noqa: E731
    yield Case(op, "one gradient for all elements", broadcast)
    column_slice = lambda: (gate_up(), normal((4, 64, 2), "bfloat16")[..., 0])  # noqa: E731
    yield Case(op, "gradients in every other column", column_slice)


def _all_cut(shape: tuple[int, ...]) -> np.ndarray:
    return np.asarray(8.0 + np.abs(normal(shape, "float32")))


def _norm(op: str) -> Iterator[Case]:
    make = norms.norm_inputs if op == "gemma_rmsnorm" else norms.fused_inputs
    name = f"{op}_backward"

    def rows(*shape: int, dtype: str = "float32") -> Inputs:
        return lambda: _with_grads(lambda: make(partial(normal, shape, dtype)), op)

    def per_row(shape: tuple[int, ...], weight: tuple[int, ...], dtype: str = "float32") -> Inputs:
        def inputs() -> tuple[np.ndarray, ...]:
            *ours, _ = make(partial(normal, shape, "float32"))
            return _with_grads(lambda: (*ours, normal(weight, dtype, 0.5)), op)

        return inputs

    yield Case(name, "one row", rows(1, 160))
    yield Case(name, "two tiles a row", rows(2, 9000, dtype="bfloat16"))
    yield Case(name, "rows of one partial sum", rows(16, 1100))
    yield Case(name, "a row more than one partial sum", rows(17, 1100, dtype="bfloat16"))
    yield Case(name, "a row more than one block of 8 lanes", rows(129, 128))
    yield Case(name, "partial sums summed twice", rows(530, 20, dtype="bfloat16"))
    yield Case(name, "a weight for each head", per_row((20, 3, 64), (3, 64)))
    yield Case(name, "a weight for each head, of whole tiles", per_row((6, 3, 256), (3, 256), "bfloat16"))
    yield Case(name, "a weight for each batch and head, not token", per_row((2, 19, 3, 40), (2, 1, 3, 40), "float16"))
    yield Case(name, "a weight for each row", per_row((5, 2, 64), (5, 2, 64)))
    yield Case(name, "a weight for each head, no rows", per_row((0, 3, 64), (3, 64)))
    yield Case(name, "a weight for no row", per_row((0, 64), (0, 64)))

    def broken() -> tuple[np.ndarray, ...]:
        *inputs, grad = rows(6, 96)()
        return *inputs, with_specials(grad, SPECIALS)

    yield Case(name, "NaN and infinite gradients", broken)

    def zeros() -> tuple[np.ndarray, ...]:
        *inputs, grad = rows(3, 96)()
        return *inputs, np.full_like(grad, -0.0)

    yield Case(name, "gradients of -0.0", zeros)

    def underflow() -> tuple[np.ndarray, ...]:
        tiny = np.where(np.arange(1100) % 2, 1.0, 2.0**-80).astype(np.float32)
        return tuple(a * tiny if a.ndim > 1 else a for a in rows(1, 1100)())

    yield Case(name, "one row whose products underflow to -0.0", underflow)

    def huge() -> tuple[np.ndarray, ...]:
        *inputs, grad = rows(64, 96)()
        return *inputs, np.asarray(grad * np.exp2(2.0 * np.arange(64)[:, None]), np.float32)

    yield Case(name, "gradients up to where products overflow", huge)

    def expanded() -> tuple[np.ndarray, ...]:
        *inputs, grad = rows(5, 96)()
        return *inputs, np.broadcast_to(np.where(np.arange(96) == 7, np.inf, 1.0).astype(np.float32), grad.shape)

    yield Case(name, "one row of gradients for all rows, with an infinity", expanded)


CASES = tuple(_cases())
