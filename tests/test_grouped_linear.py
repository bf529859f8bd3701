"""Grouped products with gradients: the same bytes from both front ends, of each group whatever its neighbours."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from compare import assert_same_bytes

import m3ops_jax
import m3ops_torch
from m3ops.ops.moe.cases_combine import permuted
from m3ops.testing.arrays import normal
from m3ops.tools.run import to_numpy, to_tensor

Array = np.ndarray

GROUPS, N, K = 5, 64, 96
SIZES = np.array([33, 0, 2, -4, 5], np.int32)
GATHERED = np.concatenate([[3, 3, 3, -1, 50, 7], permuted((50,))]).astype(np.int32)
"""Of 50 rows: some come twice or more, and two are none."""


def operands(x: tuple[int, ...], result: int, dtype: str = "bfloat16", of_w: str = "float32") -> tuple[Array, ...]:
    """A left operand, weights, and a gradient of so many rows."""
    return normal(x, dtype), normal((GROUPS, N, K), of_w), normal((result, N), dtype, 0.5)


def in_torch(x: Array, w: Array, grad: Array, sizes: Array, rows: Array | None, device: str = "cpu") -> list[Array]:
    leaves = [to_tensor(a, device).requires_grad_() for a in (x, w)]
    chosen = None if rows is None else to_tensor(rows, device)
    y = m3ops_torch.mxfp8_grouped_linear(*leaves, to_tensor(sizes, device), chosen)
    y.backward(to_tensor(grad, device))
    return [to_numpy(t.detach()) for t in (y, *(leaf.grad for leaf in leaves))]


def in_jax(x: Array, w: Array, grad: Array, sizes: Array, rows: Array | None) -> list[Array]:
    @jax.jit
    def all_of(x: Any, w: Any, grad: Any, sizes: Any, rows: Any) -> Any:
        y, pull = jax.vjp(lambda x, w: m3ops_jax.mxfp8_grouped_linear(x, w, sizes, rows), x, w)
        return y, *pull(grad)

    return [np.asarray(a) for a in all_of(x, w, grad, sizes, rows)]


def product(x: Array, w: Array, out_dtype: Any) -> Array:
    """The plain product of two matrices, quantized along their last axes."""
    q, p = (m3ops_torch.mxfp8_quantize(to_tensor(np.ascontiguousarray(a))) for a in (x, w))
    return to_numpy(m3ops_torch.mxfp8_matmul(q, p, out_dtype=getattr(torch, np.dtype(out_dtype).name)))


def expected(x: Array, w: Array, grad: Array, sizes: Array, rows: Array | None) -> list[Array]:
    """Of each group by itself, and what rows gather one after the other."""
    given = x if rows is None else x[rows.clip(0, len(x) - 1)]
    given = given if rows is None else np.where((rows >= 0)[:, None] & (rows < len(x))[:, None], given, 0)
    y, dw = np.zeros((len(given), N), x.dtype), np.zeros_like(w)
    each = np.zeros((len(given), K), x.dtype if rows is None else np.float32)
    start = 0
    for group, size in enumerate(sizes.clip(0)):
        own = slice(start, min(start + int(size), len(given)))
        start, missing = own.stop, ((0, -(own.stop - own.start) % 32), (0, 0))
        y[own] = product(given[own], w[group], x.dtype)
        each[own] = product(grad[own], w[group].T, each.dtype)
        dw[group] = product(np.pad(grad[own], missing).T, np.pad(given[own], missing).T, w.dtype)
    if rows is None:
        return [y, each, dw]
    dx = np.zeros(x.shape, np.float32)
    for row, gradient in zip(rows, each, strict=True):
        if 0 <= row < len(x):
            dx[row] += gradient
    return [y, dx.astype(x.dtype), dw]


@pytest.mark.parametrize("rows", [None, GATHERED], ids=["as they are", "gathered"])
@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
def test_a_grouped_product_and_its_gradients(dtype: str, rows: Array | None, device: str) -> None:
    """Each is a product of MXFP8, quantized along what it sums; each group's rows are padded with zeros."""
    given = operands((50, K), 50 if rows is None else len(GATHERED), dtype)
    want = expected(*given, SIZES, rows)
    for got in (in_torch(*given, SIZES, rows, device), in_jax(*given, SIZES, rows)):
        assert_same_bytes(got, want)
    assert not want[2][[1, 3]].any()


