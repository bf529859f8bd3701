"""torch.compile, torch.export and AOTInductor: whole graphs, any row count, the bytes of eager calls."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from subprocess import PIPE, STDOUT
from typing import Any

import numpy as np
import pytest
import torch
from compare import assert_same_bytes
from inputs import OPS_OF_ROWS, arguments, call_of
from test_torch import arrays, every_op, every_op_of_rows, function, tensors
from torch.utils import _pytree as pytree

import m3ops_torch
from m3ops.ops import OPS
from m3ops.tools.run import flat
from m3ops_torch.nn import SwigluOAI

ROWS = torch.export.Dim("rows", min=2, max=4096)


def of_rows(operands: list[torch.Tensor], num_rows: int) -> list[torch.Tensor]:
    """The operands with another leading size."""
    return [t.view(t.shape)[torch.arange(num_rows) % len(t)] if t.ndim == 3 else t for t in operands]


class Graphs:
    """A backend that keeps and runs the graphs that Dynamo hands it."""

    def __init__(self) -> None:
        self.graphs: list[torch.fx.GraphModule] = []

    def __call__(self, graph: torch.fx.GraphModule, _: Any) -> Callable[..., Any]:
        self.graphs.append(graph)
        return graph.forward


@every_op
def test_compile_without_graph_break(name: str, device: str) -> None:
    torch._dynamo.reset()  # else the ops, one after another through one function, reach its limit of recompilations
    op = function(name)
    compiled = torch.compile(op, fullgraph=True)
    assert_same_bytes(arrays(compiled(*tensors(name, device))), arrays(op(*tensors(name, device))))


@every_op_of_rows
@pytest.mark.parametrize("dynamic", [True, None], ids=["dynamic", "automatic"])
def test_no_recompilation_for_other_row_counts(name: str, dynamic: bool | None, device: str) -> None:
    """Left to itself Dynamo takes the first row count for a constant, and the second call tells it better."""
    torch._dynamo.reset()
    op, backend = function(name), Graphs()
    compiled = torch.compile(op, fullgraph=True, dynamic=dynamic, backend=backend)
    for num_rows in (5, 4, 17, 64):  # first as many as no other axis has, which Dynamo would take for the same
        operands = of_rows(tensors(name, device), num_rows)
        assert_same_bytes(arrays(compiled(*operands)), arrays(op(*operands)))
    assert len(backend.graphs) == (1 if dynamic else 2)


NUM_OPERANDS = {name: len(arguments(name)) for name in OPS}
"""Counted here: Dynamo would take the arrays for a part of the program."""


class Ops(torch.nn.Module):
    """Every op."""

    def forward(self, *operands: torch.Tensor) -> list[Any]:
        results, used = [], 0
        for name in OPS:
            own = operands[used : used + NUM_OPERANDS[name]]
            used += len(own)
            results.append(function(name)(*own))
        return results


def operands_of_all(num_rows: int, device: str) -> list[torch.Tensor]:
    """Those of ops without rows stay as they are."""
    each = ((name, tensors(name, device)) for name in OPS)
    return [t for name, own in each for t in (of_rows(own, num_rows) if name in OPS_OF_ROWS else own)]


def test_among_kernels_of_inductor(device: str) -> None:
    """Inductor makes a kernel of the negation, which rounds nothing."""

    def negated(*operands: torch.Tensor) -> list[Any]:
        return Ops()(-operands[0], *operands[1:])

    torch._dynamo.reset()
    compiled = torch.compile(negated, fullgraph=True, dynamic=True)
    for num_rows in (11, 6, 33):  # first as many as no other axis has, which Dynamo would take for the same
        operands = operands_of_all(num_rows, device)
        with torch._dynamo.config.patch(error_on_recompile=num_rows != 11):
            got = compiled(*operands)
        assert_same_bytes(arrays(got), arrays(negated(*operands)))


LOADED_ELSEWHERE = """
import sys, torch
path, operands, results = sys.argv[1:]
try:
    torch._inductor.aoti_load_package(path)(*torch.load(operands))
except RuntimeError as error:
    assert "m3ops" in str(error), error
else:
    raise AssertionError("it ran without the operators")
