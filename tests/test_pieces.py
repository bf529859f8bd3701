"""The specification over pieces of rows: the bytes of whole arrays, and no piece larger than it should be."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from compare import assert_same_bytes
from test_torch import arrays, every_op_that_counts, function, tensors
from test_torch_out import poisoned

from m3ops import pieces
from m3ops.numerics.scale_layouts import SCALE_LAYOUTS
from m3ops.ops import EVERY_OP
from m3ops.testing.arrays import normal
from m3ops.testing.cases import CASES
from m3ops.tools.run import flat


def rows_at_once(monkeypatch: pytest.MonkeyPatch, rows: int, first: Any) -> None:
    monkeypatch.setattr(pieces, "ELEMENTS", rows * first.shape[-1])


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("name", EVERY_OP)
def test_pieces_of_every_case(name: str, threads: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Row counts that are no multiple of a piece, views, weights with leading axes, tiled scales, counted rows."""
    monkeypatch.setattr(pieces, "RESULTS", 150)  # most products in the cases are larger than that
    for case in CASES:
        if case.op == name:
            operands = case.operands()
            rows_at_once(monkeypatch, 2, next(iter(operands.values())))
            with np.errstate(all="ignore"):
                whole = case.call.evaluate(operands)
            results = case.call.reference(operands, threads)
            assert list(results) == list(whole)
            assert_same_bytes([*results.values()], [*whole.values()])


class Recorded:
    """What the specification of an op was asked to compute."""

    def __init__(self, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
        self.rows: list[int] = []
        self.last_rows: list[int] = []  # of the last operand: the columns of a product
        self.threads: set[int] = set()
        compute: Callable[..., Any] = EVERY_OP[name].compute

        def recording(op: Any, **inputs: Any) -> Any:
            shapes = [array.shape for array in inputs.values()]
            self.rows.append(int(np.prod(shapes[0][:-1])))
            self.last_rows.append(int(np.prod(shapes[-1][:-1])))
            self.threads.add(threading.get_ident())
            return compute(op, **inputs)

        monkeypatch.setattr(EVERY_OP[name], "compute", recording)


@pytest.mark.parametrize("layout", SCALE_LAYOUTS)
def test_pieces_are_small(layout: str, monkeypatch: pytest.MonkeyPatch) -> None:
    x = normal((3, 5, 64), "bfloat16")
    rows_at_once(monkeypatch, 4, x)
    recorded = Recorded("mxfp8_quantize", monkeypatch)
    q = EVERY_OP["mxfp8_quantize"].of(scale_layout=layout).reference({"x": x})
    assert sorted(recorded.rows) == [3, 4, 4, 4]
    recorded = Recorded("mxfp8_dequantize", monkeypatch)
    EVERY_OP["mxfp8_dequantize"].of(scale_layout=layout).reference(q)
    assert sorted(recorded.rows) == [3, 4, 4, 4]


@pytest.mark.parametrize("x_layout", SCALE_LAYOUTS)
@pytest.mark.parametrize("w_layout", SCALE_LAYOUTS)
def test_pieces_of_a_product_are_small(x_layout: str, w_layout: str, monkeypatch: pytest.MonkeyPatch) -> None:
    quantize = EVERY_OP["mxfp8_quantize"]
    x, w = (normal(shape, "bfloat16") for shape in ((3, 5, 64), (7, 64)))
    x_values, x_scales = quantize.of(scale_layout=x_layout).compute(x=x).values()
    w_values, w_scales = quantize.of(scale_layout=w_layout).compute(x=w).values()
    inputs = {"x_values": x_values, "x_scales": x_scales, "w_values": w_values, "w_scales": w_scales}
    op = EVERY_OP["mxfp8_matmul"].of(x_layout=x_layout, w_layout=w_layout)
    whole = op.compute(**inputs)
    monkeypatch.setattr(pieces, "RESULTS", 16)
    recorded = Recorded("mxfp8_matmul", monkeypatch)
    assert_same_bytes([*op.reference(inputs).values()], [*whole.values()])
    assert recorded.rows == [4] * 6 + [3] * 2
    assert recorded.last_rows == [4, 3] * 4


def test_a_sum_over_rows_is_not_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    x, weight = normal((9, 64), "bfloat16"), normal((64,), "bfloat16")
    rows_at_once(monkeypatch, 4, x)
    recorded = Recorded("gemma_rmsnorm_backward", monkeypatch)
    EVERY_OP["gemma_rmsnorm_backward"].of().reference({"x": x, "weight": weight, "grad": x})
    assert recorded.rows == [9]


@pytest.mark.parametrize("threads", [1, 2])
def test_as_many_threads_as_pytorch_has(threads: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    monkeypatch.setattr(pieces, "ELEMENTS", 6144)
    recorded = Recorded("swiglu_oai", monkeypatch)
    function("swiglu_oai")(torch.zeros(64, 6144, dtype=torch.bfloat16))
    assert len(recorded.rows) == 64
    assert len(recorded.threads) == threads


def test_threads_do_not_warn(monkeypatch: pytest.MonkeyPatch) -> None:
    """NumPy's setting of what to do about overflow is one of each thread; here a warning is an error."""
    x = np.full((4, 64), np.inf, np.float32)
    rows_at_once(monkeypatch, 1, x)
    with np.errstate(all="raise"):
        EVERY_OP["gemma_rmsnorm"].of().reference({"x": x, "weight": x[0]}, threads=2)


@every_op_that_counts
def test_given_tensors_and_counted_rows(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    op, inputs, count = function(name), tensors(name, "cpu"), torch.tensor([13], dtype=torch.int32)
    wanted = tuple(map(poisoned, flat(op(*inputs))))
    op(*inputs, num_rows=count, out=wanted)
    out = tuple(map(poisoned, wanted))
    rows_at_once(monkeypatch, 5, inputs[0])
    op(*inputs, num_rows=count, out=out)
    assert_same_bytes(arrays(out), arrays(wanted))
