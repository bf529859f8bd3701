"""SwiGLU-OAI: the gated activation of gpt-oss and MiniMax-M3.

    activation = (gate * sigmoid(alpha * gate)) * (up + beta)
    gate = min(gate, limit),  up = clamp(up, -limit, limit)

with ``gate_up = [gate | up]`` along the last axis (layout ``"split"``), or alternating, ``[gate_0, up_0, gate_1, up_1,
...]`` (``"interleaved"``), or with ``groups = T`` that T times, one pair after another: what the shards of a
tensor-parallel projection make together. Or gate and up are two arrays, as two projections return them. Source: vLLM's
``swiglu_oai_split`` for MiniMax-M3; the formula goes back to gpt-oss, where gates and ups alternate. The arithmetic is
fp32.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, ClassVar, Self

from m3ops import validate
from m3ops.array import ArraySpec
from m3ops.axes import Axes
from m3ops.numerics.exact import fp32, functions
from m3ops.numerics.scale_layouts import ROW_MAJOR
from m3ops.op import Array, Arrays, Derivative, DTypeName, Op, Specs, parameter
from m3ops.ops.mxfp8.scales_spec import check_groups, check_layout, rows_axes
from m3ops.ops.mxfp8.spec import GROUP_SIZES, FusedRounding, GroupedQuantization
from m3ops.plan import Plan
from m3ops.target import Target

LAYOUTS = ("split", "interleaved")

SMALLEST_ALPHA = 2.0**-64
"""Below it, but for 0, products of the sigmoid's argument would be subnormal."""

WHOLE_BLOCKS = " with I / groups a multiple of 32"
GATE_UP = (
    "``[gate | up]`` along the last axis, shape ``[..., 2 * I]``{blocks}; bfloat16, float16 or float32. With ``up`` "
    "the gates alone, ``[..., I]``."
)
UP = (
    "The ups where they are an array of their own, like ``gate_up``; None where they are a part of it. With it "
    '``groups`` is 1 and ``layout`` is ``"split"``.'
)

OUT_DTYPE: Any = parameter(None, "bfloat16, float16 or float32; by default the dtype of ``gate_up``.")


