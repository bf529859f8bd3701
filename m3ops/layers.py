"""What is made of several ops, written once: ``ops`` is a front end, whose functions do the work."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import Any, Protocol

from m3ops import validate
from m3ops.array import ArraySpec
from m3ops.mxfp8 import MXFP8
from m3ops.numerics.formats import BLOCK
from m3ops.numerics.scale_layouts import ROW_MAJOR
from m3ops.ops.moe import MoECombine, MoECombineBackward, MoERoute, MoESort
from m3ops.ops.mxfp8 import MXFP8Quantize
from m3ops.ops.mxfp8_matmul import MXFP8GroupedMatmul, MXFP8Matmul

Array = Any


class Devices(Protocol):
    """The devices among which experts are divided, as one of them sees them."""

    @property
    def size(self) -> int:
        """How many there are."""

    @property
    def rank(self) -> Array:
        """Which this one is."""

    def gather(self, *arrays: Array) -> Sequence[Array]:
        """The rows of all devices in their order, of each array; in one collective, as bytes."""

    def exchange(self, rows: Array) -> Array:
        """``[size * R, N]`` -> the same: the R rows that each device has for this one, in the order of the devices."""

    def arange(self, size: int) -> Array:
        """0, 1, ... in int32."""


def moe_layer(
    ops: ModuleType,
    x: Array | MXFP8,
    logits: Array,
    bias: Array,
    w13: MXFP8,
    w2: MXFP8,
    shared: tuple[MXFP8, MXFP8] | None,
    *,
    top_k: int,
    scale: float,
    arithmetic: str,
    shared_in_stack: bool,
    devices: Devices | None,
) -> Array:
    """Route, quantize each token once, and the products of each token's experts, of what :func:`check_moe` has seen."""
    tokens = _rows(x if isinstance(x, MXFP8) else ops.mxfp8_quantize(x))
    ids, weights = ops.moe_route(logits, bias, top_k=top_k, shared_experts=int(shared_in_stack))
    if devices is None:
        y, slots = _of_this_device(ops, tokens, ids, w13, w2, arithmetic=arithmetic)
    else:
        y, slots = _of_all_devices(ops, devices, tokens, ids, w13, w2, arithmetic=arithmetic)
    beside = None
    if shared_in_stack:  # its rows are the last, one for each token
        beside, slots = y[math.prod(weights.shape) :], slots[..., :top_k]
    elif shared is not None:
        beside = _mlp(ops, tokens, *shared, arithmetic=arithmetic)
    if beside is not None:
        beside = beside.reshape(*ids.shape[:-1], y.shape[-1])
    return ops.moe_combine(y, slots, weights, beside, scale=scale)


def _of_this_device(
    ops: ModuleType, tokens: MXFP8, ids: Array, w13: MXFP8, w2: MXFP8, *, arithmetic: str
) -> tuple[Array, Array]:
    """What the experts return, sorted by expert, and which row of it each slot is."""
    rows, slots, group_sizes = ops.moe_sort(ids, num_experts=w13.values.shape[0], tokens=True)
    gate_up = ops.mxfp8_grouped_matmul(tokens, w13, group_sizes, rows, arithmetic=arithmetic)
    y = ops.mxfp8_grouped_matmul(ops.swiglu_oai_quantize(gate_up), w2, group_sizes, arithmetic=arithmetic)
    return y, slots


def _of_all_devices(
    ops: ModuleType, devices: Devices, tokens: MXFP8, ids: Array, w13: MXFP8, w2: MXFP8, *, arithmetic: str
) -> tuple[Array, Array]:
    """The same of experts that are divided: a device gets the tokens of all and returns what its experts make of them.

    Rows come back, not sums of them, whose order is that of a token's slots. Each has its place whatever the choice of
    experts, so that no device needs to know sizes: it sends zeros for what others compute.
    """
    experts, own = w13.values.shape[0], ids.reshape(-1, ids.shape[-1])
    values, scales, every = devices.gather(*tokens, own)
    everyone = type(tokens)(values, scales, tokens.scale_layout)
    y, slots = _of_this_device(ops, everyone, every - devices.rank * experts, w13, w2, arithmetic=arithmetic)
    count = own.shape[0] * own.shape[1]
    place = own // experts * count + devices.arange(count).reshape(own.shape)
    return devices.exchange(y[slots.reshape(-1)]), place.reshape(ids.shape)


