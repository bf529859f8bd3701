"""Layers made of several ops: the same bytes from both front ends, for a token whatever its company."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any
from unittest import mock

import chex
import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
import torch
from compare import assert_same_bytes
from flax import nnx
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P
from specification import reference
from test_jax_sharding import DEVICES

import m3ops_jax
import m3ops_torch
from m3ops import layers
from m3ops.checkpoint import MoEWeights
from m3ops.numerics.exact import functions
from m3ops.testing.arrays import normal
from m3ops.testing.case import digest
from m3ops.testing.cases import golden
from m3ops.testing.layer import HIDDEN, INNER, LAYER, SPECIFICATION, arrays, compute
from m3ops.tools.run import to_numpy, to_tensor
from m3ops_jax.nnx import MoE

Arrays = dict[str, Any]


def in_torch(arrays: Arrays, device: str = "cpu", **given: Any) -> np.ndarray:
    return to_numpy(compute(m3ops_torch, *(to_tensor(a, device) for a in arrays.values()), **given))


def in_jax(arrays: Arrays, **given: Any) -> np.ndarray:
    return np.asarray(jax.jit(lambda *own: compute(m3ops_jax, *own, **given))(*arrays.values()))


def alone(arrays: Arrays) -> Arrays:
    """Without the shared expert."""
    return {name: array for name, array in arrays.items() if not name.startswith("shared")}


def test_both_front_ends_give_the_published_bytes(device: str) -> None:
    assert_same_bytes([in_torch(arrays(), device)], [in_jax(arrays())])
    assert digest([in_torch(arrays(), device)]) == golden()[LAYER.id]


def stacked(arrays: Arrays) -> Arrays:
    """With the shared expert as the last of the others."""
    shared = {name: arrays[f"shared_{name}"] for name in ("w13", "w2")}
    return alone(arrays) | {name: np.concatenate([arrays[name], w[None]]) for name, w in shared.items()}


@pytest.mark.parametrize("tokens", [13, 1, 0])
def test_a_shared_expert_in_the_stack_gives_the_same_bytes(tokens: int, device: str) -> None:
    x = arrays()["x"][:tokens]
    for own in ({**arrays(), "x": x}, {**arrays(), "x": x.reshape(1, tokens, HIDDEN)}):
        want = [compute(SPECIFICATION, *own.values())]
        for got in (in_torch(stacked(own), device, shared_in_stack=True), in_jax(stacked(own), shared_in_stack=True)):
            assert_same_bytes([got], want)


def test_both_front_ends_give_the_same_bytes_without_a_shared_expert(device: str) -> None:
    given = {"top_k": 2, "scale": 1.0}
    want = [compute(SPECIFICATION, *alone(arrays()).values(), **given)]
    for got in (in_torch(alone(arrays()), device, **given), in_jax(alone(arrays()), **given)):
        assert_same_bytes([got], want)


def test_the_gradient_of_the_routers_logits_is_that_of_the_weights(device: str) -> None:
    """The products have none: it comes through the weights of what the experts return."""
    given, logits = arrays(), normal((13, 6), "float32")
    quantized = [given[name] for name in ("w13", "w2", "shared_w13", "shared_w2")]

    def layer(ops: Any, x: Any, bias: Any, weights: Any, logits: Any) -> Any:
        w13, w2, *shared = map(ops.mxfp8_quantize, weights)
        return ops.moe_layer(x, logits, bias, w13, w2, tuple(shared))

    def jitted(logits: jax.Array) -> jax.Array:
        return layer(m3ops_jax, given["x"], given["bias"], quantized, logits)

    grad = normal((13, HIDDEN), "bfloat16")
    (of_jax,) = jax.jit(lambda logits, grad: jax.vjp(jitted, logits)[1](grad))(logits, grad)
    x, bias, *weights = (to_tensor(a, device) for a in (given["x"], given["bias"], *quantized))
    leaf = to_tensor(logits, device).requires_grad_()
    layer(m3ops_torch, x, bias, weights, leaf).backward(to_tensor(grad, device))
    want = layer_gradient(given, logits, grad)
    assert_same_bytes([np.asarray(of_jax), to_numpy(leaf.grad)], [want, want])


def layer_gradient(given: Arrays, logits: np.ndarray, grad: np.ndarray) -> np.ndarray:
    """The specification's gradient of the logits."""
    called: dict[str, Any] = {}

    def moe_combine(y: Any, slots: Any, weights: Any, shared: Any, *, scale: float) -> Any:
        called["grad"] = reference("moe_combine_backward", y, slots, weights, grad, scale=scale)[1]
        return SPECIFICATION.moe_combine(y, slots, weights, shared, scale=scale)

    ops = SimpleNamespace(**{**vars(SPECIFICATION), "moe_combine": moe_combine})
    w13, w2, *shared = map(ops.mxfp8_quantize, (given[n] for n in ("w13", "w2", "shared_w13", "shared_w2")))
    defaults = {"top_k": 4, "scale": 2.0, "arithmetic": "exact", "shared_in_stack": False, "devices": None}
    layers.moe_layer(ops, given["x"], logits, given["bias"], w13, w2, tuple(shared), **defaults)
    return reference("moe_route_backward", logits, given["bias"], called["grad"])[0]


