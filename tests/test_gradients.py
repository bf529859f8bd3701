"""Gradients: float64 formulas with derived bounds, the same bytes from both frameworks, and corners."""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
import torch
from compare import assert_same_bytes
from differentiable import DIFFERENTIABLE, arguments, cotangents, every_differentiable_op, expected, floats
from oracles import SMALLEST_WORST, U, gate_bound, norm_rows, tail
from specification import reference

import m3ops_jax
import m3ops_torch
from m3ops.numerics.row_sums import FAN_IN, partials
from m3ops.ops import EVERY_OP, OPS
from m3ops.testing.arrays import normal
from m3ops.tools.run import to_numpy, to_tensor
from m3ops_jax import _call as jax_call
from m3ops_torch import _call as torch_call

Array = np.ndarray


def of_jax(name: str, inputs: tuple[Array, ...], grads: tuple[Array, ...], **given: Any) -> list[Array]:
    def gradients(inputs: Any, grads: Any) -> Any:
        _, pull = jax.vjp(lambda *arrays: floats(getattr(m3ops_jax, name)(*arrays, **given)), *inputs)
        return [gradient for gradient in pull(list(grads)) if gradient.dtype != jax.dtypes.float0]

    return [np.asarray(g) for g in jax.jit(gradients)(inputs, grads)]


def of_torch(name: str, inputs: tuple[Array, ...], grads: tuple[Array, ...], **given: Any) -> list[Array]:
    tensors = [*map(to_tensor, inputs)]
    leaves = [tensor.requires_grad_() for tensor in floats(tensors)]
    results = floats(getattr(m3ops_torch, name)(*tensors, **given))
    return [to_numpy(g) for g in torch.autograd.grad(results, leaves, [to_tensor(g) for g in grads])]


# --- both frameworks -------------------------------------------------------------------------------------------------


CALLS = [(name, "bfloat16") for name in DIFFERENTIABLE] + [("gemma_fused_add_rmsnorm", "float32")]


@pytest.mark.parametrize(("name", "dtype"), CALLS)
def test_gradients_have_the_same_bytes_in_both_frameworks(name: str, dtype: str) -> None:
    inputs = arguments(name, dtype)
    grads = cotangents(name, inputs)
    want = expected(name, inputs, grads)
    assert [(g.shape, g.dtype) for g in want] == [(a.shape, a.dtype) for a in floats(inputs)]
    assert_same_bytes(of_jax(name, inputs, grads), want)
    assert_same_bytes(of_torch(name, inputs, grads), want)


UNUSUAL: dict[str, dict[str, Any]] = {
    "swiglu_oai": {"alpha": 1.3, "beta": -0.5, "limit": None, "layout": "interleaved", "groups": 2},
    "swiglu_oai_fake_quant": {"alpha": 1.3, "groups": 2, "scale_rule": "floor"},
    "gemma_rmsnorm": {"eps": 0.4},
    "gemma_fused_add_rmsnorm": {"weight_offset": 0.0},
    "moe_combine": {"scale": 0.7},
}


@pytest.mark.parametrize(("name", "given"), UNUSUAL.items(), ids=UNUSUAL)
def test_parameters_reach_the_gradient(name: str, given: dict[str, Any]) -> None:
    inputs = arguments(name)
    grads = cotangents(name, inputs, **given)
    want = expected(name, inputs, grads, **given)
    assert not np.array_equal(want[0], expected(name, inputs, grads)[0])
    assert_same_bytes(of_jax(name, inputs, grads, **given), want)
    assert_same_bytes(of_torch(name, inputs, grads, **given), want)


@pytest.mark.parametrize("name", ["swiglu_oai", "moe_combine"])
def test_a_gradient_comes_in_the_dtype_of_the_result(name: str) -> None:
    inputs = arguments(name)
    grads = cotangents(name, inputs, out_dtype="float32")
    assert grads[0].dtype == np.float32
    want = expected(name, inputs, grads, out_dtype="float32")
    assert_same_bytes(of_jax(name, inputs, grads, out_dtype=jnp.float32), want)
    assert_same_bytes(of_torch(name, inputs, grads, out_dtype=torch.float32), want)


