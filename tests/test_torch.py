"""What is particular to the PyTorch front end: operators, fake tensors, torch.compile, views."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from compare import assert_same_bytes
from inputs import OPS_OF_ROWS, TORCH_PARAMETERS, arguments, call_of
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.fx.experimental.proxy_tensor import make_fx
from torch.fx.experimental.symbolic_shapes import ShapeEnv

import m3ops_torch
from m3ops.ops import OPS
from m3ops.testing.arrays import normal
from m3ops.tools.run import flat, to_numpy, to_tensor
from m3ops_torch import MXFP8
from m3ops_torch._operators import parameters
from m3ops_torch._reference import to_array

every_op = pytest.mark.parametrize("name", OPS)
every_op_that_counts = pytest.mark.parametrize("name", [name for name, op in OPS.items() if op.counts_rows])
every_op_of_rows = pytest.mark.parametrize("name", OPS_OF_ROWS)

OPCHECKS = ("test_schema", "test_autograd_registration", "test_faketensor", "test_aot_dispatch_dynamic")


OPTIONS: dict[str, list[dict[str, Any]]] = {
    "swiglu_oai": [{"limit": None, "out_dtype": "float32"}],
    "swiglu_oai_quantize": [{"scale_rule": "floor", "round_activation": True}],
    "mxfp8_quantize": [{"fp8_format": "e4m3fnuz"}],
    "gemma_rmsnorm_quantize": [{"out_norm": True}],
    "gemma_fused_add_rmsnorm_quantize": [{"out_norm": True, "fp8_format": "e4m3fnuz"}],
}


def tensors(name: str, device: str) -> list[torch.Tensor]:
    return [to_tensor(array, device) for array in arguments(name)]


def function(name: str) -> Any:
    """A public function as one of tensors."""
    public, quantized = partial(getattr(m3ops_torch, name), **TORCH_PARAMETERS[name]), len(OPS[name].quantized)
    others = [*OPS[name].inputs][2 * quantized :]

    def call(*tensors: Any, **given: Any) -> Any:
        pairs = [MXFP8(*tensors[2 * i : 2 * i + 2]) for i in range(quantized)]
        return public(*pairs, **dict(zip(others, tensors[2 * quantized :], strict=False)), **given)

    return call if quantized else public


def arrays(results: Any) -> list[np.ndarray]:
    return [to_numpy(tensor) for tensor in flat(results)]


@every_op_of_rows
@pytest.mark.parametrize("shape", ["contiguous", "strided", "no rows"])
def test_opcheck(name: str, shape: str, device: str) -> None:
    operator = getattr(torch.ops.m3ops, name).default
    # The schema test compares inputs before and after with an operator that 8-bit floats lack.
    checks = [c for c in OPCHECKS if not (c == "test_schema" and OPS[name].quantized)]
    views = {"contiguous": slice(None), "strided": slice(None, None, 2), "no rows": slice(0)}
    operands = tuple(t[views[shape]] if t.ndim == 3 else t for t in tensors(name, device))
    for given in [{}, *OPTIONS.get(name, [])]:
        torch.library.opcheck(operator, operands, parameters(replace(call_of(name), **given)), test_utils=checks)


def test_views_reach_the_specification_without_a_copy() -> None:
    wide = to_tensor(normal((6, 200), "bfloat16"))
    assert np.shares_memory(to_array(wide[::2, 16:144]), to_array(wide))


@every_op
def test_inputs_stay_as_they_are(name: str, device: str) -> None:
    inputs = tensors(name, device)
    before = [to_numpy(tensor).copy() for tensor in inputs]
    function(name)(*inputs)
    assert_same_bytes([to_numpy(tensor) for tensor in inputs], before)


@every_op_of_rows
def test_later_calls_give_the_same_bytes(name: str, device: str) -> None:
    """On a GPU they take a shorter way, which other calls and other tensors must not be mistaken for."""
    op, first = function(name), tensors(name, device)
    wanted = arrays(op(*first))
    flipped = [tensor.view(tensor.shape).flip(0) if tensor.ndim == 3 else tensor for tensor in first]
    for _ in range(3):
        assert_same_bytes(arrays(op(*first)), wanted)
        assert_same_bytes(arrays(op(*flipped)), [array[::-1] for array in wanted])


def test_a_wrong_call_after_a_right_one(device: str) -> None:
    """True equals 1.0 and hashes like it, but is no number here."""
    (gate_up,) = tensors("swiglu_oai", device)
    for _ in range(2):
        m3ops_torch.swiglu_oai(gate_up, alpha=1.0)
        with pytest.raises(TypeError, match="alpha must be a Python number"):
            m3ops_torch.swiglu_oai(gate_up, alpha=True)


def test_modes_see_later_calls(device: str) -> None:
    """Whatever watches the dispatcher still sees the operator."""
    (gate_up,) = tensors("swiglu_oai", device)
    m3ops_torch.swiglu_oai(gate_up)
    with FakeTensorMode(allow_non_fake_inputs=True):
        assert isinstance(m3ops_torch.swiglu_oai(gate_up), FakeTensor)
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], acc_events=True) as profile:
        m3ops_torch.swiglu_oai(gate_up)
    assert "m3ops::swiglu_oai" in {event.key for event in profile.key_averages()}


@pytest.mark.parametrize("name", [n for n, op in OPS.items() if not op.differentiable and not op.quantized])
def test_a_gradient_does_not_end_in_silence(name: str, device: str) -> None:
    results = function(name)(*(t.requires_grad_(t.is_floating_point()) for t in tensors(name, device)))
    with pytest.raises(TypeError, match=f"{name} .*step.*torch.no_grad.*torch.autograd.Function"):
        flat(results)[0].float().sum().backward()


def test_mxfp8_unpacks_and_shows_scales_as_numbers(device: str) -> None:
    values, scales = result = m3ops_torch.swiglu_oai_quantize(*tensors("swiglu_oai_quantize", device))
    assert isinstance(result, MXFP8)
    assert (values.dtype, scales.dtype) == (torch.float8_e4m3fn, torch.uint8)
    assert torch.equal(result.e8m0.float(), 2.0 ** (scales.float() - 127))


def test_fused_equals_unfused(device: str) -> None:
    (gate_up,) = tensors("swiglu_oai", device)
    fused = m3ops_torch.swiglu_oai_quantize(gate_up, round_activation=True)
    assert_same_bytes(arrays(fused), arrays(m3ops_torch.mxfp8_quantize(m3ops_torch.swiglu_oai(gate_up))))


# --- As PyTorch's own functions ---------------------------------------------------------------------------------------


@every_op
def test_storage_can_still_be_resized(name: str) -> None:
    """FSDP frees parameters by resizing; ``Tensor.numpy`` would forbid it."""
    operands = [tensor.clone() for tensor in tensors(name, "cpu")]
    results = flat(function(name)(*operands))
    out = [torch.empty_like(tensor) for tensor in results]
    function(name)(*operands, out=out)
    for tensor in (*operands, *results, *out):
        tensor.untyped_storage().resize_(0)


@every_op_of_rows
@pytest.mark.parametrize("shape", [(0,), (2, 0)], ids=str)
def test_results_without_elements_have_ordinary_strides(name: str, shape: tuple[int, ...], device: str) -> None:
    operands = [
        t[(slice(0), 0) if shape == (0,) else (slice(2), slice(0))] if t.ndim == 3 else t for t in tensors(name, device)
    ]
    for result in flat(function(name)(*operands)):
        assert result.shape[:-1] == shape
        assert result.stride() == torch.empty(result.shape, device="meta").stride()


@every_op_of_rows
def test_symbolic_sizes_outside_of_a_compiled_function(name: str) -> None:
    def call(*operands: torch.Tensor) -> Any:
        return flat(function(name)(*operands))

    def write(*operands: torch.Tensor) -> Any:
        out = [torch.empty_like(result) for result in call(*operands)]
        function(name)(*operands, out=out)
        return out

    operands = tensors(name, "cpu")
    other = [torch.cat([t, t]) if t.ndim == 3 else t for t in operands]
    for traced in (call, write):
        graph = make_fx(traced, tracing_mode="symbolic")(*operands)
        assert_same_bytes(arrays(tuple(graph(*other))), arrays(tuple(call(*other))))
    with FakeTensorMode(shape_env=ShapeEnv()) as mode:
        assert all(isinstance(t, FakeTensor) for t in call(*(mode.from_tensor(t) for t in operands)))


def test_arrays_of_numpy_are_named_as_such() -> None:
    x, weight = np.ones((2, 64), np.float32), torch.zeros(64)
    with pytest.raises(TypeError, match=r"x must be a tensor, got a NumPy ndarray: see torch\.from_numpy"):
        m3ops_torch.gemma_rmsnorm(x, weight)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"out must be a tensor, got a NumPy ndarray: see torch\.from_numpy"):
        m3ops_torch.gemma_rmsnorm(torch.ones(2, 64), weight, out=x)  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", [np.float32, np.float64, np.int64])
def test_numbers_of_numpy_are_numbers(kind: Any) -> None:
    x = torch.randn(2, 64)
    got = m3ops_torch.swiglu_oai(x, alpha=kind(2), limit=kind(3))
    assert_same_bytes(arrays(got), arrays(m3ops_torch.swiglu_oai(x, alpha=2.0, limit=3.0)))


def test_operators_check_what_they_are_given() -> None:
    """Whoever calls them without the public functions."""
    given = parameters(OPS["mxfp8_quantize"].of())
    with pytest.raises(ValueError, match="the last axis of x must be a multiple of 32"):
        torch.ops.m3ops.mxfp8_quantize(torch.ones(2, 40), **(given | {"scale_rule": "rceil"}))
    with pytest.raises(ValueError, match="scale_rule must be"):
        torch.ops.m3ops.mxfp8_quantize(torch.ones(2, 64), **(given | {"scale_rule": "up"}))
