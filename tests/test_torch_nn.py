"""Modules of ``m3ops_torch.nn``."""

from __future__ import annotations

import pytest
import torch
from compare import assert_same_bytes
from test_torch import arrays

import m3ops_torch
from m3ops.ops.gemma_rmsnorm import GemmaRMSNorm as Norm
from m3ops_torch import _direct
from m3ops_torch.nn import GemmaRMSNorm, SwigluOAI


def test_norm(device: str) -> None:
    norm = GemmaRMSNorm(64, 1e-5, device=device, dtype=torch.bfloat16)
    assert repr(norm) == "GemmaRMSNorm(64, eps=1e-05, weight_offset=1.0)"
    assert (norm.weight.dtype, norm.weight.device.type) == (torch.bfloat16, device)
    norm.load_state_dict({"weight": torch.randn(64)})
    x, residual = torch.randn(2, 3, 64, device=device), torch.randn(2, 3, 64, device=device)
    weight = norm.weight.detach()
    with torch.no_grad():
        assert_same_bytes(arrays(norm(x)), arrays(m3ops_torch.gemma_rmsnorm(x, weight, eps=1e-5)))
        want = m3ops_torch.gemma_fused_add_rmsnorm(x, residual, weight, eps=1e-5)
        assert_same_bytes(arrays(norm(x, residual)), arrays(want))


def test_a_new_norm_leaves_the_scale_alone() -> None:
    x = torch.randn(2, 64)
    want = m3ops_torch.gemma_rmsnorm(x, torch.zeros(64))
    assert_same_bytes(arrays(GemmaRMSNorm(64).requires_grad_(False)(x)), arrays(want))


def test_a_plain_norm(device: str) -> None:
    norm = GemmaRMSNorm(64, weight_offset=0, device=device).requires_grad_(False)
    assert torch.equal(norm.weight, torch.ones(64, device=device))
    norm.load_state_dict({"weight": torch.randn(64)})
    x, residual = torch.randn(2, 3, 64, device=device), torch.randn(2, 3, 64, device=device)
    assert_same_bytes(arrays(norm(x)), arrays(m3ops_torch.gemma_rmsnorm(x, norm.weight, weight_offset=0)))
    want = m3ops_torch.gemma_fused_add_rmsnorm(x, residual, norm.weight, weight_offset=0)
    assert_same_bytes(arrays(norm(x, residual)), arrays(want))


def test_activation(device: str) -> None:
    module = SwigluOAI(alpha=1.5, beta=0, limit=None)
    assert repr(module) == "SwigluOAI(alpha=1.5, beta=0.0, limit=None)"
    assert not list(module.parameters())
    x = torch.randn(3, 128, device=device, dtype=torch.bfloat16)
    assert_same_bytes(arrays(module(x)), arrays(m3ops_torch.swiglu_oai(x, alpha=1.5, beta=0, limit=None)))
    assert_same_bytes(arrays(SwigluOAI()(x)), arrays(m3ops_torch.swiglu_oai(x)))


def test_compiled(device: str) -> None:
    norm, x = GemmaRMSNorm(64, device=device).requires_grad_(False), torch.randn(3, 64, device=device)
    compiled = torch.compile(torch.nn.Sequential(norm, SwigluOAI()), fullgraph=True, backend="aot_eager")
    assert_same_bytes(arrays(compiled(x)), arrays(m3ops_torch.swiglu_oai(norm(x))))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA or HIP device")
def test_a_parameter_takes_the_shorter_way_where_no_derivative_is_recorded() -> None:
    norm, x = GemmaRMSNorm(64, device="cuda"), torch.randn(3, 64, device="cuda")
    operands = (x, norm.weight, None)
    with torch.no_grad():
        want = arrays(norm(x))
        assert _direct.attempt(Norm.of(), operands, None) is not None
    assert _direct.attempt(Norm.of(), operands, None) is None
    with torch.no_grad():
        assert_same_bytes(arrays(norm(x)), want)


def test_parameters_are_reset_as_those_of_other_modules() -> None:
    """As initialization on the meta device does it."""
    with torch.device("meta"):
        norm = GemmaRMSNorm(64)
    norm.to_empty(device="cpu").weight.data.fill_(float("nan"))
    norm.reset_parameters()
    assert torch.equal(norm.weight, torch.zeros(64))
