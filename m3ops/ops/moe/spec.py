"""What MiniMax-M3's mixture of experts does around its matrix products.

    logit   = x @ w.T
    score   = sigmoid(logit)
    ids     = the top_k indices with the largest score + bias, the largest first
    weights = score[ids] / sum(score[ids])
    result  = scale * sum over j of weights[j] * y[slots[j]] + shared

in fp32. The bias takes part in the choice alone (``use_routing_bias``). Among equal sums the lower index comes first. A
NaN is larger than infinity here, as it is to ``jax.lax.top_k`` and ``torch.topk``, so that it is seen in the weights.
The rows of y are those of the experts' product, in any order; their sum has the order of the slots. Sources:
MiniMax-M3 in Transformers and in vLLM, whose order among equal experts is not specified; ``scale`` is
``routed_scaling_factor``, which vLLM applies to the sum too, and other kernels to each weight.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import MISSING, dataclass
from typing import Any, ClassVar

from m3ops import validate
from m3ops.array import ArraySpec
from m3ops.axes import Axes
from m3ops.numerics.constants import float32
from m3ops.numerics.exact import experts, fp32
from m3ops.op import Array, Arrays, Derivative, DTypeName, Op, Specs, parameter
from m3ops.plan import Plan
from m3ops.target import Target

MAX_EXPERTS = 4096
"""Logits that a program keeps in registers."""

OUT_DTYPE: Any = parameter(None, "bfloat16, float16 or float32; by default the dtype of y.")

MAX_TOP_K = 32
"""A kernel goes through its row once for each expert that it chooses, and reads the row of each expert's result."""


@dataclass(frozen=True)
class MoELogits(Op):
    """The router's product ``x @ w.T`` in fp32 and one order, so that a token gets the same experts on every machine.

    A result is a sum of 128 chains of fma, each over every 128th element, which are added by halves.
    """

    name: ClassVar[str] = "moe_logits"
    inputs: ClassVar[Mapping[str, str]] = {
        "x": "The tokens, shape ``[..., H]``; bfloat16, float16 or float32.",
        "w": "The router's weight, ``[E, H]`` in any of these dtypes; MiniMax-M3's is float32.",
    }
    returns: ClassVar[str] = "The logits, float32 ``[..., E]``."

    @property
    def axes(self) -> Axes:
        return Axes.of("*r H!, e H! -> *r e")

    @property
    def derivative(self) -> Derivative:
        return Derivative(MoELogitsBackward.of(), {"x": "grad_x", "w": "grad_w"})

    def infer(self, x: ArraySpec, w: ArraySpec) -> dict[str, ArraySpec]:
        validate.array("x", x)
        validate.array("w", w)
        if len(w.shape) != 2 or w.shape[-1] != x.shape[-1]:
            raise ValueError(f"w must have shape [E, {x.shape[-1]}] for x of shape {x.shape}, got {w.shape}")
        return {"logits": ArraySpec((*x.shape[:-1], w.shape[0]), "float32")}

    def compute(self, x: Array, w: Array) -> Arrays:
        return {"logits": fp32.store(experts.linear(fp32.load(x), fp32.load(w)), "float32")}

    def plan(self, specs: Specs, target: Target, *, keep: Collection[str] = ()) -> Plan:
        from m3ops.ops.moe.plan import logits_plan

        return logits_plan(self, specs, target, keep=keep)


@dataclass(frozen=True)
class MoELogitsBackward(Op):
    """The gradients of the tokens and of the weight of :class:`MoELogits`, products of fp32 too.

        grad_x = grad @ w
        grad_w = sum over all tokens of outer(grad, x)

    Each number is a sum of 128 chains as a logit is, over the experts, or over the tokens in their order.
    """

    name: ClassVar[str] = "moe_logits_backward"
    inputs: ClassVar[Mapping[str, str]] = {"x": "", "w": "", "grad": ""}

    @property
    def axes(self) -> Axes:
        return Axes.of("*r H!, e! H!, *r e! -> *r H!, *r+ e! H!")

    def infer(self, x: ArraySpec, w: ArraySpec, grad: ArraySpec) -> dict[str, ArraySpec]:
        validate.same("grad", grad, "the logits", MoELogits.of().infer(x, w)["logits"])
        return {"grad_x": ArraySpec(x.shape, x.dtype), "grad_w": ArraySpec(w.shape, w.dtype)}

    def compute(self, x: Array, w: Array, grad: Array) -> Arrays:
        of_x, of_w = experts.linear_backward(*map(fp32.load, (x, w, grad)))
        return {"grad_x": fp32.store(of_x, x.dtype.name), "grad_w": fp32.store(of_w, w.dtype.name)}

    def plan(self, specs: Specs, target: Target, *, keep: Collection[str] = ()) -> Plan:
        from m3ops.ops.moe.plan import logits_backward_plan

        return logits_backward_plan(self, specs, target)