import m3ops_torch
torch.save(torch.utils._pytree.tree_leaves(torch._inductor.aoti_load_package(path)(*torch.load(operands))), results)
"""


# A package of `x.sin() + 1` ends the process too, without m3ops; with any other torch this runs.
DIES = pytest.mark.xfail(
    torch.__version__.startswith("2.11."),
    run=False,
    reason="aoti_load_package of torch 2.11.0 ends the process on CUDA (seen on an H100 and an H200)",
)


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=[pytest.mark.gpu, DIES])], indirect=True)
def test_a_package_of_aotinductor(device: str, tmp_path: Path) -> None:
    """It calls the operators through the dispatcher: a process that loads it has to import m3ops_torch.

    Most of this test's time the C++ compiler takes for PyTorch's headers.
    """
    operands, others = operands_of_all(4, device), operands_of_all(9, device)
    axes = (tuple({0: ROWS} if t.shape != u.shape else None for t, u in zip(operands, others, strict=True)),)
    exported = torch.export.export(Ops(), tuple(operands), dynamic_shapes=axes)
    package = torch._inductor.aoti_compile_and_package(exported, package_path=str(tmp_path / "ops.pt2"))
    loaded = torch._inductor.aoti_load_package(package)
    for num_rows in (4, 9):
        operands = operands_of_all(num_rows, device)
        got, want = loaded(*operands), Ops()(*operands)
        assert pytree.tree_structure(got) == pytree.tree_structure(want)
        assert_same_bytes(arrays(got), arrays(want))
    torch.save(operands, tmp_path / "operands")
    command = [sys.executable, "-c", LOADED_ELSEWHERE, package, tmp_path / "operands", tmp_path / "results"]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(command, env=environment, stdout=PIPE, stderr=STDOUT, text=True, check=False)
    assert done.returncode == 0, done.stdout
    assert_same_bytes(arrays(torch.load(tmp_path / "results")), arrays(want))


def test_a_wrong_call_is_an_error_of_the_trace() -> None:
    compiled = torch.compile(lambda x: m3ops_torch.swiglu_oai(x, alpha=-1.0), fullgraph=True, backend="eager")
    with pytest.raises(Exception, match=r"alpha must be a finite fp32 number and >= .*, got -1.0"):
        compiled(torch.zeros(2, 64))


def test_parameters_of_the_caller_are_constants_of_the_graph() -> None:
    torch._dynamo.reset()
    compiled = torch.compile(lambda x, alpha: m3ops_torch.swiglu_oai(x, alpha=alpha), fullgraph=True, backend="eager")
    x = torch.randn(3, 64)
    for alpha in (1.5, 1.25, 2):
        assert_same_bytes(arrays(compiled(x, alpha)), arrays(m3ops_torch.swiglu_oai(x, alpha=alpha)))


@every_op_of_rows
@pytest.mark.parametrize("dynamic", [False, True], ids=["static", "dynamic"])
def test_export_save_and_load(name: str, dynamic: bool, device: str, tmp_path: Path) -> None:
    op = function(name)

    class Model(torch.nn.Module):
        def forward(self, *operands: torch.Tensor) -> Any:
            return op(*operands)

    operands = tensors(name, device)
    axes = (tuple({0: ROWS} if t.ndim == 3 else None for t in operands),) if dynamic else None
    torch.export.save(torch.export.export(Model(), tuple(operands), dynamic_shapes=axes), tmp_path / "op.pt2")
    loaded = torch.export.load(tmp_path / "op.pt2").module()
    for num_rows in (4, 7) if dynamic else (4,):
        operands = of_rows(tensors(name, device), num_rows)
        got, want = loaded(*operands), op(*operands)
        assert pytree.tree_structure(got) == pytree.tree_structure(want)  # MXFP8 is still MXFP8
        assert_same_bytes(arrays(got), arrays(want))


def test_export_of_num_rows_and_out(device: str) -> None:
    class Model(torch.nn.Module):
        def forward(self, x: torch.Tensor, number: torch.Tensor, *out: torch.Tensor) -> Any:
            return m3ops_torch.mxfp8_quantize(x, num_rows=number, out=out or None)

    x, number = torch.randn(9, 64, device=device), torch.tensor([5], dtype=torch.int32, device=device)
    fresh = m3ops_torch.mxfp8_quantize(x, num_rows=number)
    for given in ((), tuple(torch.full_like(t.view(torch.uint8), 7).view(t.dtype) for t in fresh)):
        axes = ({0: ROWS}, None, *([({0: ROWS},) * len(given)] if given else []))
        operands = [t[:4].clone() if len(t) > 1 else t for t in (x, number, *given)]
        exported = torch.export.export(Model(), tuple(operands), dynamic_shapes=axes).module()
        want = Model()(x, number, *(t.clone() for t in given))
        assert_same_bytes(arrays(exported(x, number, *given)), arrays(want))


# --- What requires a gradient -----------------------------------------------------------------------------------------


WITHOUT = [n for n in OPS if n != "moe_sort" and not call_of(n).derivative and not OPS[n].quantized]
"""Ops of floats without a derivative."""


@pytest.mark.parametrize("backend", ["eager", "aot_eager", "inductor"])
@pytest.mark.parametrize("name", WITHOUT)
def test_an_op_without_a_derivative_compiles(name: str, backend: str, device: str) -> None:
    """Nobody has asked for one. Who does hears it, and how to go without."""
    torch._dynamo.reset()
    operands = [t.requires_grad_(t.is_floating_point()) for t in tensors(name, device)]
    results = flat(torch.compile(function(name), fullgraph=True, backend=backend)(*operands))
    assert_same_bytes(
        arrays(tuple(t.detach() for t in results)), arrays(function(name)(*(t.detach() for t in operands)))
    )
    with pytest.raises((TypeError, NotImplementedError), match=f"{name} has no derivative.*torch"):
        sum(t.float().sum() for t in results if t.requires_grad).backward()


def test_a_count_compiles_where_a_gradient_is_required(device: str) -> None:
    x, number = torch.randn(4, 64, device=device, requires_grad=True), torch.ones(1, dtype=torch.int32, device=device)
    result = torch.compile(m3ops_torch.swiglu_oai, fullgraph=True, backend="aot_eager")(x, num_rows=number)
    with pytest.raises(NotImplementedError, match="swiglu_oai has no derivative with num_rows"):
        result.sum().backward()


def test_a_module_that_quantizes_compiles() -> None:
    """A parameter, and no thought of a gradient."""
    weight = torch.nn.Parameter(torch.zeros(64))
    compiled = torch.compile(lambda x: m3ops_torch.gemma_rmsnorm_quantize(x, weight), fullgraph=True)
    x = torch.randn(4, 64)
    with torch.no_grad():
        want = m3ops_torch.gemma_rmsnorm_quantize(x, weight)
    assert_same_bytes(arrays(tuple(t.detach() for t in compiled(x))), arrays(want))


NUMBER = np.float32(1.5)


def test_numbers_of_numpy_are_told_apart() -> None:
    """``torch.compile`` makes arrays of them, whose values it does not know."""
    torch._dynamo.reset()
    compiled = torch.compile(lambda x: m3ops_torch.swiglu_oai(x, alpha=NUMBER), fullgraph=True, backend="eager")
    with pytest.raises(Exception, match="alpha must be a Python number in a compiled function, got a NumPy one"):
        compiled(torch.randn(3, 64))
    module = SwigluOAI(alpha=NUMBER, limit=np.float64(3))
    x = torch.randn(3, 64)
    assert_same_bytes(arrays(torch.compile(module, fullgraph=True, backend="eager")(x)), arrays(module(x)))


@pytest.mark.parametrize("given", [{"alpha": True}, {"groups": True}, {"round_activation": 1}], ids=str)
def test_a_bool_is_no_number_nor_a_number_one(given: dict[str, Any]) -> None:
    x, op = torch.zeros(4, 64), m3ops_torch.swiglu_oai_quantize
    with pytest.raises(TypeError) as eager:
        op(x, **given)
    torch._dynamo.reset()
    with pytest.raises(Exception, match=re.escape(str(eager.value))):
        torch.compile(lambda x: op(x, **given), fullgraph=True, backend="eager")(x)