WEIGHTS = [("gemma_rmsnorm", shape) for shape in ((6, 64), (5, 1, 64), (5, 6, 64), (1, 1, 64))]


@pytest.mark.parametrize(("name", "shape"), [*WEIGHTS, ("gemma_fused_add_rmsnorm", (1, 6, 64))])
def test_a_weight_with_rows_of_its_own(name: str, shape: tuple[int, ...]) -> None:
    *rows, _ = arguments(name)
    inputs = (*rows, normal(shape, "float16", 0.5))
    grads = cotangents(name, inputs)
    want = expected(name, inputs, grads)
    assert want[-1].shape == shape
    assert_same_bytes(of_jax(name, inputs, grads), want)
    assert_same_bytes(of_torch(name, inputs, grads), want)
    groups = np.broadcast_to(inputs[-1], rows[0].shape).reshape(-1, 64)  # each weight row's own rows, one by one
    own = [np.zeros(64) for _ in range(int(np.prod(shape[:-1])))]
    index = np.broadcast_to(np.arange(len(own)).reshape(shape[:-1]), rows[0].shape[:-1]).ravel()
    flat_rows = [a.reshape(-1, 64) for a in (*rows, *grads)]
    for r in range(groups.shape[0]):
        one = tuple(a[r : r + 1] for a in flat_rows)
        part = expected(name, (*one[: len(rows)], groups[r].astype("float32")), one[len(rows) :])[-1]
        own[index[r]] += part
    # Each rounds at most 30 products to fp32 in some order, and once to fp16.
    np.testing.assert_allclose(want[-1].reshape(-1, 64), own, rtol=2.0**-10, atol=2.0**-10)


@every_differentiable_op
@pytest.mark.parametrize("rows", [0, 1])
def test_few_rows(name: str, rows: int) -> None:
    inputs = tuple(a[:rows, 0] if a.ndim == 3 else a for a in arguments(name))
    grads = cotangents(name, inputs)
    want = expected(name, inputs, grads)
    assert_same_bytes(of_jax(name, inputs, grads), want)
    assert_same_bytes(of_torch(name, inputs, grads), want)
    assert rows or not any(g.any() for g in want)


# --- float64 ---------------------------------------------------------------------------------------------------------


def worst(got: Array, want: Array, allowed: Array) -> float:
    """The largest error as a part of what is allowed, which it must not exceed."""
    part = np.abs(got.astype(np.float64) - want) / allowed
    assert part.max() <= 1, f"{part.max()} of what is allowed at {np.unravel_index(part.argmax(), part.shape)}"
    return float(part.max())


@pytest.mark.parametrize("limit", [7.0, None])
def test_swiglu_in_float64(limit: float | None) -> None:
    """Each rounding is one U of what is rounded; the sigmoid s and exp(-z) have the errors that gate_bound derives.

    1 - s = exp(-z) * s sums both of these and a product (1); times the gate (1) and alpha, rounded (1), it is added to
    1 by an fma (1). s times that (1), up + beta (1), their product (1), and its product with the gradient (1).
    """
    rng = np.random.default_rng(11)
    gate, up, grad = (rng.standard_normal((40, 4096)) * scale for scale in (6, 5, 1))
    gate, up, grad = (a.astype(np.float32) for a in (gate, up, grad))
    given = {"alpha": 1.702, "beta": 1.0, "limit": limit}
    (got,) = reference("swiglu_oai_backward", np.concatenate([gate, up], axis=-1), grad, **given)
    bound = np.inf if limit is None else limit
    g, u = np.minimum(gate, bound).astype(np.float64), np.clip(up, -bound, bound).astype(np.float64)
    z, dy = 1.702 * g, grad.astype(np.float64)
    s, rest = 1 / (1 + np.exp(-z)), 1 / (1 + np.exp(z))
    of_s, of_exp = gate_bound(g, 1.702) - 1, 3.0 + np.abs(z)
    factor = np.abs(dy * (u + 1) * s)
    want = dy * (u + 1) * s * (1 + z * rest) * (gate <= bound)
    allowed = factor * (np.abs(z * rest) * (of_s + of_exp + 3) + np.abs(1 + z * rest) * (of_s + 5)) * U
    assert worst(got[:, :4096], want, allowed + 2.0**-126) >= SMALLEST_WORST
    want = dy * g * s * (np.abs(up) <= bound)
    assert worst(got[:, 4096:], want, np.abs(dy * g * s) * (of_s + 2) * U + tail(g, 1.702)) >= SMALLEST_WORST