@dataclass(frozen=True)
class Activation(Op):
    """What every SwiGLU-OAI op takes."""

    optional: ClassVar[Collection[str]] = ("up",)
    value_error: ClassVar[str] = "The last axis does not hold whole groups of pairs, or up has another shape"
    whole_blocks: ClassVar[bool] = False
    """Whether MXFP8 blocks have to fill the groups of the activation."""

    alpha: float = parameter(
        1.702, "Slope of the sigmoid, a Python number, 0 or at least 2**-64; 0 makes the sigmoid 1/2."
    )
    beta: float = parameter(1.0, "Offset of ``up``.")
    limit: float | None = parameter(7.0, "Clamp bound above 0, or None for no clamp.")
    layout: str = parameter(
        "split", '``"split"`` for ``[gate | up]``, ``"interleaved"`` where they alternate, ``[g0, u0, g1, u1, ...]``.'
    )
    groups: int = parameter(
        1,
        "Number of pairs ``[gate | up]`` along the last axis: the number of devices among which tensor parallelism "
        "divides I.",
    )

    def __post_init__(self) -> None:
        self._canonical(
            alpha=validate.number("alpha", self.alpha, low=0.0, high=2.0**64),
            beta=validate.number("beta", self.beta),
            limit=None if self.limit is None else validate.number("limit", self.limit, above=0.0),
            groups=validate.count("groups", self.groups),
        )
        if 0 < self.alpha < SMALLEST_ALPHA:
            raise ValueError(f"alpha must be 0 or at least {SMALLEST_ALPHA:g}, got {self.alpha}")
        validate.choice("layout", self.layout, LAYOUTS)
        super().__post_init__()

    def activation_spec(self, gate_up: ArraySpec, up: ArraySpec | None = None) -> ArraySpec:
        """Validates the inputs and returns what the activation is like, in their dtype."""
        validate.array("gate_up", gate_up)
        if up is not None:
            return self._apart(gate_up, up)
        if gate_up.shape[-1] % (2 * self.groups):
            wanted = "an even last axis, [gate | up]"
            if self.groups > 1:
                wanted = f"a last axis of {self.groups} groups [gate | up]"
            raise ValueError(f"gate_up must have {wanted}, got shape {gate_up.shape}")
        size = gate_up.shape[-1] // 2
        if self.whole_blocks:
            half = "half the last axis of gate_up" if self.groups == 1 else "half a group of gate_up"
            validate.blocks(half, size // self.groups)
        return ArraySpec((*gate_up.shape[:-1], size), gate_up.dtype)

    def _apart(self, gate: ArraySpec, up: ArraySpec) -> ArraySpec:
        """The same for two arrays."""
        validate.same("up", up, "gate_up", gate)
        if self.groups > 1:
            raise ValueError(f"groups must be 1 where up is an array of its own, got {self.groups}")
        if self.layout != "split":
            raise ValueError(f"layout must be 'split' where up is an array of its own, got {self.layout!r}")
        if self.whole_blocks:
            validate.blocks("the last axis of gate_up", gate.shape[-1])
        return ArraySpec(gate.shape, gate.dtype)

    def unfolded(self) -> tuple[int, Self] | None:
        return (self.groups, replace(self, groups=1)) if self.groups > 1 else None

    def halves(self, gate_up: Array, up: Array | None = None) -> tuple[Array, Array]:
        """The gates and ups, ``[..., groups, I / groups]``, or as they are where they are two arrays."""
        if up is not None:
            return gate_up, up
        pairs = gate_up.reshape(*gate_up.shape[:-1], self.groups, gate_up.shape[-1] // self.groups)
        size = pairs.shape[-1] // 2
        if self.layout == "split":
            return pairs[..., :size], pairs[..., size:]
        return pairs[..., 0::2], pairs[..., 1::2]

    def activate(self, gate_up: Array, up: Array | None = None) -> Array:
        """The fp32 activation."""
        gate, up = self.halves(gate_up, up)
        activation = functions.swiglu_oai(gate, up, self.alpha, self.beta, self.limit)
        *leading, _ = gate_up.shape
        return activation.reshape(*leading, math.prod(gate.shape[len(leading) :]))


@dataclass(frozen=True)
class FloatActivation(Activation):
    """What those take that give the activation as floats. They share a derivative."""

    out_dtype: DTypeName | None = OUT_DTYPE

    def __post_init__(self) -> None:
        if self.out_dtype is not None:
            validate.output_dtype("out_dtype", self.out_dtype)
        super().__post_init__()

    @property
    def axes(self) -> Axes:
        return Axes.of("*r {i}, *r {i} -> *r {i}".format(i="I!" if self.whole_blocks else "i"))

    def axes_of(self, operands: Collection[str]) -> Axes:
        if "up" in operands:
            return self.axes
        return Axes.of("*r (g 2! i!) -> *r (g i!)" if self.groups > 1 else "*r I! -> *r I!")

    @property
    def derivative(self) -> Derivative:
        params = {field.name: getattr(self, field.name) for field in fields(Activation)}
        return Derivative(SwigluOAIBackward.of(**params), {"gate_up": "grad_gate_up", "up": "grad_up"})

    def infer(self, gate_up: ArraySpec, up: ArraySpec | None = None) -> dict[str, ArraySpec]:
        return {"activation": replace(self.activation_spec(gate_up, up), dtype=self.out_dtype or gate_up.dtype)}

    def compute(self, gate_up: Array, up: Array | None = None) -> Arrays:
        return {"activation": fp32.store(self.activate(gate_up, up), self.out_dtype or gate_up.dtype.name)}


@dataclass(frozen=True)
class SwigluOAI(FloatActivation):
    """SwiGLU-OAI: ``(gate * sigmoid(alpha * gate)) * (up + beta)`` of clamped gates and ups."""

    name: ClassVar[str] = "swiglu_oai"
    inputs: ClassVar[Mapping[str, str]] = {"gate_up": GATE_UP.format(blocks=""), "up": UP}
    returns: ClassVar[str] = "The activation, shape ``[..., I]``, rounded once from fp32."

    def plan(self, specs: Specs, target: Target, *, keep: Collection[str] = ()) -> Plan:
        from m3ops.ops.swiglu_oai.plan import activation_plan

        return activation_plan(self, specs, target, keep=keep)


@dataclass(frozen=True)
class SwigluOAIQuantize(GroupedQuantization, FusedRounding, Activation):
    """:func:`swiglu_oai` and :func:`mxfp8_quantize` of the activation in one pass over memory."""

    name: ClassVar[str] = "swiglu_oai_quantize"
    inputs: ClassVar[Mapping[str, str]] = {
        "gate_up": GATE_UP.format(blocks=WHOLE_BLOCKS),
        "up": UP,
        "group_sizes": GROUP_SIZES.format(layout="``scale_layout``", results="values"),
    }
    optional: ClassVar[Collection[str]] = ("up", "group_sizes")
    returns: ClassVar[str] = "Values ``[..., I]`` and scales ``[..., I / 32]``, padded in a tiled layout."
    result_type: ClassVar[str] = "MXFP8"
    value_error: ClassVar[str] = "I / groups is not a multiple of 32, or up has another shape"
    whole_blocks: ClassVar[bool] = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.groups > 1 and self.scale_layout != ROW_MAJOR:
            raise ValueError(f"groups must be 1 for scale_layout={self.scale_layout!r}, got {self.groups}")

    @property
    def axes(self) -> Axes:
        if self.groups > 1:  # then there is no up
            return Axes.of("*r (g 2! i!), *r (g i!), G! -> *r (g i!), *r (g i!)")
        own = rows_axes(self.scale_layout)
        return Axes.of(f"{own}, {own}, G! -> {own}, {own}")

    def infer(
        self, gate_up: ArraySpec, up: ArraySpec | None = None, group_sizes: ArraySpec | None = None
    ) -> dict[str, ArraySpec]:
        activation = self.activation_spec(gate_up, up)
        check_layout(self.scale_layout, "gate_up", gate_up)
        check_groups(self.scale_layout, "gate_up", gate_up, group_sizes)
        return self.quantized_specs(activation, self.scale_layout, group_sizes)

    def compute(self, gate_up: Array, up: Array | None = None, group_sizes: Array | None = None) -> Arrays:
        activation = self.rounded(self.activate(gate_up, up), gate_up.dtype.name)
        return self.quantize(activation, self.scale_layout, group_sizes)

    def plan(self, specs: Specs, target: Target, *, keep: Collection[str] = ()) -> Plan:
        from m3ops.ops.swiglu_oai.plan import quantize_plan

        return quantize_plan(self, specs, target, keep=keep)


@dataclass(frozen=True)
class SwigluOAIFakeQuant(FusedRounding, FloatActivation):
    """:func:`swiglu_oai` after a round trip through MXFP8, for training with quantized activations.

    The result is ``mxfp8_dequantize(swiglu_oai_quantize(gate_up))``. Its gradient is that of :func:`swiglu_oai`: it
    passes straight through the rounding.
    """

    name: ClassVar[str] = "swiglu_oai_fake_quant"
    inputs: ClassVar[Mapping[str, str]] = {"gate_up": GATE_UP.format(blocks=WHOLE_BLOCKS), "up": UP}
    returns: ClassVar[str] = "The activation, shape ``[..., I]``."
    value_error: ClassVar[str] = "I / groups is not a multiple of 32, or up has another shape"
    whole_blocks: ClassVar[bool] = True

    def activate(self, gate_up: Array, up: Array | None = None) -> Array:
        rounded = self.quantize(self.rounded(super().activate(gate_up, up), gate_up.dtype.name))
        return functions.dequantize_blocks(rounded["values"], rounded["scales"])

    def plan(self, specs: Specs, target: Target, *, keep: Collection[str] = ()) -> Plan:
        from m3ops.ops.swiglu_oai.plan import fake_quant_plan

        return fake_quant_plan(self, specs, target, keep=keep)


@dataclass(frozen=True)
class SwigluOAIBackward(Activation):
    """The gradient of SwiGLU-OAI.

        grad_gate = grad * (s * (1 + alpha * gate * (1 - s)) * (up + beta)),  s = sigmoid(alpha * gate)
        grad_up   = grad * (gate * s)

    of the clamped gate and up, and 0 where the clamp cut something off. At the bound itself it does not, and the
    gradient passes; the clamps of PyTorch and JAX give 0, 1/2 or 1 times the gradient there.
    """

    name: ClassVar[str] = "swiglu_oai_backward"
    inputs: ClassVar[Mapping[str, str]] = {"gate_up": "", "grad": "", "up": ""}

    @property
    def axes(self) -> Axes:
        return Axes.of("*r i, *r i, *r i -> *r i, *r i")

    def axes_of(self, operands: Collection[str]) -> Axes:
        if "up" in operands:
            return self.axes
        return Axes.of("*r (g 2! i!), *r (g i!) -> *r (g 2! i!)" if self.groups > 1 else "*r I!, *r I! -> *r I!")

    def infer(self, gate_up: ArraySpec, grad: ArraySpec, up: ArraySpec | None = None) -> dict[str, ArraySpec]:
        shape = self.activation_spec(gate_up, up).shape
        validate.array("grad", grad)
        if grad.shape != shape:
            raise ValueError(f"grad must have shape {shape} for gate_up of shape {gate_up.shape}, got {grad.shape}")
        like = ArraySpec(gate_up.shape, gate_up.dtype)
        return {"grad_gate_up": like} if up is None else {"grad_gate_up": like, "grad_up": like}

    def compute(self, gate_up: Array, grad: Array, up: Array | None = None) -> Arrays:
        gate, other = map(fp32.load, self.halves(gate_up, up))
        dy = fp32.load(grad).reshape(gate.shape)
        halves = functions.swiglu_oai_backward(gate, other, dy, self.alpha, self.beta, self.limit)
        if up is not None:
            return {n: fp32.store(x, up.dtype.name) for n, x in zip(("grad_gate_up", "grad_up"), halves, strict=True)}
        together = dy.__array_namespace__().stack(halves, axis=-2 if self.layout == "split" else -1)
        return {"grad_gate_up": fp32.store(together, gate_up.dtype.name).reshape(gate_up.shape)}

    def plan(self, specs: Specs, target: Target, *, keep: Collection[str] = ()) -> Plan:
        from m3ops.ops.swiglu_oai.plan import backward_plan

        return backward_plan(self, specs, target, keep=keep)
