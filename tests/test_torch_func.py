"""``torch.func``: transforms around derivatives give the bytes of plain autograd, and none ends in silence."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import pytest
import torch
from compare import assert_same_bytes
from differentiable import arguments, cotangents, every_differentiable_op, expected, floats, places
from test_torch import OPCHECKS, arrays
from torch.autograd import forward_ad
from torch.func import grad, jacfwd, jacrev, jvp, vjp, vmap

import m3ops_torch
from m3ops.ops import OPS
from m3ops.testing.case import operands
from m3ops.tools.run import flat, to_tensor
from m3ops_torch._operators import parameters


def given(name: str, device: str) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
    """Inputs of [5, 6, 64] rows, and a cotangent for each result."""
    inputs = arguments(name)
    return [to_tensor(a, device) for a in inputs], [to_tensor(a, device) for a in cotangents(name, inputs)]


def loss(name: str, weights: list[torch.Tensor], *inputs: torch.Tensor) -> torch.Tensor:
    """A number whose gradient by the results of the op is ``weights``."""
    results = floats(getattr(m3ops_torch, name)(*inputs))
    return sum((r.float() * w.float()).sum() for r, w in zip(results, weights, strict=True))


def plain(name: str, inputs: list[torch.Tensor], weights: list[torch.Tensor]) -> list[Any]:
    given = [t.detach() for t in inputs]
    leaves = [t.requires_grad_() for t in floats(given)]
    return arrays(torch.autograd.grad(loss(name, weights, *given), leaves))


def split(inputs: list[torch.Tensor]) -> tuple[list[torch.Tensor], torch.Tensor, list[torch.Tensor]]:
    """The first of the inputs that has rows and a gradient, what is before it, and what is after it."""
    place = next(place for place in places(inputs) if inputs[place].ndim == 3)
    return inputs[:place], inputs[place], inputs[place + 1 :]


def with_numbers(inputs: list[torch.Tensor], floats: Sequence[torch.Tensor]) -> list[torch.Tensor]:
    """Inputs with others in place of those that are floats."""
    others = iter(floats)
    return [next(others) if t.is_floating_point() else t for t in inputs]


@every_differentiable_op
def test_grad(name: str, device: str) -> None:
    inputs, weights = given(name, device)
    every = places(inputs)
    got = arrays(grad(partial(loss, name, weights), every)(*inputs))
    assert_same_bytes(got, plain(name, inputs, weights))
    assert_same_bytes(got, expected(name, arguments(name), cotangents(name, arguments(name))))
    results, pull = vjp(lambda *a: floats(getattr(m3ops_torch, name)(*with_numbers(inputs, a))), *floats(inputs))
    assert_same_bytes(arrays(results), arrays(floats(getattr(m3ops_torch, name)(*inputs))))
    assert_same_bytes(arrays(pull(weights)), got)


@every_differentiable_op
def test_opcheck(name: str, device: str) -> None:
    """Of the operator that computes the gradients."""
    inputs, weights = given(name, device)
    derivative = OPS[name].of().derivative
    assert derivative is not None
    operator = getattr(torch.ops.m3ops, derivative.op.name).default
    taken = derivative.operands(operands(OPS[name], inputs), weights)
    torch.library.opcheck(operator, tuple(taken.values()), parameters(derivative.op), test_utils=OPCHECKS)


@every_differentiable_op
def test_vmap_of_grad(name: str, device: str) -> None:
    """The gradient of each example, that of a shared weight too."""
    inputs, weights = given(name, device)
    every = places(inputs)
    axes = tuple(0 if t.ndim == 3 else None for t in inputs)

    def one(weights: list[torch.Tensor], *inputs: torch.Tensor) -> Any:
        return grad(partial(loss, name, weights), every)(*inputs)

    got = vmap(one, (0, *axes))(weights, *inputs)
    for i in range(5):
        example = [t[i] if t.ndim == 3 else t for t in inputs]
        assert_same_bytes(arrays([g[i] for g in got]), plain(name, example, [w[i] for w in weights]))


@every_differentiable_op
def test_grad_of_vmap(name: str, device: str) -> None:
    inputs, weights = given(name, device)
    every, axes = places(inputs), tuple(0 if t.ndim == 3 else None for t in inputs)

    def total(*inputs: torch.Tensor) -> torch.Tensor:
        results = floats(vmap(getattr(m3ops_torch, name), axes)(*inputs))
        return sum((r.float() * w.float()).sum() for r, w in zip(results, weights, strict=True))

    got = arrays(grad(total, every)(*inputs))
    assert_same_bytes(got[:1], plain(name, inputs, weights)[:1])  # a weight's is summed by another order of rows


@every_differentiable_op
def test_jacrev(name: str, device: str) -> None:
    """A row of the Jacobian is the gradient of one element of a result."""
    inputs, weights = given(name, device)
    inputs = [t[0, :2] if t.ndim == 3 else t for t in inputs]
    got = jacrev(lambda *a: floats(getattr(m3ops_torch, name)(*a))[0])(*inputs)
    for row, col in ((0, 3), (1, 20 % got.shape[1])):
        one = [torch.zeros_like(w[0, :2]) for w in weights]
        one[0][row, col] = 1
        assert_same_bytes(arrays([got[row, col]]), plain(name, inputs, one)[:1])


@every_differentiable_op
@pytest.mark.parametrize("mapped", [False, True], ids=["grad", "vmap of grad"])
def test_compiled(name: str, mapped: bool, device: str) -> None:
    before, first, after = split(given(name, device)[0])
    before, after = ([t[0] if mapped and t.ndim == 3 else t for t in part] for part in (before, after))
    function = grad(lambda x: floats(getattr(m3ops_torch, name)(*before, x, *after))[0].float().square().sum())
    function = vmap(function) if mapped else function
    compiled = torch.compile(function, fullgraph=True, backend="aot_eager")
    assert_same_bytes(arrays(compiled(first)), arrays(function(first)))


def test_compiled_autograd(device: str) -> None:
    """The backward graph as Dynamo collects it, of nodes that show the op's name."""
    inputs, weights = given("swiglu_oai", device)
    leaf = inputs[0].requires_grad_()
    value = loss("swiglu_oai", weights, leaf)
    assert m3ops_torch.swiglu_oai(leaf).grad_fn.name() == "m3ops_swiglu_oaiBackward"
    with torch._dynamo.compiled_autograd._enable(torch.compile(backend="eager")):
        value.backward()
    assert_same_bytes(arrays([leaf.grad]), plain("swiglu_oai", inputs, weights))