def norm_gradients_in_float64(x: Array, weight: Array, grad: Array, eps: float, offset: float) -> tuple[Array, ...]:
    """``(rstd, n, h, mean of |h n|, gradient)``."""
    x, weight, grad = (a.astype(np.float64) for a in (x, weight, grad))
    rstd = 1 / np.sqrt(np.mean(x * x, axis=-1, keepdims=True) + eps)
    n, h = x * rstd, grad * (offset + weight)
    mean = np.mean(h * n, axis=-1, keepdims=True)
    return rstd, n, h, np.mean(np.abs(h * n), axis=-1, keepdims=True), rstd * (h - n * mean)


def rstd_bound(n: int) -> float:
    """What norm_bound derives for rstd."""
    groups = -(-n // 8)
    return 6 + groups / 1024 + groups / 2**17


@pytest.mark.parametrize("offset", [1.0, 0.0])
@pytest.mark.parametrize(("n", "rows"), [(1, 8000), (8, 4000), (100, 1000), (128, 1000), (3072, 40), (131072, 2)])
def test_norms_in_float64(n: int, rows: int, offset: float) -> None:
    """Errors in U, with R that of rstd: n has R + 1, h 2, their product groups 4 of their own.

    Of the sum of magnitudes A the groups lose G / 512 to the grid (as squares do, G being their number), the sums of
    coarse and fine grid units 1 + G / 2**16, their fma 1. Times 1/n, rounded: 2. So the mean is off by
    (R + 11 + G / 512 + G / 2**16) A / n. Then n * mean has R + 1 of n beside that, h its 2, the fma 1, rstd R, the last
    product 1.
    """
    rng = np.random.default_rng(12)
    x = norm_rows(rng, n, rows)
    weight, grad = rng.uniform(-1, 1, n).astype(np.float32), rng.standard_normal(x.shape).astype(np.float32)
    grad[::3] += weight * x[::3]  # gradients that are not nearly orthogonal to x
    got, _ = reference("gemma_rmsnorm_backward", x, weight, grad, eps=1e-6, weight_offset=offset)
    rstd, normalized, h, magnitude, want = norm_gradients_in_float64(x, weight, grad, 1e-6, offset)
    groups, r = -(-n // 8), rstd_bound(n)
    of_mean = magnitude * (2 * r + 12 + groups / 512 + groups / 2**16)
    allowed = rstd * (np.abs(normalized) * of_mean + 2 * np.abs(h)) + (r + 2) * np.abs(want)
    assert worst(got, want, allowed * U + 2.0**-140) >= (SMALLEST_WORST if n > 1 else 0) / 4


@pytest.mark.parametrize(
    ("n", "rows", "smallest"), [(8000, 1, 0.15), (2048, 16, 0.01), (2048, 600, 0.001), (20, 2000, 0.001)]
)
def test_weight_gradients_in_float64(n: int, rows: int, smallest: float) -> None:
    """A term is rounded with n (R + 1), in its chain of fma and in the chains of sums, at most once for each link.

    Errors of many terms are far from adding up, so what is seen is far below the bound for many rows.
    """
    rng = np.random.default_rng(13)
    x, grad = (rng.standard_normal((rows, n)).astype(np.float32) for _ in range(2))
    _, got = reference("gemma_rmsnorm_backward", x, np.zeros(n, np.float32), grad, eps=1e-6)
    _, normalized, *_ = norm_gradients_in_float64(x, np.zeros(n), grad, 1e-6, 1.0)
    number = partials(rows, n)
    links = -(-rows // number)
    while number > FAN_IN**2:
        links, number = links + FAN_IN, number // FAN_IN
    links += min(number, FAN_IN) + math.log2(max(number // FAN_IN, 1))  # the last chain, then halves
    products = grad * normalized
    allowed = np.abs(products).sum(axis=0) * (rstd_bound(n) + 1 + links) * U
    assert worst(got, products.sum(axis=0), allowed) >= smallest


# --- corners ---------------------------------------------------------------------------------------------------------


def swiglu_gradient(gate: list[float], up: list[float], grad: float, **given: Any) -> tuple[Array, Array]:
    gate_up = np.array([*gate, *up], np.float32)
    (got,) = reference("swiglu_oai_backward", gate_up, np.full(len(gate), grad, np.float32), **given)
    return got[: len(gate)], got[len(gate) :]


def test_the_gradient_passes_at_the_bound_and_not_beyond() -> None:
    above, below = float(np.nextafter(np.float32(7), np.float32(8))), float(np.nextafter(np.float32(7), np.float32(0)))
    of_gate, _ = swiglu_gradient([below, 7.0, above, np.inf, -above, -np.inf], [0.5] * 6, 2.0)
    assert (of_gate[:2] > 1).all()
    assert not of_gate[2:4].view(np.uint32).any()  # +0
    assert (of_gate[4:] != 0).all()  # the gate is clamped from above only
    _, of_up = swiglu_gradient([0.5] * 8, [below, 7.0, above, np.inf, -below, -7.0, -above, -np.inf], -2.0)
    assert (of_up[[0, 1, 4, 5]] < -0.5).all()
    assert not of_up[[2, 3, 6, 7]].view(np.uint32).any()


def test_nan_and_infinity_of_gate_and_up() -> None:
    nan, inf = np.nan, np.inf
    of_gate, of_up = swiglu_gradient([nan, 1.0, 9.0, 1.0, 9.0], [1.0, nan, nan, 9.0, 9.0], 1.0)
    np.testing.assert_array_equal(np.isnan(of_gate), [True, True, False, False, False])
    np.testing.assert_array_equal(np.isnan(of_up), [True, False, False, False, False])
    of_gate, of_up = swiglu_gradient([9.0, 9.0, 1.0], [9.0, 1.0, 9.0], nan)  # a clamp cuts off a NaN gradient too
    np.testing.assert_array_equal([of_gate[:2], of_up[::2]], 0)
    assert np.isnan([of_gate[2], of_up[1]]).all()
    of_gate, of_up = swiglu_gradient([inf, -inf, 3e38], [1.0, 1.0, 1.0], 1.0, limit=None)
    # A gate below the sigmoid's range counts as the lowest in it, where the factor is a little more than 0.
    np.testing.assert_array_equal([of_gate[::2], of_up[::2]], [[2.0, 2.0], [inf, np.float32(3e38)]])
    assert max(abs(of_gate[1]), abs(of_up[1])) < 2.0**-110


def test_rows_do_not_touch_each_other() -> None:
    """NaN, infinity and overflow stay in their row of the gradient of x; they are in every column of the weight's."""
    x, grad = normal((6, 64), "float32"), normal((6, 64), "float32", 0.5)
    x[0, 3], x[1, 5], grad[2, 7], grad[3, 9] = np.nan, np.inf, np.nan, np.inf
    x[4] *= 1e20  # its squares overflow: rstd is 0
    got, of_weight = reference("gemma_rmsnorm_backward", x, np.zeros(64, np.float32), grad, eps=1e-6)
    assert np.isnan(got[:4]).all()
    assert not got[4].any()
    alone = reference("gemma_rmsnorm_backward", x[5:], np.zeros(64, np.float32), grad[5:], eps=1e-6)
    assert_same_bytes([got[5:]], alone[:1])
    assert np.isnan(of_weight).all()


def test_one_gradient_serves_x_and_the_residual() -> None:
    inputs = arguments("gemma_fused_add_rmsnorm", "float32")
    norm = (inputs[0] + inputs[1], inputs[2])
    grads = cotangents("gemma_fused_add_rmsnorm", inputs)
    of_x, of_residual, of_weight = expected("gemma_fused_add_rmsnorm", inputs, grads)
    assert_same_bytes([of_x], [of_residual])
    of_norm, of_norms_weight = expected("gemma_rmsnorm", norm, grads[:1])
    assert_same_bytes([of_weight], [of_norms_weight])
    # of_norm rounds the product that of_x has in one fma with the other gradient.
    worst(of_x, of_norm.astype(np.float64) + grads[1], U * (np.abs(of_x) + np.abs(of_norm)).astype(np.float64))


@pytest.mark.parametrize(("of_x", "of_residual"), [("bfloat16", "float32"), ("float32", "float16")])
def test_a_gradient_has_the_dtype_of_what_it_is_of(of_x: str, of_residual: str) -> None:
    name = "gemma_fused_add_rmsnorm"
    x, residual, weight = arguments(name)
    inputs = x.astype(of_x), residual.astype(of_residual), weight
    grads = cotangents(name, inputs)
    want = expected(name, inputs, grads)
    assert [gradient.dtype.name for gradient in want[:2]] == [of_x, of_residual]
    of_jax = jax.vjp(m3ops_jax.gemma_fused_add_rmsnorm, *inputs)[1](tuple(map(jnp.asarray, grads)))
    assert_same_bytes([*map(np.asarray, of_jax)], want)
    tensors = [to_tensor(array).requires_grad_() for array in inputs]
    torch.autograd.backward(m3ops_torch.gemma_fused_add_rmsnorm(*tensors), [*map(to_tensor, grads)])
    assert_same_bytes([to_numpy(tensor.grad) for tensor in tensors], want)


@pytest.mark.parametrize("number", [0, 1])
def test_a_result_that_nobody_uses_has_gradient_zero(number: int) -> None:
    name = "gemma_fused_add_rmsnorm"
    inputs = arguments(name)
    grads = [np.zeros_like(g) if i != number else g for i, g in enumerate(cotangents(name, inputs))]
    want = expected(name, inputs, tuple(grads))
    weights = jnp.asarray(grads[number])
    of_jax = jax.grad(lambda *a: jnp.sum(m3ops_jax.gemma_fused_add_rmsnorm(*a)[number] * weights), (0, 1, 2))(*inputs)
    assert_same_bytes([*map(np.asarray, of_jax)], want)
    tensors = [to_tensor(a).requires_grad_() for a in inputs]
    m3ops_torch.gemma_fused_add_rmsnorm(*tensors)[number].backward(to_tensor(grads[number]))
    assert_same_bytes([to_numpy(t.grad) for t in tensors], want)
    assert tensors[0].grad.data_ptr() != tensors[1].grad.data_ptr(), "one would change with the other"


def test_errors_of_gradients() -> None:
    gate_up, grad = normal((4, 64), "bfloat16"), normal((4, 16), "bfloat16")
    op = EVERY_OP["swiglu_oai_backward"].of()
    with pytest.raises(
        ValueError, match=r"grad must have shape \(4, 32\) for gate_up of shape \(4, 64\), got \(4, 16\)"
    ):
        torch_call.run(op, to_tensor(gate_up), to_tensor(grad))
    with pytest.raises(TypeError, match="grad must have dtype bfloat16, float16 or float32, got float8_e4m3fn"):
        jax_call.run(op, gate_up, np.zeros((4, 32), ml_dtypes.float8_e4m3fn))
    norm = EVERY_OP["gemma_fused_add_rmsnorm_backward"].of()
    arrays = [*arguments("gemma_fused_add_rmsnorm"), normal((5, 6, 64), "bfloat16"), normal((5, 6, 64), "float32")]
    with pytest.raises(TypeError, match="grad_new_residual must have the dtype of residual, bfloat16, got float32"):
        jax_call.run(norm, *arrays)


@every_differentiable_op
def test_there_is_no_second_derivative(name: str) -> None:
    first, *others = arguments(name)
    derivative = OPS[name].of().derivative
    assert derivative is not None
    message = f"({name}|{derivative.op.name.removesuffix('_backward')}) has no second derivative"

    def slope(x: Any) -> Any:
        return jax.grad(lambda x: floats(getattr(m3ops_jax, name)(x, *others))[0].astype(jnp.float32).sum())(x)

    with pytest.raises(NotImplementedError, match=message):
        jax.grad(lambda x: slope(x).astype(jnp.float32).sum())(first)
    tensor, rest = to_tensor(first).requires_grad_(), [to_tensor(a) for a in others]
    result = floats(getattr(m3ops_torch, name)(tensor, *rest))[0]
    (gradient,) = torch.autograd.grad(result.float().sum(), tensor, create_graph=True)
    with pytest.raises(NotImplementedError, match=message):
        gradient.float().sum().backward()
