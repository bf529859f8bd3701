"""``m3ops_torch.compat.vllm``: names, defaults and formulas of vLLM, which is not installed."""

from __future__ import annotations

import inspect
import runpy
from pathlib import Path
from typing import Any

import pytest
import torch
from compare import assert_same_bytes
from test_torch import arrays

import m3ops_torch
from m3ops_torch.compat import vllm

EMPTY = inspect.Parameter.empty
# Names and defaults of vLLM's functions, from its sources of November 2026.
SIGNATURES: dict[str, dict[str, Any]] = {
    "swiglu_oai_quantize_mxfp8": {"gate_up": EMPTY, "alpha": EMPTY, "beta": EMPTY, "limit": EMPTY, "block_m": 64},
    "swiglu_oai_split": {"gate_up": EMPTY, "alpha": EMPTY, "beta": EMPTY, "limit": EMPTY, "out_dtype": None},
    "gemma_rmsnorm": {"x": EMPTY, "weight": EMPTY, "eps": EMPTY},
    "gemma_fused_add_rmsnorm": {"x": EMPTY, "residual": EMPTY, "weight": EMPTY, "eps": EMPTY},
    "mxfp8_e4m3_quantize": {"x": EMPTY, "is_sf_swizzled_layout": False, "alignment": 0},
    "dequant_mxfp8_to_bf16": {"x": EMPTY, "scales": EMPTY},
}


def randn(*shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(len(shape)), dtype=torch.float32).bfloat16()


@pytest.mark.parametrize("name", SIGNATURES)
def test_names_and_defaults(name: str) -> None:
    parameters = inspect.signature(getattr(vllm, name)).parameters.values()
    assert {p.name: p.default for p in parameters} == SIGNATURES[name]
    assert all(p.kind is p.POSITIONAL_OR_KEYWORD for p in parameters)
    assert set(vllm.__all__) == set(SIGNATURES)


@pytest.mark.parametrize("leading", [(), (6,), (2, 3)])
def test_swiglu_oai_quantize_mxfp8_makes_leading_axes_one(leading: tuple[int, ...]) -> None:
    gate_up = randn(*leading, 128)
    values, scales = got = vllm.swiglu_oai_quantize_mxfp8(gate_up, 1.5, 0.5, 6.0, block_m=16)
    assert type(got) is tuple
    rows = gate_up.numel() // 128
    assert (values.shape, values.dtype) == ((rows, 64), torch.float8_e4m3fn)
    assert (scales.shape, scales.dtype) == ((rows, 2), torch.uint8)
    want = m3ops_torch.swiglu_oai_quantize(gate_up.reshape(-1, 128), alpha=1.5, beta=0.5, limit=6.0)
    assert_same_bytes(arrays(got), arrays(want))


@pytest.mark.parametrize("limit", [None, 7])
@pytest.mark.parametrize("out_dtype", [None, torch.float32])
def test_swiglu_oai_split(limit: float | None, out_dtype: torch.dtype | None) -> None:
    gate_up = randn(2, 3, 128)[:, 1:]
    got = vllm.swiglu_oai_split(gate_up, 1.702, 1.0, limit, out_dtype)
    assert (got.shape, got.dtype) == ((2, 2, 64), out_dtype or torch.bfloat16)
    assert_same_bytes(arrays(got), arrays(m3ops_torch.swiglu_oai(gate_up, limit=limit, out_dtype=out_dtype)))


def test_norms() -> None:
    x, residual, weight = randn(2, 3, 64), randn(2, 3, 64).neg(), randn(64)
    got = vllm.gemma_rmsnorm(x, weight, 1e-5)
    assert_same_bytes(arrays(got), arrays(m3ops_torch.gemma_rmsnorm(x, weight, eps=1e-5)))
    both = vllm.gemma_fused_add_rmsnorm(x, residual, weight, 1e-5)
    assert type(both) is tuple
    assert_same_bytes(arrays(both), arrays(m3ops_torch.gemma_fused_add_rmsnorm(x, residual, weight, eps=1e-5)))