jvp_warns = pytest.mark.filterwarnings("ignore:`torch.jit.script` is:FutureWarning")  # of its own import


def forward_mode(function: Any, x: torch.Tensor) -> Any:
    with forward_ad.dual_level():
        return forward_ad.unpack_dual(function(forward_ad.make_dual(x, x))).tangent


SECOND: dict[str, Callable[[Any, torch.Tensor], Any]] = {
    "grad of grad": lambda f, x: grad(lambda x: grad(f)(x).float().sum())(x),
    "jacrev of grad": lambda f, x: jacrev(grad(f))(x),
}
FORWARD: dict[str, Callable[[Any, torch.Tensor], Any]] = {
    "jvp": lambda f, x: jvp(f, (x,), (x,)),
    "jacfwd": lambda f, x: jacfwd(f)(x[0, 0]),
    "forward_ad": forward_mode,
    "vmap of jvp": lambda f, x: vmap(lambda x: jvp(f, (x,), (x,)))(x),
    "jvp of grad": lambda f, x: jvp(grad(f), (x,), (x,)),
}


@jvp_warns
@every_differentiable_op
def test_there_is_no_second_derivative_and_no_forward_mode(name: str, device: str) -> None:
    before, first, after = split(given(name, device)[0])

    def total(x: torch.Tensor) -> torch.Tensor:
        left, right = ([t[(0,) * (3 - x.ndim)] if t.ndim == 3 else t for t in part] for part in (before, after))
        return floats(getattr(m3ops_torch, name)(*left, x, *right))[0].float().sum()

    derivative = OPS[name].of().derivative
    assert derivative is not None
    first_derivative = derivative.op.name.removesuffix("_backward")  # which that of fake quantization shares
    for ways, message in (
        (SECOND, f"{first_derivative} has no second derivative"),
        (FORWARD, f"{name} has no derivative in forward mode"),
    ):
        for way in ways.values():
            with pytest.raises(NotImplementedError, match=message):
                way(total, first)


@jvp_warns
def test_forward_mode_of_rounding(device: str) -> None:
    x = torch.randn(4, 64, device=device)
    with pytest.raises(TypeError, match="mxfp8_quantize has no derivative: rounding to MXFP8 is a step function"):
        jvp(lambda x: tuple(m3ops_torch.mxfp8_quantize(x)), (x,), (x,))


@jvp_warns
def test_forward_mode_of_out(device: str) -> None:
    x, weight, out = (torch.randn(shape, device=device) for shape in [(4, 64), (64,), (4, 64)])
    for way in (forward_mode, lambda f, x: jvp(f, (x,), (x,))):
        with pytest.raises(ValueError, match="out has no derivative"):
            way(lambda x: m3ops_torch.gemma_rmsnorm(x, weight, out=out), x)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (m3ops_torch.swiglu_oai, "swiglu_oai has no derivative with num_rows; define"),
        (m3ops_torch.mxfp8_quantize, "mxfp8_quantize has no derivative: rounding"),
    ],
)
def test_a_counted_op_has_no_derivative(call: Any, message: str, device: str) -> None:
    x, number = torch.randn(4, 64, device=device), torch.tensor([3], dtype=torch.int32, device=device)
    for take in (lambda f: f(x.clone().requires_grad_()).backward(), lambda f: grad(f)(x)):
        with pytest.raises((NotImplementedError, TypeError), match=message):
            take(lambda x: flat(call(x, num_rows=number))[0].float().sum())


def test_what_has_no_derivative_keeps_no_inputs(device: str) -> None:
    x = torch.randn(4, 64, device=device).requires_grad_()
    kept: list[torch.Tensor] = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t) or t, lambda t: t):
        m3ops_torch.mxfp8_quantize(x)
        assert not kept
        m3ops_torch.swiglu_oai(x)
    assert [t.data_ptr() for t in kept] == [x.data_ptr()]


def test_what_is_added_is_not_kept(device: str) -> None:
    """Its gradient is that of the sum."""
    inputs, _ = given("moe_combine", device)
    kept: list[torch.Tensor] = []
    shared = inputs[-1].requires_grad_()
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t) or t, lambda t: t):
        m3ops_torch.moe_combine(*inputs).sum().backward()
    assert shared.data_ptr() not in [t.data_ptr() for t in kept]
    assert (shared.grad == 1).all()


def test_an_op_without_a_derivative_so_far(device: str) -> None:
    qkv, weight = torch.randn(4, 3 * 128, device=device), torch.randn(128, device=device)
    heads = partial(m3ops_torch.gemma_rmsnorm_heads, num_heads_q=1, num_heads_k=1, num_heads_v=1)
    with pytest.raises(NotImplementedError, match="gemma_rmsnorm_heads has no derivative; define"):
        grad(lambda qkv: heads(qkv, weight, weight).sum())(qkv)
