"""Layers made of several ops, for JAX."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import m3ops_jax
from m3ops import checkpoint, layers
from m3ops.checkpoint import MoEWeights
from m3ops_jax._call import _operands, _unwrapped, run, spec_of
from m3ops_jax._mxfp8 import MXFP8, quantized
from m3ops_jax._sharding import like_type, whole


def moe_layer(
    x: jax.Array | MXFP8,
    logits: jax.Array,
    bias: jax.Array,
    w13: MXFP8,
    w2: MXFP8,
    shared: tuple[MXFP8, MXFP8] | None = None,
    *,
    top_k: int = 4,
    scale: float = 2.0,
    arithmetic: str = "exact",
    shared_in_stack: bool = False,
    axis_name: str | tuple[str, ...] | None = None,
) -> jax.Array:
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
            or ``axis_name``. Its products then need no launches of their own: a layer of few tokens takes less time,
            with the same bytes.
        axis_name: In a ``jax.shard_map`` the axis, or axes, of the mesh whose devices have E / D of the experts each,
            in order, with tokens and logits of their own, as many on each: one all-gather of the quantized tokens and
            one all-to-all of the results. The bytes stay those of one device.

    Returns:
        Shape ``[..., H]``, bfloat16.

    Raises:
        TypeError: A dtype is not supported, or an argument has the wrong type.
        ValueError: The shapes do not fit each other, or a parameter is out of range.
    """
    weights = {"w13": w13, "w2": w2, **{f"shared[{number}]": weight for number, weight in enumerate(shared or ())}}
    for name, weight in weights.items():
        quantized(name, weight)
    x, logits, bias = map(_unwrapped, (x, logits, bias))
    arrays = layers.arrays_of({"x": x, "logits": logits, "bias": bias, **weights})
    specs = {name: spec_of(name, array) for name, array in arrays.items()}
    devices = None if axis_name is None else _Devices(axis_name)
    given: dict[str, Any] = {"top_k": top_k, "scale": scale, "arithmetic": arithmetic}
    given["shared_in_stack"] = shared_in_stack
    layers.check_moe(specs, x, logits, w13, w2, shared, devices=None if devices is None else devices.size, **given)
    result: jax.Array = layers.moe_layer(m3ops_jax, x, logits, bias, w13, w2, shared, devices=devices, **given)
    return result


@dataclass(frozen=True)
class _Devices:
    """Those along axes of a mesh, in a shard_map."""

    axis_name: str | tuple[str, ...]

    @property
    def size(self) -> int:
        size: int = jax.lax.axis_size(self.axis_name)
        return size

    @property
    def rank(self) -> jax.Array:
        return jax.lax.axis_index(self.axis_name)

    def gather(self, *arrays: jax.Array) -> list[jax.Array]:
        raw = [array.view(jnp.uint8) for array in arrays]
        ends = np.cumsum([rows.shape[1] for rows in raw])
        every = jax.lax.all_gather(jnp.concatenate(raw, axis=1), self.axis_name, tiled=True)
        parts = jnp.split(every, ends[:-1], axis=1)
        return [part.view(array.dtype) for part, array in zip(parts, arrays, strict=True)]

    def exchange(self, rows: jax.Array) -> jax.Array:
        received: jax.Array = jax.lax.all_to_all(rows, self.axis_name, 0, 0, tiled=True)
        return received

    def arange(self, size: int) -> jax.Array:
        return jnp.arange(size, dtype=jnp.int32)


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
    return checkpoint.converted(weights, jnp.asarray, MXFP8)


def mxfp8_linear(x: jax.Array, w: jax.Array, *, arithmetic: str = "exact", scale_rule: str = "rceil") -> jax.Array:
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
    x, w = map(_unwrapped, (x, w))
    layers.check_linear(spec_of("x", x), spec_of("w", w), arithmetic, scale_rule)
    result: jax.Array = _linear((arithmetic, scale_rule), *_operands({"x": x, "w": w}))
    return result


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _linear(given: tuple[str, str], x: jax.Array, w: jax.Array) -> Any:
    arithmetic, scale_rule = given
    return layers.linear(m3ops_jax, x, w, arithmetic=arithmetic, scale_rule=scale_rule)


def _forward(given: tuple[str, str], x: jax.Array, w: jax.Array) -> tuple[Any, tuple[jax.Array, jax.Array]]:
    return _linear(given, x, w), (x, w)


def _backward(given: tuple[str, str], kept: tuple[jax.Array, jax.Array], grad: jax.Array) -> Any:
    arithmetic, scale_rule = given
    x, w, grads = map(whole, (*kept, grad))  # blocks along rows are of all rows, and no user could reshard these
    gradients = layers.linear_gradients(m3ops_jax, _pad, x, w, grads, arithmetic=arithmetic, scale_rule=scale_rule)
    return tuple(map(like_type, gradients, kept))


_linear.defvjp(_forward, _backward)


def _pad(matrix: jax.Array, count: int) -> jax.Array:
    return jnp.pad(matrix, ((0, count), (0, 0)))


def mxfp8_grouped_linear(
    x: jax.Array,
    w: jax.Array,
    group_sizes: jax.Array,
    rows: jax.Array | None = None,
    *,
    arithmetic: str = "exact",
    scale_rule: str = "rceil",
) -> jax.Array:
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
    x, w, group_sizes, rows = map(_unwrapped, (x, w, group_sizes, rows))
    specs = spec_of("x", x), spec_of("w", w), spec_of("group_sizes", group_sizes)
    of_rows = None if rows is None else spec_of("rows", rows)
    layers.check_grouped_linear(*specs, of_rows, arithmetic, scale_rule)
    named = {"x": x, "w": w, "group_sizes": group_sizes, **({} if rows is None else {"rows": rows})}
    result: jax.Array = _grouped_linear((arithmetic, scale_rule), *_operands(named), *(None,) * (rows is None))
    return result


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _grouped_linear(given: tuple[str, str], *operands: jax.Array | None) -> Any:
    return _layer(*given).product(*operands)


def _grouped_forward(given: tuple[str, str], *operands: jax.Array | None) -> tuple[Any, Any]:
    return _grouped_linear(given, *operands), operands


def _grouped_backward(given: tuple[str, str], kept: Any, grad: jax.Array) -> Any:
    layer, operands = _layer(*given), [None if array is None else whole(array) for array in (*kept, grad)]
    gradients = layer.gradient_of_x(*operands), layer.gradient_of_w(*operands)
    return *map(like_type, gradients, kept[:2]), None, None


_grouped_linear.defvjp(_grouped_forward, _grouped_backward)


def _layer(arithmetic: str, scale_rule: str) -> layers.GroupedLinear:
    return layers.GroupedLinear(m3ops_jax, jnp, run, _rows_in_blocks, arithmetic, scale_rule)


def _rows_in_blocks(group_sizes: jax.Array, num_rows: int) -> tuple[jax.Array, jax.Array]:
    with jax.enable_x64(True):
        return layers.rows_in_blocks(jnp, jnp.arange, group_sizes, num_rows)
