"""Cases of the norms' gradients: those of the norms with gradients of the results beside them, and what sums rows."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

import numpy as np

from m3ops.ops.gemma_rmsnorm.cases import NORMS, fused_inputs, norm_inputs
from m3ops.testing.arrays import SPECIALS, Inputs, gradients, normal, one, with_specials
from m3ops.testing.case import Case

Shape = tuple[int, ...]


def _with_gradients(make: Inputs) -> tuple[np.ndarray, ...]:
    """The inputs of a norm and gradients of its results, one fewer."""
    *rows, weight = make()
    return *rows, weight, *(gradients(like.shape, like.dtype.name, seed) for seed, like in enumerate(rows))


def _cases() -> Iterator[Case]:
    for shared in NORMS:
        if shared.gradient:
            yield Case(f"{shared.op}_backward", shared.name, partial(_with_gradients, shared.make), shared.given)
    for op, make in (("gemma_rmsnorm", norm_inputs), ("gemma_fused_add_rmsnorm", fused_inputs)):
        case = partial(Case, f"{op}_backward")
        rows, per_row = partial(_rows, make), partial(_weight_by_row, make)
        yield case("one row", rows(1, 160))
        yield case("two tiles a row", rows(2, 9000, dtype="bfloat16"))
        yield case("four rows a partial sum", rows(16, 1100))
        yield case("a row more than four each", rows(17, 1100, dtype="bfloat16"))
        yield case("a row more than whole tiles of 8", rows(129, 128))
        yield case("rows of three powers of two", rows(9, 3072, dtype="bfloat16"))
        yield case("partial sums added by halves", rows(530, 20, dtype="bfloat16"))
        yield case("partial sums summed twice", rows(8200, 20, dtype="bfloat16"))
        yield case("a weight for each head", per_row((20, 3, 64), (3, 64)))
        yield case("a weight for each head, of whole tiles", per_row((6, 3, 256), (3, 256), "bfloat16"))
        yield case("a weight for each batch and head, not token", per_row((2, 19, 3, 40), (2, 1, 3, 40), "float16"))
        yield case("a weight for each row", per_row((5, 2, 64), (5, 2, 64)))
        yield case("a weight for each head, no rows", per_row((0, 3, 64), (3, 64)))
        yield case("a weight for no row", per_row((0, 64), (0, 64)))
        yield case("NaN and infinite gradients", partial(_broken, rows(6, 96)))
        yield case("gradients of -0.0", partial(_negative_zeros, rows(3, 96)))
        yield case("one row whose products underflow to -0.0", partial(_underflow, rows(1, 1100)))
        yield case("gradients up to where products overflow", partial(_huge, rows(64, 96)))
        yield case("one row of gradients for all rows, with an infinity", partial(_expanded, rows(5, 96)))


Norm = Callable[[Inputs], tuple[np.ndarray, ...]]


def _rows(make: Norm, *shape: int, dtype: str = "float32") -> Inputs:
    return partial(_with_gradients, partial(make, one(normal, shape, dtype)))


def _weight_by_row(make: Norm, shape: Shape, weight: Shape, dtype: str = "float32") -> Inputs:
    """Weights with leading axes of their own."""

    def inputs() -> tuple[np.ndarray, ...]:
        *ours, _ = make(one(normal, shape, "float32"))
        return *ours, normal(weight, dtype, 0.5)

    return partial(_with_gradients, inputs)


def _broken(make: Inputs) -> tuple[np.ndarray, ...]:
    *inputs, grad = make()
    return *inputs, with_specials(grad, SPECIALS)


def _negative_zeros(make: Inputs) -> tuple[np.ndarray, ...]:
    *inputs, grad = make()
    return *inputs, np.full_like(grad, -0.0)


def _underflow(make: Inputs) -> tuple[np.ndarray, ...]:
    inputs = make()
    tiny = np.where(np.arange(inputs[0].shape[-1]) % 2, 1.0, 2.0**-80).astype(np.float32)
    return tuple(array * tiny if array.ndim > 1 else array for array in inputs)


def _huge(make: Inputs) -> tuple[np.ndarray, ...]:
    *inputs, grad = make()
    return *inputs, np.asarray(grad * np.exp2(2.0 * np.arange(len(grad))[:, None]), np.float32)


def _expanded(make: Inputs) -> tuple[np.ndarray, ...]:
    *inputs, grad = make()
    row = np.where(np.arange(grad.shape[-1]) == 7, np.inf, 1.0).astype(np.float32)
    return *inputs, np.broadcast_to(row, grad.shape)


CASES = tuple(_cases())