def test_a_token_does_not_depend_on_its_company() -> None:
    whole = in_torch(arrays())
    for tokens in (slice(0, 1), slice(7, 8), slice(3, 11)):
        assert_same_bytes([in_torch({**arrays(), "x": arrays()["x"][tokens]})], [whole[tokens]])


def test_leading_axes_and_quantized_tokens() -> None:
    x, *others = (to_tensor(array) for array in arrays().values())
    want = compute(m3ops_torch, x[:12], *others)
    split = x[:12].reshape(3, 4, HIDDEN)
    w13, w2, *shared = map(m3ops_torch.mxfp8_quantize, others[2:])
    tokens, logits = m3ops_torch.mxfp8_quantize(split), m3ops_torch.moe_logits(split, others[0])
    quantized = m3ops_torch.moe_layer(tokens, logits, others[1], w13, w2, (shared[0], shared[1]))
    for each in (compute(m3ops_torch, split, *others), quantized):
        assert each.shape == (3, 4, HIDDEN)
        assert torch.equal(each.reshape(12, HIDDEN).view(torch.int16), want.view(torch.int16))


def test_against_float64() -> None:
    """The layer in float64, of operands that are rounded as it rounds them, up to the bfloat16 between its products."""

    def rounded(a: np.ndarray) -> np.ndarray:
        q = m3ops_torch.mxfp8_quantize(to_tensor(np.ascontiguousarray(a, np.float32)))
        return functions.dequantize_blocks(to_numpy(q.values), to_numpy(q.scales))

    def expert(x: np.ndarray, w13: np.ndarray, w2: np.ndarray) -> np.ndarray:
        gate_up = (rounded(x) @ rounded(w13).T).astype(ml_dtypes.bfloat16).astype(np.float64)
        gate, up = np.minimum(gate_up[..., :INNER], 7), np.clip(gate_up[..., INNER:], -7, 7)
        inner = (up + 1) * gate / (1 + np.exp(-1.702 * gate))
        return rounded(inner) @ rounded(w2).T

    a = arrays()
    score = 1 / (1 + np.exp(-(a["x"].astype(np.float64) @ a["router"].T)))
    chosen = np.argsort(-(score + a["bias"]), axis=-1)[:, :4]
    want = expert(a["x"], a["shared_w13"], a["shared_w2"])
    for token, ids in enumerate(chosen):
        weights = score[token, ids] / score[token, ids].sum()
        for weight, own in zip(weights, ids, strict=True):
            want[token] += 2 * weight * expert(a["x"][token : token + 1], a["w13"][own], a["w2"][own])[0]
    # E4M3 values of the inner rows may fall to the other side of a tie, a sixteenth of them; so it is the whole
    # that is compared.
    error = np.linalg.norm(in_torch(a).astype(np.float64) - want) / np.linalg.norm(want)
    assert error < 2.0**-7


def test_wrong_layers_are_refused() -> None:
    for m, convert in ((m3ops_torch, to_tensor), (m3ops_jax, np.asarray)):
        own = {name: convert(array) for name, array in arrays().items()}
        with pytest.raises(TypeError, match="w13 must be an MXFP8"):
            m.moe_layer(own["x"], m.moe_logits(own["x"], own["router"]), own["bias"], own["w13"], own["w2"])


