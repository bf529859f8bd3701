"""swiglu_oai_fake_quant: quantize and dequantize forward, the gradient of swiglu_oai backward."""

from __future__ import annotations

import dataclasses
import inspect
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from compare import assert_same_bytes
from differentiable import expected
from specification import reference

import m3ops_jax
import m3ops_torch
from m3ops.ops import OPS
from m3ops.testing.arrays import normal
from m3ops.tools.run import to_numpy, to_tensor

X, GRAD = normal((5, 6, 128), "bfloat16", 3.0), normal((5, 6, 64), "bfloat16", 0.5)
GIVEN = {"alpha": 1.3, "limit": 2.0, "layout": "interleaved", "scale_rule": "floor", "round_activation": True}


def forward(given: dict[str, Any]) -> np.ndarray:
    quantized = reference("swiglu_oai_quantize", X, **given)
    return np.asarray(reference("mxfp8_dequantize", *quantized, out_dtype="bfloat16")[0])


def gradient(given: dict[str, Any]) -> list[np.ndarray]:
    parameters = {field.name for field in dataclasses.fields(OPS["swiglu_oai"])}
    return expected("swiglu_oai", (X,), (GRAD,), **{k: v for k, v in given.items() if k in parameters})


@pytest.mark.parametrize("given", [{}, GIVEN], ids=["defaults", "unusual"])
def test_jax(given: dict[str, Any]) -> None:
    result, pull = jax.vjp(jax.jit(lambda x: m3ops_jax.swiglu_oai_fake_quant(x, **given)), X)
    assert_same_bytes([np.asarray(result)], [forward(given)])
    assert_same_bytes([np.asarray(pull(jnp.asarray(GRAD))[0])], gradient(given))


@pytest.mark.parametrize("given", [{}, GIVEN], ids=["defaults", "unusual"])
def test_torch(given: dict[str, Any]) -> None:
    x = to_tensor(X).requires_grad_()
    result = m3ops_torch.swiglu_oai_fake_quant(x, **given)
    assert_same_bytes([to_numpy(result.detach())], [forward(given)])
    assert_same_bytes([to_numpy(g) for g in torch.autograd.grad(result, x, to_tensor(GRAD))], gradient(given))


def test_torch_compiled() -> None:
    x = to_tensor(X).requires_grad_()
    result = torch.compile(m3ops_torch.swiglu_oai_fake_quant, fullgraph=True)(x)
    assert_same_bytes([to_numpy(result.detach())], [forward({})])
    assert_same_bytes([to_numpy(g) for g in torch.autograd.grad(result, x, to_tensor(GRAD))], gradient({}))


def test_vmap_of_grad() -> None:
    def loss(x: jax.Array, grad: jax.Array) -> jax.Array:
        return jnp.sum(m3ops_jax.swiglu_oai_fake_quant(x).astype(jnp.float32) * grad.astype(jnp.float32))

    assert_same_bytes([np.asarray(jax.jit(jax.vmap(jax.grad(loss)))(X, GRAD))], gradient({}))


def test_front_ends_are_alike() -> None:
    ours, theirs = (inspect.signature(m.swiglu_oai_fake_quant).parameters for m in (m3ops_jax, m3ops_torch))
    assert [(p.name, p.kind, p.default) for p in ours.values()] == [
        (p.name, p.kind, p.default) for p in theirs.values() if p.name != "out"
    ]


@pytest.mark.parametrize("name", ["swiglu_oai_quantize", "mxfp8_quantize"])
def test_errors_name_it(name: str) -> None:
    message = f"{name} has no derivative: rounding to MXFP8 is a step function.* as that of swiglu_oai_fake_quant does"
    with pytest.raises(TypeError, match=message):
        jax.grad(lambda x: getattr(m3ops_jax, name)(x).values.astype(jnp.float32).sum())(jnp.asarray(X))
    with pytest.raises(TypeError, match=message):
        getattr(m3ops_torch, name)(to_tensor(X).requires_grad_()).values.float().sum().backward()


def test_wrong_arguments() -> None:
    for module, x in ((m3ops_jax, X), (m3ops_torch, to_tensor(X))):
        with pytest.raises(ValueError, match=r"limit must be a finite fp32 number and > 0, got 0\.0"):
            module.swiglu_oai_fake_quant(x, limit=0.0)
        with pytest.raises(TypeError, match="alpha must be a Python number"):
            module.swiglu_oai_fake_quant(x, alpha=[1.0])


def test_torch_vmap_and_num_rows_and_out() -> None:
    """What every op takes."""
    x, number = to_tensor(X), torch.tensor([3], dtype=torch.int32)
    want = to_tensor(forward({}))
    assert_same_bytes([to_numpy(torch.func.vmap(m3ops_torch.swiglu_oai_fake_quant)(x))], [to_numpy(want)])
    out = torch.ones_like(want)
    assert m3ops_torch.swiglu_oai_fake_quant(x, num_rows=number, out=out) is out
    wanted = torch.ones_like(want)
    wanted.view(-1, 64)[:3] = want.view(-1, 64)[:3]
    assert_same_bytes([to_numpy(out)], [to_numpy(wanted)])


def test_torch_compiled_grad() -> None:
    x, weights = to_tensor(X), to_tensor(GRAD).float()
    function = torch.func.grad(lambda x: (m3ops_torch.swiglu_oai_fake_quant(x).float() * weights).sum())
    assert_same_bytes([to_numpy(torch.compile(function, fullgraph=True, backend="aot_eager")(x))], gradient({}))
