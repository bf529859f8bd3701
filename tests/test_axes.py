"""The line that names an op's axes: what it says of arrays, and that every op's line is true of its specification."""

from __future__ import annotations

import numpy as np
import pytest

from m3ops.axes import Axes
from m3ops.ops import EVERY_OP
from m3ops.testing.cases import CASES

NORM = Axes.of("*r N!, *r? N! -> *r N!")
NORM_BACKWARD = Axes.of("*r N!, *r? N!, *r N! -> *r N!, *r?+ N!")
PRODUCT = Axes.of("*r (k 32!)+, *r k+, n (k 32!)+, n k+ -> *r n")
COMBINE_BACKWARD = Axes.of("R! N!, *r k!, *r N! -> R! N!, *r k!")
LOGITS_BACKWARD = Axes.of("*r H!, e! H!, *r e! -> *r H!, *r+ e! H!")
GROUPED = Axes.of("t! (k 32!)+, t! k+, e! n (k 32!)+, e! n k+, e! -> t! n")


def test_rows_pass_and_a_weight_may_lack_them() -> None:
    assert NORM.of_arrays([(4, 8, 64), (64,)]) == ([("r0", "r1", None), (None,)], [("r0", "r1", None)])
    assert NORM.of_arrays([(4, 8, 64), (1, 8, 64)])[0][1] == (None, "r1", None)
    assert NORM.of_arrays([(64,), (64,)]) == ([(None,), (None,)], [(None,)])


def test_a_sum_over_rows_has_the_rows_of_its_weight() -> None:
    inputs, results = NORM_BACKWARD.of_arrays([(4, 8, 64), (8, 64), (4, 8, 64)])
    assert results == [("r0", "r1", None), ("r1", None)]
    assert results[1] == inputs[1]
    assert NORM_BACKWARD.sums_rows
    assert not NORM.sums_rows


def test_a_sum_over_all_rows_lacks_them_and_may_be_divided() -> None:
    inputs, results = LOGITS_BACKWARD.of_arrays([(4, 8, 64), (16, 64), (4, 8, 16)])
    assert inputs == [("r0", "r1", None), (None, None), ("r0", "r1", None)]
    assert results == [("r0", "r1", None), (None, None)]
    assert LOGITS_BACKWARD.sums_rows
    assert [axes.joins_rows for axes in (LOGITS_BACKWARD, COMBINE_BACKWARD, NORM_BACKWARD)] == [True, True, False]


def test_what_lacks_rows_needs_all_of_them() -> None:
    inputs, results = COMBINE_BACKWARD.of_arrays([(24, 64), (3, 8, 2), (3, 8, 64)])
    assert inputs == [(None, None), (None, None, None), (None, None, None)]
    assert results == [(None, None), (None, None, None)]
    assert COMBINE_BACKWARD.gathers_rows
    assert not any(axes.gathers_rows for axes in (NORM, NORM_BACKWARD, LOGITS_BACKWARD, PRODUCT, GROUPED))


def test_a_product_divides_what_it_contracts_and_what_passes() -> None:
    inputs, results = PRODUCT.of_arrays([(4, 8, 64), (4, 8, 2), (16, 64), (16, 2)])
    assert inputs == [("r0", "r1", "k"), ("r0", "r1", "k"), ("n", "k"), ("n", "k")]
    assert results == [("r0", "r1", "n")]
    assert [axis.multiple for axis in PRODUCT.inputs[0].axes] == [32]


def test_a_grouped_product_keeps_rows_and_experts_whole() -> None:
    inputs, results = GROUPED.of_arrays([(64, 64), (64, 2), (8, 16, 64), (8, 16, 2), (8,)])
    assert inputs[2:] == [(None, "n", "k"), (None, "n", "k"), (None,)]
    assert results == [(None, "n")]


@pytest.mark.parametrize("name", EVERY_OP)
def test_the_line_of_an_op_fits_its_operands(name: str) -> None:
    """In every case: as many operands as the line has, axes of one name of one size, rows in every result."""
    cases = [case for case in CASES if case.op == name]
    assert cases
    for case in cases:
        operands = case.operands()
        operands.pop("num_rows", None)
        results = case.expected()
        axes = case.call.axes_of(operands)
        assert (len(axes.inputs), len(axes.results)) == (len(operands), len(results))
        names = axes.of_arrays([array.shape for array in operands.values()])
        sizes: dict[str, int] = {}
        for own, array in zip([*names[0], *names[1]], [*operands.values(), *results], strict=True):
            assert len(own) == array.ndim
            for factor, size in zip(own, array.shape, strict=True):
                if factor is not None and factor.startswith("r"):
                    assert sizes.setdefault(factor, size) == size


@pytest.mark.parametrize("name", EVERY_OP)
def test_rows_are_independent_as_the_line_says(name: str) -> None:
    """The second half of the rows alone gives the second half of the results, but where these lack rows or sum them."""
    for case in CASES:
        operands = case.operands()
        axes = case.call.axes_of(operands)
        of_rows = [array for array, own in zip(operands.values(), axes.inputs, strict=False) if own.rows]
        if case.op != name or "num_rows" in operands or not of_rows or len(first := of_rows[0]) < 2:
            continue
        if axes.sums_rows or axes.gathers_rows:
            continue
        if any(len(first.shape) - 1 < len(operand.axes) for operand in axes.inputs if operand.rows):
            continue  # no leading axis
        names, _ = axes.of_arrays([array.shape for array in operands.values()])
        half = {
            key: array[len(first) // 2 :] if own[0] == "r0" else array
            for (key, array), own in zip(operands.items(), names, strict=True)
        }
        for part, whole in zip(case.call.reference(half).values(), case.expected(), strict=True):
            np.testing.assert_array_equal(
                part.view(f"u{part.itemsize}"), whole[len(first) // 2 :].view(f"u{whole.itemsize}"), case.id
            )
