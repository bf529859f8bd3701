"""Tokens quantized once and written to the rows of their experts: what each row holds, found token by token."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np
import pytest
import torch
from compare import assert_same_bytes
from inputs import arguments
from specification import reference
from test_torch import arrays
from test_torch_out import poisoned

import m3ops_jax
import m3ops_torch
from m3ops.numerics.formats import FP8_FORMATS
from m3ops.numerics.scale_layouts import SCALE_LAYOUTS, arrange
from m3ops.testing.arrays import normal
from m3ops.testing.case import Case
from m3ops.testing.cases import CASES
from m3ops.tools.run import to_tensor

NAME = "moe_scatter_quantize"


def row_by_row(case: Case) -> list[np.ndarray]:
    """The results, from the bytes of mxfp8_quantize and a loop over tokens and slots."""
    x, slots, *count = case.make()
    op: Any = case.call
    tokens = len(x) if not count else min(max(int(count[0][0]), 0), len(x))
    leading = (op.rows or slots.size,) if op.num_experts is None else (op.num_experts, op.rows)
    total, fmt = int(np.prod(leading)), FP8_FORMATS[op.fp8_format]
    named: list[list[int]] = [[] for _ in range(total)]
    for token in range(tokens):
        for slot in slots[token]:
            if 0 <= slot < total:
                named[slot].append(token)
    values, scales = reference("mxfp8_quantize", x, scale_rule=op.scale_rule, fp8_format=op.fp8_format)
    of_rows = [np.zeros((total, values.shape[1]), np.uint8), np.zeros((total, scales.shape[1]), np.uint8)]
    for row, own in enumerate(named):
        for array, of_tokens, nan in zip(of_rows, (values.view(np.uint8), scales), (fmt.nan_code, 255), strict=True):
            if own:
                array[row] = of_tokens[own[0]] if len(own) == 1 else nan
    of_values, of_scales = (array.reshape(*leading, array.shape[1]) for array in of_rows)
    return [of_values.view(fmt.name), arrange(of_scales, op.scale_layout)]


@pytest.mark.parametrize("case", [c for c in CASES if c.op == NAME], ids=lambda case: case.name)
def test_each_row_is_that_of_its_token(case: Case) -> None:
    assert_same_bytes([*case.expected()], row_by_row(case))


@pytest.mark.parametrize("layout", SCALE_LAYOUTS)
def test_rows_sorted_by_expert(layout: str) -> None:
    """The slots of moe_sort: the bytes of the tokens gathered in that order and then quantized."""
    x, ids = to_tensor(normal((40, 96), "bfloat16")), torch.arange(160, dtype=torch.int32).reshape(40, 4) * 7 % 5
    order, slots, _ = m3ops_torch.moe_sort(ids, 5)
    got = m3ops_torch.moe_scatter_quantize(x, slots, scale_layout=layout)
    want = m3ops_torch.mxfp8_quantize(x[order // 4], scale_layout=layout)
    assert_same_bytes(arrays(got), arrays(want))


@pytest.mark.parametrize("layout", SCALE_LAYOUTS)
def test_rows_that_nobody_writes_stay_in_given_memory(layout: str) -> None:
    x, slots = to_tensor(normal((5, 96), "bfloat16")), torch.tensor([[0, 6], [-1, 70], [3, 9], [3, 39], [13, 14]])
    given = {"rows": 37, "num_experts": 2, "scale_layout": layout}
    zeros = m3ops_torch.moe_scatter_quantize(x, slots.int(), **given)
    out = m3ops_torch.MXFP8(*map(poisoned, zeros), scale_layout=layout)
    before = arrays(out)[0].copy()
    m3ops_torch.moe_scatter_quantize(x, slots.int(), **given, out=out)
    written = np.zeros(74, bool)
    written[[0, 6, 70, 3, 9, 39, 13, 14]] = True
    mask = written.reshape(2, 37, 1)
    assert np.array_equal(
        out.values.view(torch.uint8), np.where(mask, zeros.values.view(torch.uint8), before.view("u1"))
    )
    rest = np.broadcast_to(~mask, (2, 37, zeros.scales.shape[-1])).astype(np.uint8)
    assert np.array_equal(out.scales, np.where(arrange(rest, layout), 0xA5, zeros.scales))


def test_vmap() -> None:
    x, slots = (
        normal((3, 5, 64), "bfloat16"),
        np.stack([np.arange(10, dtype=np.int32).reshape(5, 2)[::d] for d in (1, -1, 1)]),
    )
    in_jax = jax.vmap(m3ops_jax.moe_scatter_quantize)(x, slots)
    in_torch = torch.func.vmap(lambda *a: tuple(m3ops_torch.moe_scatter_quantize(*a)))(to_tensor(x), to_tensor(slots))
    for i in range(3):
        want = [*reference(NAME, x[i], slots[i])]
        assert_same_bytes([np.asarray(array[i]) for array in in_jax], want)
        assert_same_bytes(arrays(tuple(array[i] for array in in_torch)), want)


def test_no_derivative() -> None:
    x, slots = arguments(NAME)
    with pytest.raises(TypeError, match=f"{NAME} has no derivative: rounding to MXFP8 is a step function"):
        m3ops_torch.moe_scatter_quantize(
            to_tensor(x).requires_grad_(), to_tensor(slots)
        ).values.float().sum().backward()