@dataclass(frozen=True)
class Routing(Op):
    """What a choice of experts and its gradient take."""

    top_k: int = parameter(4, "Number of experts of a token, 1 to 32, and at most E.")

    def __post_init__(self) -> None:
        self._canonical(top_k=validate.count("top_k", self.top_k))
        if self.top_k > MAX_TOP_K:
            raise ValueError(f"top_k must be at most {MAX_TOP_K}, got {self.top_k}")
        super().__post_init__()


@dataclass(frozen=True)
class MoERoute(Routing):
    """The experts of each token: the ``top_k`` largest of ``sigmoid(logits) + bias``, and their weights, in fp32.

    The largest comes first, and among equal ones the lower index. A NaN is larger than infinity. A weight is the
    sigmoid, without the bias, over the sum of the sigmoids that are chosen.
    """

    shared_experts: int = parameter(
        0,
        "Number of experts that every token has. Numbered from E on, they follow the chosen ones in ids, and have no "
        "weight.",
    )

    name: ClassVar[str] = "moe_route"
    inputs: ClassVar[Mapping[str, str]] = {
        "logits": "The router's logits, shape ``[..., E]``, E at most 4096; bfloat16, float16 or float32.",
        "bias": "Shape ``[E]``, or with leading axes that broadcast against those of logits; any of these dtypes.",
    }
    returns: ClassVar[str] = "``(ids, weights)``, int32 ``[..., top_k + shared_experts]`` and float32 ``[..., top_k]``."
    result_type: ClassVar[str] = "tuple[{array}, {array}]"

    def __post_init__(self) -> None:
        self._canonical(shared_experts=validate.count("shared_experts", self.shared_experts, low=0))
        super().__post_init__()
        if self.top_k + self.shared_experts > MAX_TOP_K:
            raise ValueError(
                f"top_k + shared_experts must be at most {MAX_TOP_K}, got {self.top_k} + {self.shared_experts}"
            )

    @property
    def axes(self) -> Axes:
        return Axes.of("*r E!, *r? E! -> *r i!, *r k!")

    @property
    def derivative(self) -> Derivative:
        return Derivative(MoERouteBackward.of(top_k=self.top_k), {"logits": "grad_logits"})

    def infer(self, logits: ArraySpec, bias: ArraySpec) -> dict[str, ArraySpec]:
        check_logits(logits, bias, self.top_k)
        leading = logits.shape[:-1]
        ids = ArraySpec((*leading, self.top_k + self.shared_experts), "int32")
        return {"ids": ids, "weights": ArraySpec((*leading, self.top_k), "float32")}

    def compute(self, logits: Array, bias: Array) -> Arrays:
        ids, weights, _, _ = experts.route(fp32.load(logits), fp32.load(bias), self.top_k)
        ids = experts.with_shared(ids, logits.shape[-1], self.shared_experts)
        return {"ids": ids.astype("int32"), "weights": fp32.store(weights, "float32")}

    def plan(self, specs: Specs, target: Target, *, keep: Collection[str] = ()) -> Plan:
        from m3ops.ops.moe.plan import route_plan

        return route_plan(self, specs, target, keep=keep)


@dataclass(frozen=True)
class MoERouteBackward(Routing):
    """The gradient of the logits of :class:`MoERoute` through the weights; the choice, and so the bias, has none.

        grad_logits[j] = weights[j] * (grad_weights[j] - sum over i of grad_weights[i] * weights[i]) * (1 - score[j])

    for the chosen experts, and 0 for the others.
    """

    name: ClassVar[str] = "moe_route_backward"
    inputs: ClassVar[Mapping[str, str]] = {"logits": "", "bias": "", "grad_weights": ""}

    @property
    def axes(self) -> Axes:
        return Axes.of("*r E!, *r? E!, *r k! -> *r E!")

    def infer(self, logits: ArraySpec, bias: ArraySpec, grad_weights: ArraySpec) -> dict[str, ArraySpec]:
        check_logits(logits, bias, self.top_k)
        validate.same("grad_weights", grad_weights, "weights", ArraySpec((*logits.shape[:-1], self.top_k), "float32"))
        return {"grad_logits": ArraySpec(logits.shape, logits.dtype)}

    def compute(self, logits: Array, bias: Array, grad_weights: Array) -> Arrays:
        gradient = experts.route_backward(*map(fp32.load, (logits, bias, grad_weights)))
        return {"grad_logits": fp32.store(gradient, logits.dtype.name)}

    def plan(self, specs: Specs, target: Target, *, keep: Collection[str] = ()) -> Plan:
        from m3ops.ops.moe.plan import route_backward_plan

        return route_backward_plan(self, specs, target)