@pytest.mark.parametrize(
    ("count", "sizes"),
    [(0, [0, 3, 0, 0, 0]), (1, [0, 0, 1, 0, 0]), (96, [0, 64, 0, 32, 0]), (40, [2**31 - 1] * 5), (7, [1, 1, 1, 1, 1])],
    ids=["no rows", "one row", "whole blocks", "sizes that add up past 2**32", "one row each"],
)
def test_sizes_of_groups(count: int, sizes: list[int]) -> None:
    given = *operands((count, K), count), np.array(sizes, np.int32), None
    want = expected(*given)
    assert_same_bytes(in_torch(*given), want)
    assert_same_bytes(in_jax(*given), want)


def test_rows_of_an_x_without_rows() -> None:
    given = *operands((0, K), 3), np.array([2, 0, 1, 0, 0], np.int32), np.array([0, -1, 5], np.int32)
    for got in (in_torch(*given), in_jax(*given)):
        assert [a.shape for a in got] == [(3, N), (0, K), (GROUPS, N, K)]
        assert not any(a.any() for a in got)


@pytest.mark.parametrize("run", [in_torch, in_jax])
def test_the_gradient_of_a_weight_does_not_depend_on_other_groups(run: Any) -> None:
    """Nor on rows that are in none: all of them are NaN here, and others are before it and behind."""
    x, w, grad = operands((50, K), 50)
    alone = run(x[7:47], w, grad[7:47], np.array([0, 0, 40, 0, 0], np.int32), None)[2][2]
    nan = np.full((50, 1), np.nan, x.dtype)
    nan[7:47] = 0
    for sizes in ([7, 0, 40, 0, 3], [3, 4, 40, 2, 0]):
        got = run(x + nan, w, grad + nan, np.array(sizes, np.int32), None)[2]
        assert_same_bytes([got[2]], [alone])
        assert np.isnan(got[0].astype(np.float32)).all()


def test_fast_arithmetic_and_another_rule() -> None:
    """On a CPU the bytes of exact arithmetic; the rule is that of every rounding."""
    x, w, grad = map(jnp.asarray, operands((50, K), 50))

    def gradients(**given: str) -> list[Array]:
        y, pull = jax.vjp(lambda x, w: m3ops_jax.mxfp8_grouped_linear(x, w, SIZES, **given), x, w)
        return [np.asarray(a) for a in (y, *pull(grad))]

    exact = gradients()
    assert_same_bytes(gradients(arithmetic="fast"), exact)
    for got, other in zip(gradients(scale_rule="floor"), exact, strict=True):
        assert (got != other).any()


def test_only_gradients_that_are_asked_for_are_computed(monkeypatch: pytest.MonkeyPatch) -> None:
    x, w, grad = map(to_tensor, operands((50, K), 50))
    calls = []
    for name in ("mxfp8_k_grouped_matmul", "mxfp8_grouped_matmul"):
        function = getattr(m3ops_torch, name)
        monkeypatch.setattr(m3ops_torch, name, lambda *a, f=function, n=name, **k: (calls.append(n), f(*a, **k))[1])
    for leaf, want in ((x, "mxfp8_grouped_matmul"), (w, "mxfp8_k_grouped_matmul")):
        leaf.requires_grad_()
        y = m3ops_torch.mxfp8_grouped_linear(x, w, to_tensor(SIZES))
        calls.clear()
        y.backward(grad)
        leaf.requires_grad_(False)
        assert calls == [want]


def test_a_compiled_grouped_product(device: str) -> None:
    given = [to_tensor(a, device) for a in (*operands((50, K), len(GATHERED)), SIZES, GATHERED)]
    x, w, grad, *others = given
    results = []
    for call in (
        m3ops_torch.mxfp8_grouped_linear,
        torch.compile(m3ops_torch.mxfp8_grouped_linear, fullgraph=True, backend="aot_eager"),
    ):
        leaves = [t.clone().requires_grad_() for t in (x, w)]
        call(*leaves, *others).backward(grad)
        results.append([to_numpy(leaf.grad) for leaf in leaves])
    assert_same_bytes(results[1], results[0])


# --- A mixture of experts that trains ---------------------------------------------------------------------------------


def mixture(ops: Any, x: Any, logits: Any, bias: Any, w13: Any, w2: Any) -> Any:
    """As the pages of both front ends have it."""
    ids, weights = ops.moe_route(logits, bias, top_k=2)
    rows, slots, sizes = ops.moe_sort(ids, len(w13), tokens=True)
    gate_up = ops.mxfp8_grouped_linear(x, w13, sizes, rows)
    y = ops.mxfp8_grouped_linear(ops.swiglu_oai(gate_up), w2, sizes)
    return ops.moe_combine(y, slots, weights)


