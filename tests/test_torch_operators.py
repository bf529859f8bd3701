"""An op of somebody else: a dataclass, and all of the front end follows from it."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, ClassVar

import pytest
import torch
from torch.func import grad, vmap

from m3ops.array import ArraySpec
from m3ops.axes import Axes
from m3ops.op import Array, Arrays, Derivative, Op, Specs, parameter
from m3ops.plan import Plan
from m3ops.target import Target
from m3ops_torch._call import run
from m3ops_torch._operators import parameters


@dataclass(frozen=True)
class Scaled(Op):
    """``factor * x``."""

    name: ClassVar[str] = "scaled_by_a_user"
    inputs: ClassVar[Mapping[str, str]] = {"x": ""}

    factor: float = parameter(2.0, "")
    repeated: int = parameter(1, "")
    label: str | None = parameter(None, "")
    negated: bool = parameter(False, "")

    def __post_init__(self) -> None:
        if self.factor == 0:
            raise ValueError("factor must not be 0")
        super().__post_init__()

    @property
    def axes(self) -> Axes:
        return Axes.of("*r N! -> *r N!")

    @property
    def derivative(self) -> Derivative:
        return Derivative(ScaledBackward.of(factor=self.factor), {"x": "grad_x"})

    def infer(self, x: ArraySpec) -> dict[str, ArraySpec]:
        return {"y": ArraySpec(x.shape, x.dtype)}

    def compute(self, x: Array) -> Arrays:
        return {"y": x * x.dtype.type(-self.factor if self.negated else self.factor)}

    def plan(self, specs: Specs, target: Target, *, keep: Any = ()) -> Plan:
        raise NotImplementedError


@dataclass(frozen=True)
class ScaledBackward(Op):
    """Its gradient."""

    name: ClassVar[str] = "scaled_by_a_user_backward"
    inputs: ClassVar[Mapping[str, str]] = {"x": "", "grad": ""}

    factor: float = parameter(2.0, "")

    @property
    def axes(self) -> Axes:
        return Axes.of("*r N!, *r N! -> *r N!")

    def infer(self, x: ArraySpec, grad: ArraySpec) -> dict[str, ArraySpec]:
        return {"grad_x": ArraySpec(x.shape, x.dtype)}

    def compute(self, x: Array, grad: Array) -> Arrays:
        return {"grad_x": grad * x.dtype.type(self.factor)}

    def plan(self, specs: Specs, target: Target, *, keep: Any = ()) -> Plan:
        raise NotImplementedError


def scaled(x: torch.Tensor, **given: Any) -> Any:
    return run(Scaled.of(**given), x)


def test_it_is_compiled_before_it_was_ever_called() -> None:
    """First in the file: the operators are defined while the graph is traced."""
    x = torch.ones(2, 4)
    compiled = torch.compile(lambda x: scaled(x, factor=3.0, label="a", negated=True), fullgraph=True)
    assert torch.equal(compiled(x), -3 * x)


def test_it_runs_with_a_count_and_in_given_memory() -> None:
    x = torch.ones(3, 4)
    count = torch.tensor([1], dtype=torch.int32)
    assert torch.equal(run(Scaled.of(), x, num_rows=count), torch.tensor([2.0, 0, 0])[:, None].expand(3, 4))
    out = torch.full((3, 4), 7.0)
    assert run(Scaled.of(), x, num_rows=count, out=out) is out
    assert torch.equal(out, torch.tensor([2.0, 7, 7])[:, None].expand(3, 4))


def test_it_is_differentiated_and_mapped() -> None:
    x = torch.ones(3, 4)
    assert torch.equal(grad(lambda x: scaled(x, factor=5.0).sum())(x), torch.full_like(x, 5))
    assert torch.equal(vmap(scaled)(x), 2 * x)


def test_its_schema_is_that_of_its_fields() -> None:
    scaled(torch.ones(1, 1))
    assert str(torch.ops.m3ops.scaled_by_a_user.default._schema) == (
        "m3ops::scaled_by_a_user(Tensor x, Tensor? num_rows=None, *, "
        "float factor, int repeated, str? label, bool negated) -> Tensor[]"
    )
    torch.library.opcheck(torch.ops.m3ops.scaled_by_a_user.default, (torch.ones(2, 4),), parameters(Scaled.of()))


def test_a_compiled_function_checks_parameters() -> None:
    with pytest.raises(Exception, match="factor must not be 0"):
        torch.compile(lambda x: scaled(x, factor=0.0), fullgraph=True, backend="eager")(torch.ones(2, 4))


def test_two_threads_make_the_first_call() -> None:
    @dataclass(frozen=True)
    class Other(Scaled):
        name: ClassVar[str] = "scaled_by_two_threads"

    x = torch.ones(2, 4)
    with ThreadPoolExecutor(8) as pool:
        results = list(pool.map(lambda _: run(Other.of(), x), range(16)))
    assert all(torch.equal(result, 2 * x) for result in results)