def _mlp(ops: ModuleType, x: MXFP8, w13: MXFP8, w2: MXFP8, *, arithmetic: str) -> Array:
    """A dense MLP: ``[gate; up]``, activation, and the way back."""
    gate_up = ops.mxfp8_matmul(x, w13, arithmetic=arithmetic)
    return ops.mxfp8_matmul(ops.swiglu_oai_quantize(gate_up), w2, arithmetic=arithmetic)


def arrays_of(arguments: Mapping[str, Any]) -> dict[str, Array]:
    """The arrays of arguments by name, those of an ``MXFP8`` one by one."""
    arrays: dict[str, Array] = {}
    for name, argument in arguments.items():
        if isinstance(argument, MXFP8):
            arrays |= {f"{name}_values": argument.values, f"{name}_scales": argument.scales}
        else:
            arrays[name] = argument
    return arrays


def check_moe(
    specs: Mapping[str, ArraySpec],
    x: Array | MXFP8,
    logits: Array,
    w13: MXFP8,
    w2: MXFP8,
    shared: tuple[MXFP8, MXFP8] | None,
    *,
    devices: int | None,
    top_k: int,
    scale: float,
    arithmetic: str,
    shared_in_stack: bool,
) -> None:
    """Raises unless the shapes fit each other, by the names that the caller has for them, and the parameters.

    What the products say of dtypes and scales, they say before anything depends on it. ``specs`` are those of
    :func:`arrays_of`, by name, and ``devices`` how many the experts are divided among, None if they are not.
    """
    validate.flag("shared_in_stack", shared_in_stack)
    if shared_in_stack and (shared is not None or devices is not None):
        given = "shared" if shared is not None else "experts divided among devices"
        raise ValueError(f"shared_in_stack must be False with {given}")
    _check_shapes(x, logits, w13, w2, shared, devices or 1, int(shared_in_stack))
    MXFP8GroupedMatmul.of(arithmetic=arithmetic)
    MoESort.of(num_experts=w13.values.shape[0])
    MoECombine.of(scale=scale)
    if "x" in specs:
        MXFP8Quantize.of().check({"x": specs["x"]})
    MoERoute.of(top_k=top_k, shared_experts=int(shared_in_stack)).check(
        {"logits": specs["logits"], "bias": specs["bias"]}
    )


def _check_shapes(
    x: Array | MXFP8,
    logits: Array,
    w13: MXFP8,
    w2: MXFP8,
    shared: tuple[MXFP8, MXFP8] | None,
    devices: int,
    stacked: int,
) -> None:
    if not _shape(x):
        raise ValueError("x must have at least one axis, got shape ()")
    if devices > 1 and isinstance(x, MXFP8) and x.scale_layout != ROW_MAJOR:
        raise ValueError(f"x must have row-major scales for experts of several devices, got {x.scale_layout}")
    if isinstance(x, MXFP8) and x.scale_layout != ROW_MAJOR and len(_shape(x)) != 2:
        raise ValueError(f"x must have row-major scales or two axes, got {x.scale_layout} and shape {_shape(x)}")
    *leading, hidden = _shape(x)
    experts, rows = (_shape(w13) + (0, 0))[:2]
    inner = rows // 2
    wanted: dict[str, tuple[Any, tuple[int, ...]]] = {
        "w13": (w13, (experts, 2 * inner, hidden)),
        "w2": (w2, (experts, hidden, inner)),
    }
    wanted["logits"] = logits, (*leading, max(devices * experts - stacked, 0))
    if shared is not None:
        if len(shared) != 2:
            raise ValueError(f"shared must hold two weights, got {len(shared)}")
        own = (_shape(shared[0]) + (0,))[0] // 2
        wanted |= {"shared[0]": (shared[0], (2 * own, hidden)), "shared[1]": (shared[1], (hidden, own))}
    for name, (array, shape) in wanted.items():
        if _shape(array) != shape:
            raise ValueError(f"{name} must have shape {shape} for x of shape {_shape(x)}, got {_shape(array)}")