def test_both_front_ends_train_a_mixture_of_experts_alike(device: str) -> None:
    """The gradients of tokens, logits and weights have the same bytes; expert 5 has no token."""
    x, grad = normal((23, 64), "bfloat16"), normal((23, 64), "bfloat16", 0.5)
    bias = np.where(np.arange(6) == 5, -9, 0).astype(np.float32)
    leaves = x, normal((23, 6), "float32"), normal((6, 128, 64), "float32", 0.2), normal((6, 64, 64), "float32", 0.2)

    def in_order(ops: Any, bias: Any, x: Any, logits: Any, w13: Any, w2: Any) -> Any:
        return mixture(ops, x, logits, bias, w13, w2)

    tensors = [to_tensor(leaf, device).requires_grad_() for leaf in leaves]
    y = in_order(m3ops_torch, to_tensor(bias, device), *tensors)
    y.backward(to_tensor(grad, device))
    of_torch = [to_numpy(t.detach()) for t in (y, *(tensor.grad for tensor in tensors))]

    @jax.jit
    def of_jax(grad: Any, *leaves: Any) -> Any:
        y, pull = jax.vjp(lambda *leaves: in_order(m3ops_jax, bias, *leaves), *leaves)
        return y, *pull(grad)

    assert_same_bytes([np.asarray(a) for a in of_jax(grad, *leaves)], of_torch)
    for gradient in of_torch[3:]:
        assert gradient[:5].any(axis=(1, 2)).all()
        assert not gradient[5].any()


def test_weights_that_all_devices_have_get_the_sum_of_gradients() -> None:
    """Rows divided by ``shard_map``, weights replicated, as in data parallelism."""
    auto = (jax.sharding.AxisType.Auto,)
    mesh = jax.make_mesh((2,), ("d",), axis_types=auto, devices=jax.devices("cpu")[:2])
    x, w, grad = operands((64, K), 64)
    sizes = np.array([20, 0, 12, 0, 0], np.int32)

    def of(layer: Any, w: Any, *more: Any) -> tuple[Any, Any, Any]:
        def gradients(x: Any, w: Any, grad: Any) -> Any:
            return jax.grad(lambda x, w: jnp.vdot(layer(x, w, *more), grad).astype(jnp.float32), (0, 1))(x, w)

        parts = jax.sharding.PartitionSpec("d"), jax.sharding.PartitionSpec(), jax.sharding.PartitionSpec("d")
        mapped = jax.shard_map(gradients, mesh=mesh, in_specs=parts, out_specs=parts[:2])
        each = [gradients(x[rows], w, grad[rows]) for rows in (slice(0, 32), slice(32, 64))]
        return jax.jit(mapped)(x, w, grad), np.concatenate([a for a, _ in each]), sum(np.asarray(b) for _, b in each)

    for got, of_x, of_w in (of(m3ops_jax.mxfp8_grouped_linear, w, sizes), of(m3ops_jax.mxfp8_linear, w[0])):
        assert_same_bytes([np.asarray(got[0]), np.asarray(got[1])], [of_x, of_w])


@pytest.mark.parametrize("empty", ["N", "K"])
def test_empty_axes(empty: str) -> None:
    n, k = (0, K) if empty == "N" else (N, 0)
    x, w, grad = normal((40, k), "float32"), normal((GROUPS, n, k), "float32"), normal((40, n), "float32")
    want = [np.zeros_like(grad), np.zeros_like(x), np.zeros_like(w)]
    assert_same_bytes(in_torch(x, w, grad, SIZES, None), want)
    assert_same_bytes(in_jax(x, w, grad, SIZES, None), want)
    leaves = [to_tensor(a).requires_grad_() for a in (x, w[0])]
    m3ops_torch.mxfp8_linear(*leaves).backward(to_tensor(grad))
    assert_same_bytes([to_numpy(leaf.grad) for leaf in leaves], [want[1], want[2][0]])
    pulled = jax.vjp(m3ops_jax.mxfp8_linear, jnp.asarray(x), jnp.asarray(w[0]))[1](jnp.asarray(grad))
    assert_same_bytes([*map(np.asarray, pulled)], [want[1], want[2][0]])
