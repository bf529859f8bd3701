"""Layers made of several ops, for PyTorch."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.distributed as dist

import m3ops_torch
from m3ops import checkpoint, layers
from m3ops.checkpoint import MoEWeights
from m3ops_torch import _operands
from m3ops_torch._call import run
from m3ops_torch._mxfp8 import MXFP8, quantized


def moe_layer(
    x: torch.Tensor | MXFP8,
    logits: torch.Tensor,
    bias: torch.Tensor,
    w13: MXFP8,
    w2: MXFP8,
    shared: tuple[MXFP8, MXFP8] | None = None,
    *,
    top_k: int = 4,
    scale: float = 2.0,
    arithmetic: str = "exact",
    shared_in_stack: bool = False,
    group: dist.ProcessGroup | None = None,
) -> torch.Tensor:
    """MiniMax-M3's mixture of experts, from the router's logits on.

    :func:`moe_route` chooses the experts of each token. A token is quantized once, :func:`moe_sort` and the two
    :func:`mxfp8_grouped_matmul` around :func:`swiglu_oai_quantize` apply its experts, and :func:`moe_combine` adds what
    they return. With exact arithmetic a token's bytes are the same on every machine and in any batch.

    Args:
        x: The tokens, ``[..., H]`` in bfloat16, float16 or float32, or an ``MXFP8`` of them, ``[T, H]`` unless its
            scales are row-major.
        logits: The router's, ``[..., E]``.
        bias: That of the choice, fp32 ``[E]``.
        w13: Gates and ups of the experts, one below the other, an ``MXFP8`` of values ``[E, 2I, H]``.
        w2: The way back, an ``MXFP8`` of values ``[E, H, I]``.
        shared: The same of the expert that every token has, ``[2I, H]`` and ``[H, I]``; None for none.
        top_k: Experts of a token.
        scale: What the sum of these is multiplied by, before that of the shared expert is added.
        arithmetic: That of the products, ``"exact"`` or ``"fast"``, see :func:`mxfp8_matmul`.
        shared_in_stack: Whether w13 and w2 have E + 1 experts, the last of which is the shared one; not with ``shared``
            or ``group``. Its products then need no launches of their own: a layer of few tokens takes less time, with
            the same bytes.
        group: The processes that have E / D of the experts each, in order, with tokens and logits of their own, as many
            on each: one all-gather of the quantized tokens and one all-to-all of the results. The bytes stay those of
            one device.

    Returns:
        Shape ``[..., H]``, bfloat16.

    Raises:
        TypeError: A dtype is not supported, or an argument has the wrong type.
        ValueError: The shapes do not fit each other, or a parameter is out of range.
    """
    weights = {"w13": w13, "w2": w2, **{f"shared[{number}]": weight for number, weight in enumerate(shared or ())}}
    for name, weight in weights.items():
        quantized(name, weight)
    tensors = layers.arrays_of({"x": x, "logits": logits, "bias": bias, **weights})
    _operands.require_tensors(tensors)
    _operands.one_device(tensors)
    specs = {name: _operands.spec_of(tensor) for name, tensor in tensors.items()}
    devices = None if group is None else _Devices(group, logits.device)
    given: dict[str, Any] = {"top_k": top_k, "scale": scale, "arithmetic": arithmetic}
    given["shared_in_stack"] = shared_in_stack
    layers.check_moe(specs, x, logits, w13, w2, shared, devices=None if devices is None else devices.size, **given)
    result: torch.Tensor = layers.moe_layer(m3ops_torch, x, logits, bias, w13, w2, shared, devices=devices, **given)
    return result


@dataclass(frozen=True)
class _Devices:
    """Those of a process group."""

    group: dist.ProcessGroup
    device: torch.device

    @property
    def size(self) -> int:
        return dist.get_world_size(self.group)

    @property
    def rank(self) -> int:
        return dist.get_rank(self.group)

    def gather(self, *tensors: torch.Tensor) -> list[torch.Tensor]:
        raw = [tensor.contiguous().view(torch.uint8) for tensor in tensors]
        own = torch.cat(raw, dim=1)
        every = own.new_empty(self.size, *own.shape)
        dist.all_gather([*every], own, group=self.group)
        parts = every.flatten(0, 1).split([rows.shape[1] for rows in raw], dim=1)
        return [part.contiguous().view(tensor.dtype) for part, tensor in zip(parts, tensors, strict=True)]

    def exchange(self, rows: torch.Tensor) -> torch.Tensor:
        received = torch.empty_like(rows)
        dist.all_to_all_single(received.view(torch.uint8), rows.view(torch.uint8), group=self.group)
        return received

    def arange(self, size: int) -> torch.Tensor:
        return torch.arange(size, dtype=torch.int32, device=self.device)


def moe_weights(tensors: Mapping[str, np.ndarray], prefix: str, *, shared_in_stack: bool = False) -> MoEWeights:
    """The weights of one mixture of experts from a checkpoint in MiniMax-M3's layout, for :func:`moe_layer`.

    Weights in MXFP8 are taken as they are, those in bfloat16 are quantized. The experts are stacked in the memory of
    the host first.

    Args:
        tensors: Tensors by their names there, as :func:`m3ops.checkpoint.read_safetensors` gives them.
        prefix: What the names of the layer begin with, such as ``"model.layers.3.block_sparse_moe."``.
        shared_in_stack: Whether the shared expert becomes the last of w13 and w2, for the layer's parameter of that
            name; ``shared`` is None then.

    Returns:
        ``(router, bias, w13, w2, shared)``.

    Raises:
        TypeError: ``shared_in_stack`` is neither True nor False.
        ValueError: There is no such layer, or a part of it is missing, or no shared expert fits the stack.
    """
    weights = checkpoint.moe_weights(tensors, prefix, shared_in_stack=shared_in_stack)
    return checkpoint.converted(weights, _tensor, MXFP8)


def mxfp8_linear(
    x: torch.Tensor, w: torch.Tensor, *, arithmetic: str = "exact", scale_rule: str = "rceil"
) -> torch.Tensor:
    """``x @ w.T`` of x and w rounded to MXFP8, with a gradient: a layer that trains in the numbers it will serve in.

    The gradients pass straight through the rounding. They are products of MXFP8 too: that of x is ``grad @ w``,
    quantized along N, and that of w is ``grad.T @ x``, quantized along the rows, which are padded to blocks of 32.

    Args:
        x: Shape ``[..., K]``, bfloat16, float16 or float32; K a multiple of 32.
        w: The weight, ``[N, K]`` in any of these dtypes; N a multiple of 32.
        arithmetic: That of the products, ``"exact"`` or ``"fast"``, see :func:`mxfp8_matmul`.
        scale_rule: That of the rounding, see :func:`mxfp8_quantize`.

    Returns:
        Shape ``[..., N]``, in the dtype of x. The gradients have the dtypes of x and w.

    Raises:
        TypeError: A dtype is not supported, or a parameter has the wrong type.
        ValueError: The shapes do not fit each other, or a parameter is out of range.
    """
    _operands.require_tensors({"x": x, "w": w})
    _operands.one_device({"x": x, "w": w})
    layers.check_linear(_operands.spec_of(x), _operands.spec_of(w), arithmetic, scale_rule)
    result: torch.Tensor = _Linear.apply(x, w, arithmetic, scale_rule)
    return result


class _Linear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, w: torch.Tensor, arithmetic: str, scale_rule: str) -> Any:
        ctx.save_for_backward(x, w)
        ctx.given = {"arithmetic": arithmetic, "scale_rule": scale_rule}
        return layers.linear(m3ops_torch, x, w, **ctx.given)

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> Any:
        x, w = ctx.saved_tensors
        return *layers.linear_gradients(m3ops_torch, _pad, x, w, grad, **ctx.given), None, None


def _pad(matrix: torch.Tensor, count: int) -> torch.Tensor:
    return torch.nn.functional.pad(matrix, (0, 0, 0, count)) if count else matrix  # it would copy for nothing


def mxfp8_grouped_linear(
    x: torch.Tensor,
    w: torch.Tensor,
    group_sizes: torch.Tensor,
    rows: torch.Tensor | None = None,
    *,
    arithmetic: str = "exact",
    scale_rule: str = "rceil",
) -> torch.Tensor:
    """:func:`mxfp8_linear` for consecutive groups of rows, each with a weight of its own: experts that train.

    The product is :func:`mxfp8_grouped_matmul` of x and w rounded to MXFP8. The gradients pass straight through the
    rounding. They are products of MXFP8 too: that of x is ``grad @ w[g]``, quantized along N, and that of ``w[g]`` is
    ``grad.T @ x`` over the rows of the group, quantized along these, which are padded to blocks of 32 for each group
    alone, so that it depends on no other group. What several of ``rows`` gather is added in fp32, in their order.

    Args:
        x: Shape ``[T, K]``, bfloat16, float16 or float32; K a multiple of 32.
        w: The weights, ``[G, N, K]`` in any of these dtypes; N a multiple of 32.
        group_sizes: How many rows each group has, int32 ``[G]``, see :func:`mxfp8_grouped_matmul`.
        rows: For each row of the product the row of x that it is of, int32 ``[R]``; None for the rows of x as they are.
        arithmetic: That of the products, ``"exact"`` or ``"fast"``, see :func:`mxfp8_matmul`.
        scale_rule: That of the rounding, see :func:`mxfp8_quantize`.

    Returns:
        Shape ``[R, N]``, or ``[T, N]``, in the dtype of x. The gradients have the dtypes of x and w. In rows without a
        group the product and the gradient are zero, and so is the gradient of the weight of a group without rows.

    Raises:
        TypeError: A dtype is not supported, or a parameter has the wrong type.
        ValueError: The shapes do not fit each other, ``group_sizes`` or ``rows`` are not contiguous, or a parameter is
            out of range.
    """
    operands = {"x": x, "w": w, "group_sizes": group_sizes, **({} if rows is None else {"rows": rows})}
    _operands.require_tensors(operands)
    _operands.one_device(operands)
    of_x, of_w, of_sizes = map(_operands.spec_of, (x, w, group_sizes))
    of_rows = None if rows is None else _operands.spec_of(rows)
    layers.check_grouped_linear(of_x, of_w, of_sizes, of_rows, arithmetic, scale_rule)
    result: torch.Tensor = _GroupedLinear.apply(x, w, group_sizes, rows, arithmetic, scale_rule)
    return result


class _GroupedLinear(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        x: torch.Tensor,
        w: torch.Tensor,
        group_sizes: torch.Tensor,
        rows: torch.Tensor | None,
        arithmetic: str,
        scale_rule: str,
    ) -> Any:
        ctx.save_for_backward(x, w, group_sizes, rows)
        arange = functools.partial(torch.arange, dtype=torch.int32, device=x.device)
        in_blocks = functools.partial(layers.rows_in_blocks, torch, arange)
        ctx.layer = layers.GroupedLinear(m3ops_torch, torch, run, in_blocks, arithmetic, scale_rule)
        return ctx.layer.product(x, w, group_sizes, rows)

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> Any:
        of_x, of_w, *_ = ctx.needs_input_grad
        of = *ctx.saved_tensors, grad
        gradient_of_x = ctx.layer.gradient_of_x(*of) if of_x else None
        return gradient_of_x, ctx.layer.gradient_of_w(*of) if of_w else None, None, None, None, None


def _tensor(array: np.ndarray) -> torch.Tensor:
    raw = torch.from_numpy(np.array(array, order="C").view(f"u{array.itemsize}"))
    tensor: torch.Tensor = raw.view(getattr(torch, array.dtype.name))
    return tensor