def _shape(array: Array | MXFP8) -> tuple[int, ...]:
    return tuple(array.values.shape if isinstance(array, MXFP8) else array.shape)


def _rows(q: MXFP8) -> MXFP8:
    """The rows of all leading axes, as a grouped product takes them."""
    if q.values.ndim == 2:
        return q
    values, scales = (part.reshape(-1, part.shape[-1]) for part in q)
    return type(q)(values, scales, q.scale_layout)


def check_linear(x: ArraySpec, w: ArraySpec, arithmetic: str, scale_rule: str) -> None:
    """Raises unless these are operands of a product whose gradients sum along each of the axes, and its parameters."""
    validate.array("x", x)
    validate.array("w", w)
    if len(w.shape) != 2 or w.shape[-1] != x.shape[-1]:
        raise ValueError(f"w must have shape [N, {x.shape[-1]}] for x of shape {x.shape}, got {w.shape}")
    validate.blocks("the last axis of x", x.shape[-1])
    validate.blocks("the first axis of w", w.shape[0])
    MXFP8Matmul.of(arithmetic=arithmetic)
    MXFP8Quantize.of(scale_rule=scale_rule)


def linear(ops: ModuleType, x: Array, w: Array, *, arithmetic: str, scale_rule: str) -> Array:
    """``x @ w.T`` of x and w in MXFP8."""
    quantized = (ops.mxfp8_quantize(operand, scale_rule=scale_rule) for operand in (x, w))
    return ops.mxfp8_matmul(*quantized, arithmetic=arithmetic, out_dtype=x.dtype)


def linear_gradients(
    ops: ModuleType,
    pad: Callable[[Array, int], Array],
    x: Array,
    w: Array,
    grad: Array,
    *,
    arithmetic: str,
    scale_rule: str,
) -> tuple[Array, Array]:
    """The gradients of x and w, straight through the rounding: products of MXFP8 too, quantized along what they sum.

    ``pad(matrix, count)`` adds rows of zeros: the weight's gradient is a sum over rows, in blocks of 32.
    """
    count = math.prod(x.shape[:-1])
    rows, grads = x.reshape(count, x.shape[-1]), grad.reshape(count, grad.shape[-1])
    missing = -count % BLOCK
    along_n, along_rows = ops.mxfp8_quantize_both(pad(grads, missing), scale_rule=scale_rule)
    w_along_n, x_along_rows = (
        ops.mxfp8_quantize_transposed(operand, scale_rule=scale_rule) for operand in (w, pad(rows, missing))
    )
    of_x = ops.mxfp8_matmul(along_n, w_along_n, arithmetic=arithmetic, out_dtype=x.dtype)
    of_w = ops.mxfp8_matmul(along_rows, x_along_rows, arithmetic=arithmetic, out_dtype=w.dtype)
    return of_x[:count].reshape(x.shape), of_w


def check_grouped_linear(
    x: ArraySpec, w: ArraySpec, group_sizes: ArraySpec, rows: ArraySpec | None, arithmetic: str, scale_rule: str
) -> None:
    """Raises unless these are operands of a grouped product with gradients, and its parameters."""
    validate.array("x", x)
    validate.array("w", w)
    validate.axes("x", x, "T, K")
    if len(w.shape) != 3 or w.shape[-1] != x.shape[-1]:
        raise ValueError(f"w must have shape [G, N, {x.shape[-1]}] for x of shape {x.shape}, got {w.shape}")
    validate.blocks("the last axis of x", x.shape[-1])
    validate.blocks("the middle axis of w", w.shape[1])
    validate.indices("group_sizes", group_sizes, "G")
    if group_sizes.shape != w.shape[:1]:
        raise ValueError(f"group_sizes must have shape {w.shape[:1]}, one for each of w, got {group_sizes.shape}")
    if rows is not None:
        validate.indices("rows", rows, "R")
    MXFP8GroupedMatmul.of(arithmetic=arithmetic)
    MXFP8Quantize.of(scale_rule=scale_rule)


