"""What is particular to the PyTorch front end: operators, fake tensors, torch.compile, views."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from compare import assert_same_bytes
from test_jax import ARGUMENTS, every_op
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode

import m3ops_torch
from m3ops import MXFP8
from m3ops.cases.case import normal
from m3ops.cases.run import flat, to_numpy, to_tensor
from m3ops.ops import OPS
from m3ops_torch._reference import _to_array

OPCHECKS = ("test_schema", "test_autograd_registration", "test_faketensor", "test_aot_dispatch_dynamic")


OPTIONS: dict[str, list[dict[str, Any]]] = {
    "swiglu_oai": [{"limit": None, "out_dtype": "float32"}],
    "swiglu_oai_quantize": [{"scale_rule": "floor", "round_activation": True}],
    "mxfp8_quantize": [{"fp8_format": "e4m3fnuz"}],
    "gemma_rmsnorm_quantize": [{"out_norm": True}],
    "gemma_fused_add_rmsnorm_quantize": [{"out_norm": True, "fp8_format": "e4m3fnuz"}],
}


def tensors(name: str, device: str) -> list[torch.Tensor]:
    return [to_tensor(array, device) for array in ARGUMENTS[name]]


def arrays(results: Any) -> list[np.ndarray]:
    return [to_numpy(tensor) for tensor in flat(results)]


@every_op
@pytest.mark.parametrize("shape", ["contiguous", "strided", "no rows"])
def test_opcheck(name: str, shape: str, device: str) -> None:
    operator = getattr(torch.ops.m3ops, name).default
    # The schema test compares inputs before and after with an operator that 8-bit floats lack.
    checks = [c for c in OPCHECKS if not (c == "test_schema" and name == "mxfp8_dequantize")]
    views = {"contiguous": slice(None), "strided": slice(None, None, 2), "no rows": slice(0)}
    operands = tuple(t[views[shape]] if t.ndim == 3 else t for t in tensors(name, device))
    for given in [{}, *OPTIONS.get(name, [])]:
        params = {**{k: "bfloat16" if k == "out_dtype" else p.default for k, p in OPS[name].params.items()}, **given}
        torch.library.opcheck(operator, operands, params, test_utils=checks)


def test_views_reach_the_specification_without_a_copy() -> None:
    wide = to_tensor(normal((6, 200), "bfloat16"))
    assert np.shares_memory(_to_array(wide[::2, 16:144]), _to_array(wide))


@every_op
def test_inputs_stay_as_they_are(name: str, device: str) -> None:
    inputs = tensors(name, device)
    before = [to_numpy(tensor).copy() for tensor in inputs]
    getattr(m3ops_torch, name)(*inputs)
    assert_same_bytes([to_numpy(tensor) for tensor in inputs], before)


@every_op
def test_later_calls_give_the_same_bytes(name: str, device: str) -> None:
    """On a GPU they take a shorter way, which other calls and other tensors must not be mistaken for."""
    op, first = getattr(m3ops_torch, name), tensors(name, device)
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


@pytest.mark.parametrize("name", [n for n, op in OPS.items() if not op.differentiable and n != "mxfp8_dequantize"])
def test_a_gradient_does_not_end_in_silence(name: str, device: str) -> None:
    results = getattr(m3ops_torch, name)(*(tensor.requires_grad_() for tensor in tensors(name, device)))
    with pytest.raises(TypeError, match=f"{name} .*step.*torch.autograd.Function"):
        flat(results)[0].float().sum().backward()


def test_mxfp8_unpacks_and_shows_scales_as_numbers(device: str) -> None:
    values, scales = result = m3ops_torch.swiglu_oai_quantize(*tensors("swiglu_oai_quantize", device))
    assert isinstance(result, MXFP8)
    assert (values.dtype, scales.dtype) == (torch.float8_e4m3fn, torch.uint8)
    numbers = scales.view(torch.float8_e8m0fnu).float()
    assert torch.equal(numbers, 2.0 ** (scales.float() - 127))


def test_fused_equals_unfused(device: str) -> None:
    (gate_up,) = tensors("swiglu_oai", device)
    fused = m3ops_torch.swiglu_oai_quantize(gate_up, round_activation=True)
    assert_same_bytes(arrays(fused), arrays(m3ops_torch.mxfp8_quantize(m3ops_torch.swiglu_oai(gate_up))))
