"""The gradient of ``moe_route`` beside a float64 formula's; its bytes, and those of the op, are in the named cases."""

from __future__ import annotations

import numpy as np
import torch
from specification import reference

from m3ops.testing.arrays import gradients, normal

U = 2.0**-24


def test_the_gradient_is_that_of_the_formula() -> None:
    """A weight is within 15 U and a sigmoid within 6 U (test_workloads.py), the mean of four terms within 4 U more.

    The difference of the gradient and its mean rounds once more, the products do three times; there is no other error.
    """
    logits, bias, grad = normal((300, 64), "float32"), normal((64,), "float32", 0.25), gradients((300, 4), "float32")
    ids, _ = reference("moe_route", logits, bias)
    (got,) = reference("moe_route_backward", logits, bias, grad)
    exact = torch.from_numpy(logits.astype(np.float64)).requires_grad_()
    chosen = exact.sigmoid().gather(-1, torch.from_numpy(ids.astype(np.int64)))
    weights = chosen / chosen.sum(-1, keepdim=True)
    (want,) = torch.autograd.grad(weights, exact, torch.from_numpy(grad.astype(np.float64)))
    p, rest = weights.detach().numpy(), 1 - chosen.detach().numpy()
    terms = p * (np.abs(grad) + (np.abs(grad) * p).sum(-1, keepdims=True)) * rest
    allowed = np.zeros((300, 64))
    np.put_along_axis(allowed, ids.astype(np.int64), 48 * U * terms, axis=-1)
    assert (np.abs(got - want.numpy()) <= allowed).all()
    assert (got[allowed == 0] == 0).all()