@pytest.mark.parametrize("m", [m3ops_torch, m3ops_jax])
def test_nothing_is_launched_before_all_is_checked(m: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    x, router, bias, *own = map(to_tensor if m is m3ops_torch else jnp.asarray, arrays().values())
    logits, (w13, w2, *shared) = m.moe_logits(x, router), map(m.mxfp8_quantize, own)
    packed = m.mxfp8_quantize(x[:12].reshape(2, 6, HIDDEN), scale_layout="packed_ue8m0")
    flat = m.MXFP8(shared[0].values[0, 0], shared[0].scales[0, 0])
    launched = mock.Mock(side_effect=AssertionError("launched"))
    monkeypatch.setattr(m, "mxfp8_quantize", launched)
    monkeypatch.setattr(m, "moe_route", launched)

    def refused(kind: type[Exception], message: str, **changed: Any) -> None:
        given = {"x": x, "logits": logits, "bias": bias, "w13": w13, "w2": w2, "shared": tuple(shared), **changed}
        with pytest.raises(kind, match=message):
            m.moe_layer(**given)

    refused(ValueError, "top_k must be at least 1, got 0", top_k=0)
    refused(ValueError, "top_k", top_k=logits.shape[-1] + 1)
    refused(ValueError, "bias must have shape", bias=bias[:-1])
    refused(TypeError, "shared\\[1\\] must be an MXFP8", shared=(shared[0], x))
    refused(ValueError, r"shared\[0\] must have shape", shared=(flat, shared[1]))
    refused(TypeError, "w2_values must be an array, got NoneType", w2=m.MXFP8(None, None))
    tokens = {"x": packed, "logits": logits[:12].reshape(2, 6, -1)}
    refused(ValueError, r"x must have row-major scales or two axes, got packed_ue8m0 and shape \(2, 6", **tokens)


@pytest.mark.parametrize("shape", [(0,), (2, 0)])
def test_no_tokens(shape: tuple[int, ...]) -> None:
    own = {**arrays(), "x": arrays()["x"][:0].reshape(*shape, HIDDEN)}
    for got in (in_torch(own), in_jax(own), in_torch(alone(own)), in_jax(alone(own))):
        assert got.shape == (*shape, HIDDEN)


def test_tensors_of_two_devices() -> None:
    x, w = torch.ones(4, 64), torch.ones(32, 64, device="meta")
    with pytest.raises(ValueError, match="w must be on the device of x, cpu, got meta"):
        m3ops_torch.mxfp8_linear(x, w)
    with pytest.raises(ValueError, match="w must be on the device of x, cpu, got meta"):
        m3ops_torch.mxfp8_grouped_linear(x, w[None], torch.tensor([4], dtype=torch.int32))


def test_parameters_of_nnx() -> None:
    """As every op takes them."""
    x, w = jnp.asarray(normal((4, 64), "float32")), jnp.asarray(normal((32, 64), "float32"))
    sizes = jnp.array([4], jnp.int32)

    def loss(linear: Callable[..., jax.Array], w: Any) -> Any:
        return jax.value_and_grad(lambda w: linear(x, w).sum())(w)

    for linear, own in (
        (m3ops_jax.mxfp8_linear, w),
        (lambda x, w: m3ops_jax.mxfp8_grouped_linear(x, w, sizes), w[None]),
    ):
        chex.assert_trees_all_equal(
            nnx.to_pure_dict(nnx.State({"w": loss(linear, nnx.Param(own))[1]})), {"w": loss(linear, own)[1]}
        )


def test_gradients_on_an_explicit_mesh() -> None:
    """What they sum is not divided there; they are, as their operands."""
    x, w = jnp.asarray(normal((2, 64, 32), "float32")), jnp.asarray(normal((32, 32), "float32"))
    gradients = jax.jit(jax.grad(lambda x, w: (m3ops_jax.mxfp8_linear(x, w) ** 2).sum(), (0, 1)))
    want = gradients(x, w)
    mesh = jax.make_mesh((len(DEVICES),), ("a",), axis_types=(AxisType.Explicit,), devices=DEVICES)
    with jax.set_mesh(mesh):
        placed = jax.device_put(x, NamedSharding(mesh, P(None, "a"))), jax.device_put(w, NamedSharding(mesh, P()))
        got = gradients(*placed)
    assert got[0].sharding.spec == P(None, "a", None)
    assert_same_bytes([*map(np.asarray, got)], [*map(np.asarray, want)])


def weights(m: Any, arrays: Arrays) -> MoEWeights:
    """Those of a front end's module."""
    w13, w2, *shared = (m.mxfp8_quantize(array) for name, array in arrays.items() if "w" in name)
    return MoEWeights(arrays["router"], arrays["bias"], w13, w2, tuple(shared) or None)


@pytest.mark.parametrize("choose", [dict, alone, stacked])
def test_modules(choose: Callable[[Arrays], Arrays], device: str) -> None:
    """The layer behind the router's product; PyTorch's bytes from a checkpoint of the module, JAX's under jit."""
    own = choose(arrays())
    given = {"top_k": 2, "shared_in_stack": choose is stacked}
    want = in_torch(own, device, **given)
    tensors = {name: to_tensor(array, device) for name, array in own.items()}
    module = m3ops_torch.nn.MoE(weights(m3ops_torch, tensors), **given)
    zeros = {name: torch.zeros_like(tensor) for name, tensor in tensors.items()}
    loaded = m3ops_torch.nn.MoE(weights(m3ops_torch, zeros), **given)
    loaded.load_state_dict(module.state_dict())
    of_jax = MoE(weights(m3ops_jax, {name: jnp.asarray(array) for name, array in own.items()}), **given)
    in_jit = nnx.jit(lambda module, x: module(x))(of_jax, own["x"])
    for got in (to_numpy(module(tensors["x"])), to_numpy(loaded(tensors["x"])), np.asarray(in_jit)):
        assert_same_bytes([got], [want])


def test_a_module_of_another_dtype() -> None:
    """Its weights in MXFP8 stay what they are."""
    tensors = {name: to_tensor(array) for name, array in arrays().items()}
    tensors["router"] = tensors["router"].bfloat16()
    module = m3ops_torch.nn.MoE(weights(m3ops_torch, tensors))
    want = module(tensors["x"])
    changed = module.half().float().bfloat16()(tensors["x"])
    assert torch.equal(changed.view(torch.int16), want.view(torch.int16))


# --- A product with gradients -------------------------------------------------------------------------------------


def quantized_product(x: np.ndarray, w: np.ndarray) -> np.ndarray:
    q, p = (m3ops_torch.mxfp8_quantize(to_tensor(np.ascontiguousarray(a))) for a in (x, w))
    return to_numpy(m3ops_torch.mxfp8_matmul(q, p))


@pytest.mark.parametrize("rows", [(64,), (5,), (3, 7), (0,)], ids=str)
@pytest.mark.parametrize("framework", ["torch", "jax"])
def test_a_product_and_its_gradients(rows: tuple[int, ...], framework: str, device: str) -> None:
    """Each is a product of MXFP8, quantized along what it sums; rows are padded with zeros."""
    x, w = normal((*rows, 96), "bfloat16"), normal((64, 96), "bfloat16")
    grad = normal((*rows, 64), "bfloat16")
    if framework == "torch":
        leaves = [to_tensor(a, device).requires_grad_() for a in (x, w)]
        y = m3ops_torch.mxfp8_linear(*leaves)
        y.backward(to_tensor(grad, device))
        got = [to_numpy(t.detach()) for t in (y, *(leaf.grad for leaf in leaves))]
    else:
        y, pull = jax.vjp(jax.jit(m3ops_jax.mxfp8_linear), jnp.asarray(x), jnp.asarray(w))
        got = [np.asarray(a) for a in (y, *pull(jnp.asarray(grad)))]
    flat, grads = x.reshape(-1, 96), grad.reshape(-1, 64)
    pad = ((0, -len(flat) % 32), (0, 0))
    want = [
        quantized_product(flat, w).reshape(y.shape),
        quantized_product(grads, w.T).reshape(x.shape),
        quantized_product(np.pad(grads, pad).T, np.pad(flat, pad).T),
    ]
    assert_same_bytes(got, want)


def test_a_compiled_product_with_gradients(device: str) -> None:
    linear = torch.nn.Linear(96, 64, bias=False, dtype=torch.bfloat16, device=device)
    linear.forward = lambda x: m3ops_torch.mxfp8_linear(x, linear.weight)  # type: ignore[method-assign]
    x = to_tensor(normal((8, 96), "bfloat16"), device)
    results = []
    for call in (linear, torch.compile(linear, fullgraph=True, backend="aot_eager")):
        linear.zero_grad()
        call(x).sum().backward()
        results.append(to_numpy(linear.weight.grad))
    assert_same_bytes(results[1:], results[:1])


def test_wrong_operands_of_a_product_with_gradients() -> None:
    for m, make in ((m3ops_torch, torch.ones), (m3ops_jax, jnp.ones)):
        with pytest.raises(ValueError, match=r"w must have shape \[N, 64\] for x of shape \(4, 64\), got \(8, 32\)"):
            m.mxfp8_linear(make((4, 64)), make((8, 32)))
        with pytest.raises(ValueError, match="the first axis of w must be a multiple of 32"):
            m.mxfp8_linear(make((4, 64)), make((8, 64)))