@pytest.mark.parametrize("shape", [(5, 64), (2, 3, 96), (64,)])
def test_mxfp8_follows_the_formula_of_vllm(shape: tuple[int, ...]) -> None:
    """``ceil(log2(amax / 448))``, here in float64, which no block of ordinary numbers can tell from the exact rule."""
    x = randn(*shape)
    values, scales = got = vllm.mxfp8_e4m3_quantize(x)
    assert type(got) is tuple
    blocks = x.double().unflatten(-1, (-1, 32))
    exponents = (blocks.abs().amax(-1) / 448).log2().ceil()
    assert torch.equal(scales, (exponents + 127).to(torch.uint8))
    scaled = (blocks / exponents.exp2()[..., None]).flatten(-2)
    assert_same_bytes(arrays(values), arrays(scaled.float().to(torch.float8_e4m3fn)))
    wide = values.double().unflatten(-1, (-1, 32)) * exponents.exp2()[..., None]
    assert_same_bytes(arrays(vllm.dequant_mxfp8_to_bf16(values, scales)), arrays(wide.flatten(-2).bfloat16()))


@pytest.mark.parametrize("shape", [(5, 64), (130, 160), (2, 129, 96)])
def test_swizzled_scales_are_flat(shape: tuple[int, ...]) -> None:
    """Of each matrix 128 x 4 tiles, the rows of a tile 32 apart side by side; one matrix after the other."""
    x = randn(*shape)
    values, scales = vllm.mxfp8_e4m3_quantize(x, is_sf_swizzled_layout=True)
    plain_values, plain = vllm.mxfp8_e4m3_quantize(x)
    assert_same_bytes(arrays(values), arrays(plain_values))
    want = []
    for matrix in plain.view(-1, *plain.shape[-2:]):
        rows, columns = matrix.shape
        padded = torch.nn.functional.pad(matrix, (0, -columns % 4, 0, -rows % 128))
        want.append(padded.unflatten(0, (-1, 4, 32)).unflatten(-1, (-1, 4)).permute(0, 3, 2, 1, 4).flatten())
    assert torch.equal(scales, torch.cat(want))


def test_an_alignment_that_would_pad_is_refused() -> None:
    assert vllm.mxfp8_e4m3_quantize(randn(2, 64), alignment=32)[0].shape == (2, 64)
    with pytest.raises(ValueError, match="the last axis of x must be a multiple of alignment, 128, got 64"):
        vllm.mxfp8_e4m3_quantize(randn(2, 64), alignment=128)


def test_compiles() -> None:
    def layer(x: torch.Tensor, residual: torch.Tensor, weight: torch.Tensor) -> Any:
        x, residual = vllm.gemma_fused_add_rmsnorm(x, residual, weight, 1e-6)
        return vllm.swiglu_oai_quantize_mxfp8(x, 1.702, 1.0, 7.0), residual

    operands = randn(2, 3, 64), randn(2, 3, 64).neg(), randn(64)
    compiled = torch.compile(layer, fullgraph=True, dynamic=True, backend="aot_eager")
    assert_same_bytes(arrays(compiled(*operands)), arrays(layer(*operands)))


OPS, QUANT = "vllm.models.minimax_m3.amd.ops", "vllm.model_executor.layers.quantization.utils.mxfp8_utils"
# What a user wrote for vLLM. It knows nothing of m3ops.
SCRIPT = f"""
import torch
from {OPS} import gemma_fused_add_rmsnorm, gemma_rmsnorm, swiglu_oai_quantize_mxfp8, swiglu_oai_split
from {QUANT} import dequant_mxfp8_to_bf16, mxfp8_e4m3_quantize

torch.manual_seed(0)
weight = torch.zeros(64, dtype=torch.bfloat16)
x = gemma_rmsnorm(torch.randn(8, 64).bfloat16(), weight, 1e-6)
x, residual = gemma_fused_add_rmsnorm(x, x, weight, eps=1e-6)
gate_up = torch.cat([x, residual], dim=-1)
act = swiglu_oai_split(gate_up, alpha=1.702, beta=1.0, limit=7.0)
act_q, act_scale = swiglu_oai_quantize_mxfp8(gate_up, alpha=1.702, beta=1.0, limit=7.0)
unfused_q, unfused_scale = mxfp8_e4m3_quantize(act)
error = (dequant_mxfp8_to_bf16(act_q, act_scale) - act).abs().max() / act.abs().max()
assert error < 2**-3, error
assert act_q.shape == unfused_q.shape and act_scale.shape == unfused_scale.shape == (8, 2)
"""


def test_a_script_for_vllm_runs_on_one_other_import(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(SCRIPT.replace(OPS, "m3ops_torch.compat.vllm").replace(QUANT, "m3ops_torch.compat.vllm"))
    runpy.run_path(str(script))