@dataclass(frozen=True)
class MoESort(Op):
    """Sorts the slots of all tokens by expert: slot ``t * k + j`` is the j-th expert of token t.

    Slots of one expert keep their order. Those whose id is no expert's, below 0 or not below ``num_experts``, come last
    and are not counted, so a device can leave out the experts of other devices. The call does not wait for the device.
    """

    num_experts: int = parameter(MISSING, "Number of experts, 1 to 4096.")
    tokens: bool = parameter(
        False, "Whether ``order`` lists the token of each slot in its place, as ``rows`` of a grouped product."
    )

    name: ClassVar[str] = "moe_sort"
    inputs: ClassVar[Mapping[str, str]] = {"ids": "Shape ``[..., k]``, int32, as :func:`moe_route` returns them."}
    returns: ClassVar[str] = (
        "``(order, slots, group_sizes)``, int32. ``order`` lists the slots by expert; ``slots``, of the shape of ids, "
        "is the place of each slot in ``order``. ``group_sizes``, ``[num_experts]``, says how many slots each expert "
        "has."
    )
    result_type: ClassVar[str] = "tuple[{array}, {array}, {array}]"
    value_error: ClassVar[str] = "ids has no axis"
    counts_rows: ClassVar[bool] = False
    counts_buffers: ClassVar[bool] = False

    def __post_init__(self) -> None:
        self._canonical(num_experts=validate.count("num_experts", self.num_experts))
        if self.num_experts > MAX_EXPERTS:
            raise ValueError(f"num_experts must be at most {MAX_EXPERTS}, got {self.num_experts}")
        validate.flag("tokens", self.tokens)
        super().__post_init__()

    @property
    def axes(self) -> Axes:
        return Axes.of("*r k! -> s!, *r k!, e!")

    def infer(self, ids: ArraySpec) -> dict[str, ArraySpec]:
        validate.array("ids", ids, ("int32",))
        shapes = {"order": (ids.size,), "slots": ids.shape, "group_sizes": (self.num_experts,)}
        return {name: ArraySpec(shape, "int32") for name, shape in shapes.items()}

    def compute(self, ids: Array) -> Arrays:
        order, slots, group_sizes = experts.sort(ids, self.num_experts)
        results = {"order": order // self.each(ids), "slots": slots, "group_sizes": group_sizes}
        return {name: result.astype("int32") for name, result in results.items()}

    def each(self, ids: Array | ArraySpec) -> int:
        """How many slots in a row have the same number in ``order``."""
        return max(ids.shape[-1], 1) if self.tokens else 1

    def plan(self, specs: Specs, target: Target, *, keep: Collection[str] = ()) -> Plan:
        from m3ops.ops.moe.sort_plan import sort_plan

        return sort_plan(self, specs, target)


@dataclass(frozen=True)
class Combination(Op):
    """What a sum of experts' results and its gradient take."""

    scale: float = parameter(2.0, "Factor of the sum, MiniMax-M3's ``routed_scaling_factor``.")
    out_dtype: DTypeName | None = OUT_DTYPE

    def __post_init__(self) -> None:
        self._canonical(scale=validate.number("scale", self.scale))
        if self.out_dtype is not None:
            validate.output_dtype("out_dtype", self.out_dtype)
        super().__post_init__()

    def check_sum(self, y: ArraySpec, slots: ArraySpec, weights: ArraySpec) -> ArraySpec:
        """Validates what is summed, and returns what the sum is like."""
        check_slots(y, slots, weights)
        return ArraySpec((*slots.shape[:-1], y.shape[-1]), self.out_dtype or y.dtype)


@dataclass(frozen=True)
class MoECombine(Combination):
    """The sum of what each token's experts return: ``scale * sum(weights * y[slots]) + shared``, in the order of the
    slots.
    """

    name: ClassVar[str] = "moe_combine"
    inputs: ClassVar[Mapping[str, str]] = {
        "y": "What the experts return, a row for each token and expert in any order, ``[R, N]``; bfloat16, float16 or "
        "float32.",
        "slots": "Which row of y each expert of a token returned, int32 ``[..., k]``, k at most 32. A number that is "
        "no row's, such as -1, contributes nothing.",
        "weights": "The weight of each, float32, of the shape of slots.",
        "shared": "What is added to each sum, such as the result of an expert that all tokens have, ``[..., N]`` in "
        "any of these dtypes; None for nothing.",
    }
    optional: ClassVar[Collection[str]] = ("shared",)
    returns: ClassVar[str] = "The sums, shape ``[..., N]``, rounded once from fp32."

    @property
    def axes(self) -> Axes:
        return Axes.of("R! n, *r k!, *r k!, *r n -> *r n")

    @property
    def derivative(self) -> Derivative:
        backward = MoECombineBackward.of(scale=self.scale, out_dtype=self.out_dtype)
        return Derivative(backward, {"y": "grad_y", "weights": "grad_weights"}, added=("shared",))

    def infer(
        self, y: ArraySpec, slots: ArraySpec, weights: ArraySpec, shared: ArraySpec | None = None
    ) -> dict[str, ArraySpec]:
        result = self.check_sum(y, slots, weights)
        if shared is not None:
            validate.array("shared", shared)
            if shared.shape != result.shape:
                raise ValueError(f"shared must have the shape of the result, {result.shape}, got {shared.shape}")
        return {"result": result}

    def compute(self, y: Array, slots: Array, weights: Array, shared: Array | None = None) -> Arrays:
        total, scale = experts.combine(y, slots, fp32.load(weights)), float32(self.scale)
        result = fp32.round32(total * scale) if shared is None else fp32.fma(total, scale, fp32.load(shared))
        return {"result": fp32.store(result, self.out_dtype or y.dtype.name)}

    def plan(self, specs: Specs, target: Target, *, keep: Collection[str] = ()) -> Plan:
        from m3ops.ops.moe.plan import combine_plan

        return combine_plan(self, specs, target, keep=keep)


@dataclass(frozen=True)
class MoECombineBackward(Combination):
    """The gradients of y and of the weights of :class:`MoECombine`; slots have none.

        grad_y[slots[j]] = weights[j] * scale * grad
        grad_weights[j]  = scale * sum of grad * y[slots[j]]

    A row of y that several slots name gets the sum over them, one that none names gets 0, and so does the weight of a
    slot that names no row.
    """

    name: ClassVar[str] = "moe_combine_backward"
    inputs: ClassVar[Mapping[str, str]] = {"y": "", "slots": "", "weights": "", "grad": ""}

    @property
    def axes(self) -> Axes:
        return Axes.of("R! N!, *r k!, *r k!, *r N! -> R! N!, *r k!")

    def infer(self, y: ArraySpec, slots: ArraySpec, weights: ArraySpec, grad: ArraySpec) -> dict[str, ArraySpec]:
        validate.same("grad", grad, "the result", self.check_sum(y, slots, weights))
        return {"grad_y": ArraySpec(y.shape, y.dtype), "grad_weights": ArraySpec(weights.shape, weights.dtype)}

    def compute(self, y: Array, slots: Array, weights: Array, grad: Array) -> Arrays:
        numbers = map(fp32.load, (weights, grad))
        of_y, of_weights = experts.combine_backward(y, slots, *numbers, scale=float32(self.scale))
        return {"grad_y": fp32.store(of_y, y.dtype.name), "grad_weights": fp32.store(of_weights, "float32")}

    def plan(self, specs: Specs, target: Target, *, keep: Collection[str] = ()) -> Plan:
        from m3ops.ops.moe.plan import combine_backward_plan

        return combine_backward_plan(self, specs, target)


def check_logits(logits: ArraySpec, bias: ArraySpec, top_k: int) -> None:
    """Validates what a choice of experts takes."""
    validate.array("logits", logits)
    validate.array("bias", bias)
    experts = logits.shape[-1]
    if not top_k <= experts <= MAX_EXPERTS:
        raise ValueError(
            f"logits must have a last axis of {top_k} (top_k) to {MAX_EXPERTS} elements, got shape {logits.shape}"
        )
    if bias.shape[-1] != experts or not validate.broadcasts(bias.shape[:-1], logits.shape[:-1]):
        raise ValueError(
            f"bias must have shape ({experts},) or broadcast against logits {logits.shape}, got {bias.shape}"
        )


def check_slots(y: ArraySpec, slots: ArraySpec, weights: ArraySpec) -> None:
    """Validates what is summed."""
    validate.array("y", y)
    if len(y.shape) != 2:
        raise ValueError(f"y must have two axes, [R, N], got shape {y.shape}")
    validate.array("slots", slots, ("int32",))
    if not 0 < slots.shape[-1] <= MAX_TOP_K:
        raise ValueError(f"slots must have a last axis of 1 to {MAX_TOP_K} elements, got shape {slots.shape}")
    validate.array("weights", weights, ("float32",))
    if weights.shape != slots.shape:
        raise ValueError(f"weights must have the shape of slots, {slots.shape}, got {weights.shape}")
