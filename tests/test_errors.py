"""Wrong calls raise the same error, with the same text, from both front ends; nothing is launched or written."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from wrong_in_torch import TORCH_TYPE_ERRORS, TORCH_VALUE_ERRORS
from wrong_types import TYPE_ERRORS
from wrong_values import VALUE_ERRORS
from wrong_values_of_experts import VALUE_ERRORS_OF_EXPERTS
from wrong_values_of_heads import VALUE_ERRORS_OF_HEADS

import m3ops_jax
import m3ops_torch
from m3ops.mxfp8 import MXFP8
from m3ops.op import Op

MODULES = {"jax": m3ops_jax, "torch": m3ops_torch}
ARRAYS: dict[str, Callable[..., Any]] = {
    "jax": lambda *shape, dtype="bfloat16": jnp.zeros(shape, dtype),
    "torch": lambda *shape, dtype="bfloat16": torch.zeros(shape, dtype=getattr(torch, dtype)),
}
BOTH = {TypeError: TYPE_ERRORS, ValueError: VALUE_ERRORS | VALUE_ERRORS_OF_EXPERTS | VALUE_ERRORS_OF_HEADS}
TORCH = {TypeError: TORCH_TYPE_ERRORS, ValueError: TORCH_VALUE_ERRORS}


def rows_of(tables: dict[type[Exception], Any]) -> list[Any]:
    return [pytest.param(kind, *row, id=what) for kind, table in tables.items() for what, row in table.items()]


@pytest.fixture
def nothing_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    """What computes or launches an op in either front end fails: nothing can be launched or written."""

    def runs(*_: Any, **__: Any) -> None:
        raise AssertionError("an op was computed or launched")

    monkeypatch.setattr(Op, "evaluate", runs)
    monkeypatch.setattr(Op, "reference", runs)
    monkeypatch.setattr("m3ops_torch._launch.launch", runs)
    monkeypatch.setattr("m3ops_jax._primitive._primitive", runs)


@pytest.mark.usefixtures("nothing_runs")
@pytest.mark.parametrize("more", ["", "num_rows", "out"], ids=["plain", "num_rows", "out"])
def test_a_right_call_would_run(more: str) -> None:
    for framework in ("torch",) if more == "out" else MODULES:
        module, array = MODULES[framework], ARRAYS[framework]
        given = {"": None, "num_rows": array(1, dtype="int32"), "out": array(2, 64)}[more]
        with pytest.raises(AssertionError, match="computed or launched"):
            module.gemma_rmsnorm(array(2, 64), array(64), **({more: given} if more else {}))


@pytest.mark.usefixtures("nothing_runs")
@pytest.mark.parametrize(("kind", "call", "message"), rows_of(BOTH))
def test_wrong_call(kind: type[Exception], call: Callable[[Any, Any], Any], message: str) -> None:
    errors = []
    for framework, module in MODULES.items():
        with pytest.raises((TypeError, ValueError)) as caught:
            call(module, ARRAYS[framework])
        errors.append(caught.value)
    assert [type(error) for error in errors] == [kind, kind]
    assert str(errors[0]) == str(errors[1])
    assert message in str(errors[0])


@pytest.mark.usefixtures("nothing_runs")
@pytest.mark.parametrize(("kind", "call", "message"), rows_of(TORCH))
def test_wrong_call_of_pytorch(kind: type[Exception], call: Callable[[Any, Any], Any], message: str) -> None:
    with pytest.raises(kind) as caught:
        call(m3ops_torch, ARRAYS["torch"])
    assert message in str(caught.value)


@pytest.mark.usefixtures("nothing_runs")
@pytest.mark.parametrize("framework", MODULES)
def test_values_alone_are_not_quantized(framework: str) -> None:
    """Each front end takes its own container, which knows where the scales are."""
    module, values = MODULES[framework], ARRAYS[framework](2, 64, dtype="float8_e4m3fn")
    for wrong in (values, (values, values), MXFP8(values, values)):
        with pytest.raises(
            TypeError, match=rf"q must be an MXFP8 of this front end, got (m3ops.*)?{type(wrong).__name__}"
        ):
            module.mxfp8_dequantize(wrong)


def test_numpy_arrays_are_not_narrowed() -> None:
    """Jnp would turn this float64 array into float32 without a word."""
    with pytest.raises(TypeError, match="gate_up must have dtype bfloat16, float16 or float32, got float64"):
        m3ops_jax.swiglu_oai(np.zeros((2, 64)))


@pytest.mark.parametrize(
    ("array", "dtype"),
    [(lambda: jax.random.split(jax.random.key(0), 32), "key<fry>"), (lambda: np.zeros(32, ">f4"), ">f4")],
)
def test_arrays_of_other_things_than_numbers(array: Callable[[], Any], dtype: str) -> None:
    with pytest.raises(TypeError, match=f"x must have dtype bfloat16, float16 or float32, got {dtype}"):
        m3ops_jax.mxfp8_quantize(array())


def test_traced_parameters() -> None:
    """Parameters are part of the compiled kernel, so a traced number is refused like any array."""
    with pytest.raises(
        TypeError, match="alpha must be a Python number, known before the kernel is compiled, got an array"
    ):
        jax.jit(lambda x, alpha: m3ops_jax.swiglu_oai(x, alpha=alpha))(jnp.zeros((2, 64)), 1.7)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA or HIP device")
def test_mixed_devices() -> None:
    with pytest.raises(ValueError, match=r"weight must be on the device of x, cuda:0, got cpu"):
        m3ops_torch.gemma_rmsnorm(torch.zeros(2, 64, device="cuda"), torch.zeros(64))