@dataclass(frozen=True)
class GroupedLinear:
    """``x[rows] @ w[g].T`` of x and w in MXFP8, and its gradients.

    Attributes:
        ops: A front end.
        xp: Its namespace of functions on arrays.
        run: Calls an op on arrays.
        rows_in_blocks: :func:`rows_in_blocks` of group sizes and a number of rows.
        arithmetic: That of the products.
        scale_rule: That of the rounding.
    """

    ops: ModuleType
    xp: ModuleType
    run: Callable[..., Any]
    rows_in_blocks: Callable[[Array, int], tuple[Array, Array]]
    arithmetic: str
    scale_rule: str

    def product(self, x: Array, w: Array, group_sizes: Array, rows: Array | None) -> Array:
        return self._grouped(x, self._quantized(w), group_sizes, rows, x.dtype)

    def gradient_of_x(self, x: Array, w: Array, group_sizes: Array, rows: Array | None, grad: Array) -> Array:
        """Straight through the rounding: ``grad @ w[g]``, quantized along N; what rows gather is added in fp32."""
        across = self.ops.mxfp8_quantize_transposed(w, scale_rule=self.scale_rule)
        if rows is None:
            return self._grouped(grad, across, group_sizes, None, x.dtype)
        each = self._grouped(grad, across, group_sizes, None, self.xp.float32)
        gathered = MoECombineBackward.of(scale=1.0, out_dtype="float32")
        return self.run(gathered, x, rows[:, None], self._ones(rows), each)[0]

    def gradient_of_w(self, x: Array, w: Array, group_sizes: Array, rows: Array | None, grad: Array) -> Array:
        """Straight through the rounding: ``grad[g].T @ x[g]``, quantized along the rows in blocks of one group."""
        row, sizes = self.rows_in_blocks(group_sizes, grad.shape[0])
        of_x = row if rows is None else self.xp.where(row < 0, row, rows[row.clip(0)])
        gathered = (self._gathered(array, of) for array, of in ((grad, row), (x, of_x)))
        quantized = (self.ops.mxfp8_quantize_transposed(array, scale_rule=self.scale_rule) for array in gathered)
        return self.ops.mxfp8_k_grouped_matmul(*quantized, sizes, arithmetic=self.arithmetic, out_dtype=w.dtype)

    def _grouped(self, x: Array, w: MXFP8, group_sizes: Array, rows: Array | None, out_dtype: Any) -> Array:
        given = {"arithmetic": self.arithmetic, "out_dtype": out_dtype}
        return self.ops.mxfp8_grouped_matmul(self._quantized(x), w, group_sizes, rows, **given)

    def _quantized(self, array: Array) -> MXFP8:
        quantized: MXFP8 = self.ops.mxfp8_quantize(array, scale_rule=self.scale_rule)
        return quantized

    def _gathered(self, array: Array, row: Array) -> Array:
        """These rows of an array, zeros for what is no row."""
        return self.ops.moe_combine(array, row[:, None], self._ones(row), scale=1.0)

    def _ones(self, row: Array) -> Array:
        return self.xp.ones_like(row, dtype=self.xp.float32)[:, None]


def rows_in_blocks(
    xp: ModuleType, arange: Callable[[int], Array], group_sizes: Array, num_rows: int
) -> tuple[Array, Array]:
    """The rows of all groups, each group's filled up to whole blocks with -1, and how many rows each has.

    There are as many blocks as there can be: each group may end in one that has a single row. int64 is needed, since
    sizes may add up to anything.
    """
    groups = group_sizes.shape[0]
    blocks = (num_rows + (BLOCK - 1) * min(groups, num_rows)) // BLOCK if groups else 0
    ends = xp.cumsum(group_sizes.clip(0), 0, dtype=xp.int64).clip(max=num_rows)
    starts = xp.concatenate([xp.zeros_like(ends[:1]), ends[:-1]])
    own = -((starts - ends) // BLOCK)
    after = xp.cumsum(own, 0)
    block = arange(blocks)
    group = xp.searchsorted(after, block, side="right").clip(max=groups - 1)
    first = starts[group] + (block - after[group] + own[group]) * BLOCK
    row = first[:, None] + arange(BLOCK)
    row = xp.where(row < ends[group][:, None], row, -1).reshape(-1)
    return xp.asarray(row, dtype=xp.int32), xp.asarray(ends - starts, dtype=xp.int32)
