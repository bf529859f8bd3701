"""Wrong calls raise the same error, with the same text, from both front ends, before anything is launched."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

import m3ops_jax
import m3ops_torch
from m3ops.numerics.formats import MXFP8
from m3ops.ops import OPS

MODULES = {"jax": m3ops_jax, "torch": m3ops_torch}
ARRAYS: dict[str, Callable[..., Any]] = {
    "jax": lambda *shape, dtype="bfloat16": jnp.zeros(shape, dtype),
    "torch": lambda *shape, dtype="bfloat16": torch.zeros(shape, dtype=getattr(torch, dtype)),
}

# (what is wrong, call of (module, array maker), exception type, message)
WRONG: list[tuple[str, Callable[[Any, Any], Any], type[Exception], str]] = [
    ("a list", lambda m, a: m.swiglu_oai([1.0, 2.0]), TypeError, "gate_up must be an array, got list"),
    ("None", lambda m, a: m.mxfp8_quantize(None), TypeError, "x must be an array, got NoneType"),
    (
        "a number for weight",
        lambda m, a: m.gemma_rmsnorm(a(2, 8), 1.0),
        TypeError,
        "weight must be an array, got float",
    ),
    (
        "int32 gate_up",
        lambda m, a: m.swiglu_oai(a(2, 64, dtype="int32")),
        TypeError,
        "gate_up must have dtype bfloat16, float16 or float32, got int32",
    ),
    (
        "fp8 x",
        lambda m, a: m.mxfp8_quantize(a(2, 64, dtype="float8_e4m3fn")),
        TypeError,
        "x must have dtype bfloat16, float16 or float32, got float8_e4m3fn",
    ),
    (
        "uint8 values",
        lambda m, a: m.mxfp8_dequantize(a(2, 64, dtype="uint8"), a(2, 2, dtype="uint8")),
        TypeError,
        "values must have dtype float8_e4m3fn or float8_e4m3fnuz, got uint8",
    ),
    (
        "int8 scales",
        lambda m, a: m.mxfp8_dequantize(a(2, 64, dtype="float8_e4m3fn"), a(2, 2, dtype="int8")),
        TypeError,
        "scales must have dtype uint8, got int8",
    ),
    (
        "no axis",
        lambda m, a: m.swiglu_oai(a()),
        ValueError,
        "gate_up must have at least one axis, got shape ()",
    ),
    (
        "an odd last axis",
        lambda m, a: m.swiglu_oai(a(2, 7)),
        ValueError,
        "gate_up must have an even last axis, [gate | up], got shape (2, 7)",
    ),
    (
        "I = 48",
        lambda m, a: m.swiglu_oai_quantize(a(2, 96)),
        ValueError,
        "half the last axis of gate_up must be a multiple of 32 (the MXFP8 block), got 48",
    ),
    (
        "a last axis of 40",
        lambda m, a: m.mxfp8_quantize(a(2, 40)),
        ValueError,
        "the last axis of x must be a multiple of 32 (the MXFP8 block), got 40",
    ),
    (
        "too few scales",
        lambda m, a: m.mxfp8_dequantize(a(2, 64, dtype="float8_e4m3fn"), a(2, 1, dtype="uint8")),
        ValueError,
        "scales must have shape (2, 2) for values of shape (2, 64), got (2, 1)",
    ),
    (
        "a weight of another size",
        lambda m, a: m.gemma_rmsnorm(a(2, 64), a(32)),
        ValueError,
        "weight must have shape (64,) or broadcast against x (2, 64), got (32,)",
    ),
    (
        "a weight that would enlarge x",
        lambda m, a: m.gemma_rmsnorm(a(1, 64), a(2, 64)),
        ValueError,
        "weight must have shape (64,) or broadcast against x (1, 64), got (2, 64)",
    ),
    (
        "an empty row",
        lambda m, a: m.gemma_rmsnorm(a(2, 0), a(0)),
        ValueError,
        "x must have a last axis of 1 to 131072 elements, got shape (2, 0)",
    ),
    (
        "a row past the limit",
        lambda m, a: m.gemma_rmsnorm(a(1, 131080), a(131080)),
        ValueError,
        "x must have a last axis of 1 to 131072 elements, got shape (1, 131080)",
    ),
    (
        "a residual of another shape",
        lambda m, a: m.gemma_fused_add_rmsnorm(a(2, 64), a(64), a(64)),
        ValueError,
        "residual must have the shape of x, (2, 64), got (64,)",
    ),
    (
        "a residual of another dtype",
        lambda m, a: m.gemma_fused_add_rmsnorm(a(2, 64), a(2, 64, dtype="float32"), a(64)),
        TypeError,
        "residual must have the dtype of x, bfloat16, got float32",
    ),
    (
        "a qkv of too few heads",
        lambda m, a: m.gemma_rmsnorm_heads(a(2, 64), a(8), a(8)),
        ValueError,
        "qkv must have a last axis of 64 q, 4 k and 4 v heads of 8, 576, got shape (2, 64)",
    ),
    (
        "a weight_k of another size",
        lambda m, a: m.gemma_rmsnorm_heads(a(2, 32), a(8), a(4), num_heads_q=2, num_heads_k=1, num_heads_v=1),
        ValueError,
        "weight_k must have shape (8,) or broadcast against qkv (2, 32), got (4,)",
    ),
    (
        "a weight_q that would enlarge qkv",
        lambda m, a: m.gemma_rmsnorm_heads(a(1, 32), a(2, 8), a(8), num_heads_q=2, num_heads_k=1, num_heads_v=1),
        ValueError,
        "weight_q must have shape (8,) or broadcast against qkv (1, 32), got (2, 8)",
    ),
    (
        "a head_dim past the limit",
        lambda m, a: m.gemma_rmsnorm_heads(a(2, 4096), a(2048), a(2048), num_heads_q=1, num_heads_k=1, num_heads_v=0),
        ValueError,
        "weight_q must have a last axis, head_dim, of 1 to 1024 elements, got shape (2048,)",
    ),
    (
        "no q heads",
        lambda m, a: m.gemma_rmsnorm_heads(a(2, 32), a(8), a(8), num_heads_q=0),
        ValueError,
        "num_heads_q must be at least 1, got 0",
    ),
    (
        "fewer than no v heads",
        lambda m, a: m.gemma_rmsnorm_heads(a(2, 32), a(8), a(8), num_heads_v=-1),
        ValueError,
        "num_heads_v must be at least 0, got -1",
    ),
    (
        "a float for num_heads_k",
        lambda m, a: m.gemma_rmsnorm_heads(a(2, 32), a(8), a(8), num_heads_k=4.0),
        TypeError,
        "num_heads_k must be a Python integer, known before the kernel is compiled, got float",
    ),
    (
        "an int32 weight_q",
        lambda m, a: m.gemma_rmsnorm_heads(a(2, 576), a(8, dtype="int32"), a(8)),
        TypeError,
        "weight_q must have dtype bfloat16, float16 or float32, got int32",
    ),
    (
        "a string for alpha",
        lambda m, a: m.swiglu_oai(a(2, 64), alpha="1"),
        TypeError,
        "alpha must be a Python number, known before the kernel is compiled, got str",
    ),
    (
        "a list for alpha",
        lambda m, a: m.swiglu_oai(a(2, 64), alpha=[1.7]),
        TypeError,
        "alpha must be a Python number, known before the kernel is compiled, got list",
    ),
    (
        "True for alpha",
        lambda m, a: m.swiglu_oai(a(2, 64), alpha=True),
        TypeError,
        "alpha must be a Python number, known before the kernel is compiled, got bool",
    ),
    (
        "an array for beta",
        lambda m, a: m.swiglu_oai_quantize(a(2, 64), beta=a(1)),
        TypeError,
        "beta must be a Python number, known before the kernel is compiled, got an array",
    ),
    ("alpha None", lambda m, a: m.swiglu_oai(a(2, 64), alpha=None), TypeError, "got NoneType"),
    (
        "alpha NaN",
        lambda m, a: m.swiglu_oai(a(2, 64), alpha=math.nan),
        ValueError,
        "alpha must be a finite fp32 number",
    ),
    ("alpha 0", lambda m, a: m.swiglu_oai(a(2, 64), alpha=0), ValueError, "alpha must be a finite fp32 number and >= "),
    ("alpha -1", lambda m, a: m.swiglu_oai_quantize(a(2, 64), alpha=-1.0), ValueError, "got -1.0"),
    ("alpha 1e30", lambda m, a: m.swiglu_oai(a(2, 64), alpha=1e30), ValueError, "<= 1.84467e+19, got 1e+30"),
    (
        "beta past fp32",
        lambda m, a: m.swiglu_oai(a(2, 64), beta=1e39),
        ValueError,
        "beta must be a finite fp32 number, got 1e+39",
    ),
    (
        "limit 0",
        lambda m, a: m.swiglu_oai(a(2, 64), limit=0.0),
        ValueError,
        "limit must be a finite fp32 number and > 0, got 0.0",
    ),
    (
        "limit -7",
        lambda m, a: m.swiglu_oai_quantize(a(2, 64), limit=-7),
        ValueError,
        "limit must be a finite fp32 number and > 0, got -7",
    ),
    ("limit infinite", lambda m, a: m.swiglu_oai(a(2, 64), limit=math.inf), ValueError, "got inf"),
    (
        "groups 0",
        lambda m, a: m.swiglu_oai(a(2, 64), groups=0),
        ValueError,
        "groups must be at least 1, got 0",
    ),
    (
        "groups 2.0",
        lambda m, a: m.swiglu_oai_quantize(a(2, 128), groups=2.0),
        TypeError,
        "groups must be a Python integer, known before the kernel is compiled, got float",
    ),
    ("groups True", lambda m, a: m.swiglu_oai(a(2, 64), groups=True), TypeError, "got bool"),
    (
        "groups that do not divide",
        lambda m, a: m.swiglu_oai(a(2, 64), groups=3),
        ValueError,
        "gate_up must have a last axis of 3 groups [gate | up], got shape (2, 64)",
    ),
    (
        "groups of half a block",
        lambda m, a: m.swiglu_oai_quantize(a(2, 64), groups=2),
        ValueError,
        "half a group of gate_up must be a multiple of 32 (the MXFP8 block), got 16",
    ),
    (
        "eps negative",
        lambda m, a: m.gemma_rmsnorm(a(2, 64), a(64), eps=-1e-6),
        ValueError,
        "eps must be a finite fp32 number and >= 0, got -1e-06",
    ),
    ("eps NaN", lambda m, a: m.gemma_fused_add_rmsnorm(a(2, 64), a(2, 64), a(64), eps=math.nan), ValueError, "got nan"),
    (
        "an unknown layout",
        lambda m, a: m.swiglu_oai(a(2, 64), layout="concatenated"),
        ValueError,
        "layout must be 'split' or 'interleaved', got 'concatenated'",
    ),
    (
        "a layout that is no string",
        lambda m, a: m.swiglu_oai_quantize(a(2, 64), layout=None),
        TypeError,
        "layout must be a string, got NoneType",
    ),
    (
        "an unknown scale rule",
        lambda m, a: m.mxfp8_quantize(a(2, 64), scale_rule="ceil"),
        ValueError,
        "scale_rule must be 'rceil' or 'floor', got 'ceil'",
    ),
    (
        "an unknown format",
        lambda m, a: m.swiglu_oai_quantize(a(2, 64), fp8_format="e5m2"),
        ValueError,
        "fp8_format must be 'e4m3fn' or 'e4m3fnuz', got 'e5m2'",
    ),
    (
        "an unknown scale layout",
        lambda m, a: m.mxfp8_quantize(a(2, 64), scale_layout="blocked"),
        ValueError,
        "scale_layout must be 'row_major', 'swizzle_128x4' or 'shuffle_32x8', got 'blocked'",
    ),
    (
        "a layout that is no string",
        lambda m, a: m.swiglu_oai_quantize(a(2, 64), scale_layout=True),
        TypeError,
        "scale_layout must be a string, got bool",
    ),
    (
        "tiled scales of a vector",
        lambda m, a: m.gemma_rmsnorm_quantize(a(64), a(64), scale_layout="swizzle_128x4"),
        ValueError,
        "x must have at least two axes for scale_layout='swizzle_128x4', got shape (64,)",
    ),
    (
        "tiled scales of groups",
        lambda m, a: m.swiglu_oai_quantize(a(2, 128), groups=2, scale_layout="swizzle_128x4"),
        ValueError,
        "groups must be 1 for scale_layout='swizzle_128x4', got 2",
    ),
    (
        "row-major scales said to be tiled",
        lambda m, a: m.mxfp8_dequantize(
            a(2, 64, dtype="float8_e4m3fn"), a(2, 2, dtype="uint8"), scale_layout="shuffle_32x8"
        ),
        ValueError,
        "scales must have shape (256, 8) for values of shape (2, 64), got (2, 2)",
    ),
    (
        "a rule that is no string",
        lambda m, a: m.mxfp8_quantize(a(2, 64), scale_rule=1),
        TypeError,
        "scale_rule must be a string, got int",
    ),
    (
        "round_activation 1",
        lambda m, a: m.swiglu_oai_quantize(a(2, 64), round_activation=1),
        TypeError,
        "round_activation must be True or False, got int",
    ),
    (
        "out_dtype int8",
        lambda m, a: m.swiglu_oai(a(2, 64), out_dtype=a(1, dtype="int8").dtype),
        TypeError,
        "out_dtype must be bfloat16, float16 or float32, got int8",
    ),
    (
        "out_dtype None to dequantize",
        lambda m, a: m.mxfp8_dequantize(a(64, dtype="float8_e4m3fn"), a(2, dtype="uint8"), out_dtype=None),
        TypeError,
        "out_dtype must be bfloat16, float16 or float32, got None",
    ),
    ("a tuple of arrays", lambda m, a: m.mxfp8_quantize((a(2, 64),)), TypeError, "x must be an array, got tuple"),
    (
        "a string for residual",
        lambda m, a: m.gemma_fused_add_rmsnorm(a(2, 64), "r", a(64)),
        TypeError,
        "residual must be an array, got str",
    ),
    (
        "MXFP8 instead of its values",
        lambda m, a: m.mxfp8_dequantize(MXFP8(a(2, 64), a(2, 2)), a(2, 2, dtype="uint8")),
        TypeError,
        "values must be an array, got MXFP8",
    ),
    (
        "int8 weight",
        lambda m, a: m.gemma_rmsnorm_quantize(a(2, 64), a(64, dtype="int8")),
        TypeError,
        "weight must have dtype bfloat16, float16 or float32, got int8",
    ),
    (
        "bool x",
        lambda m, a: m.gemma_fused_add_rmsnorm(a(2, 64, dtype="bool"), a(2, 64), a(64)),
        TypeError,
        "x must have dtype bfloat16, float16 or float32, got bool",
    ),
    (
        "values in E5M2",
        lambda m, a: m.mxfp8_dequantize(a(2, 64, dtype="float8_e5m2"), a(2, 2, dtype="uint8")),
        TypeError,
        "values must have dtype float8_e4m3fn or float8_e4m3fnuz, got float8_e5m2",
    ),
    (
        "a norm's row of 40, to be quantized",
        lambda m, a: m.gemma_rmsnorm_quantize(a(2, 40), a(40)),
        ValueError,
        "the last axis of x must be a multiple of 32 (the MXFP8 block), got 40",
    ),
    (
        "scales without the rows of values",
        lambda m, a: m.mxfp8_dequantize(a(2, 64, dtype="float8_e4m3fn"), a(2, dtype="uint8")),
        ValueError,
        "scales must have shape (2, 2) for values of shape (2, 64), got (2,)",
    ),
    (
        "a weight with too many axes",
        lambda m, a: m.gemma_fused_add_rmsnorm_quantize(a(2, 64), a(2, 64), a(1, 2, 64)),
        ValueError,
        "weight must have shape (64,) or broadcast against x (2, 64), got (1, 2, 64)",
    ),
    (
        "a residual of another size",
        lambda m, a: m.gemma_fused_add_rmsnorm_quantize(a(2, 64), a(2, 96), a(64)),
        ValueError,
        "residual must have the shape of x, (2, 64), got (2, 96)",
    ),
    ("beta NaN", lambda m, a: m.swiglu_oai(a(2, 64), beta=math.nan), ValueError, "beta must be a finite fp32 number"),
    ("limit NaN", lambda m, a: m.swiglu_oai_quantize(a(2, 64), limit=math.nan), ValueError, "limit must be a finite"),
    (
        "limit too small for fp32",
        lambda m, a: m.swiglu_oai(a(2, 64), limit=1e-50),
        ValueError,
        "limit must be a finite fp32 number and > 0, got 1e-50",
    ),
    ("alpha complex", lambda m, a: m.swiglu_oai(a(2, 64), alpha=1j), TypeError, "alpha must be a Python number"),
    ("eps None", lambda m, a: m.gemma_rmsnorm(a(2, 64), a(64), eps=None), TypeError, "eps must be a Python number"),
    (
        "out_norm None",
        lambda m, a: m.gemma_rmsnorm_quantize(a(2, 64), a(64), out_norm=None),
        TypeError,
        "out_norm must be True or False, got NoneType",
    ),
    (
        "out_dtype fp8",
        lambda m, a: m.swiglu_oai(a(2, 64), out_dtype=a(1, dtype="float8_e4m3fn").dtype),
        TypeError,
        "out_dtype must be bfloat16, float16 or float32, got float8_e4m3fn",
    ),
]


def error_of(call: Callable[[Any, Any], Any], framework: str) -> Exception:
    with pytest.raises((TypeError, ValueError)) as caught:
        call(MODULES[framework], ARRAYS[framework])
    return caught.value


def nothing_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    """From here on, what computes or launches an op in either front end fails: nothing can be launched or written."""

    def runs(*_: Any, **__: Any) -> None:
        raise AssertionError("an op was computed or launched")

    monkeypatch.setattr(m3ops_torch._library, "_OPERATORS", dict.fromkeys(OPS, runs))
    monkeypatch.setattr(m3ops_torch._launch, "_launch_of", runs)
    monkeypatch.setattr(m3ops_jax._primitive, "_primitive", runs)


def test_a_right_call_would_run(monkeypatch: pytest.MonkeyPatch) -> None:
    nothing_runs(monkeypatch)
    for framework, module in MODULES.items():
        with pytest.raises(AssertionError, match="computed or launched"):
            module.mxfp8_quantize(ARRAYS[framework](2, 64))


@pytest.mark.parametrize(("what", "call", "kind", "message"), WRONG, ids=[row[0] for row in WRONG])
def test_wrong_call(
    what: str,
    call: Callable[[Any, Any], Any],
    kind: type[Exception],
    message: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    nothing_runs(monkeypatch)
    errors = [error_of(call, framework) for framework in MODULES]
    assert [type(error) for error in errors] == [kind, kind]
    assert str(errors[0]) == str(errors[1])
    assert message in str(errors[0])


def test_numpy_arrays_are_not_narrowed() -> None:
    """Jnp would turn this float64 array into float32 without a word."""
    with pytest.raises(TypeError, match="gate_up must have dtype bfloat16, float16 or float32, got float64"):
        m3ops_jax.swiglu_oai(np.zeros((2, 64)))


def test_tiled_scales_that_are_not_contiguous() -> None:
    scales = torch.zeros(128, 8, dtype=torch.uint8)[:, ::2]
    with pytest.raises(ValueError, match=r"scales must be contiguous, with strides \(4, 1\), got \(8, 2\)"):
        m3ops_torch.mxfp8_dequantize(torch.zeros(2, 64).to(torch.float8_e4m3fn), scales, scale_layout="swizzle_128x4")


def test_traced_parameters() -> None:
    """Parameters are part of the compiled kernel, so a traced number is refused like any array."""
    with pytest.raises(
        TypeError, match="alpha must be a Python number, known before the kernel is compiled, got an array"
    ):
        jax.jit(lambda x, alpha: m3ops_jax.swiglu_oai(x, alpha=alpha))(jnp.zeros((2, 64)), 1.7)


def test_a_weight_on_another_device() -> None:
    with pytest.raises(ValueError, match="weight must be on the device of x, meta, got cpu"):
        m3ops_torch.gemma_rmsnorm(torch.zeros(2, 64, device="meta"), torch.zeros(64))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA or HIP device")
def test_mixed_devices() -> None:
    with pytest.raises(ValueError, match=r"weight must be on the device of x, cuda:0, got cpu"):
        m3ops_torch.gemma_rmsnorm(torch.zeros(2, 64, device="cuda"), torch.zeros(64))
