"""Gemma's RMSNorm, with weights stored as offsets from 1, with and without residual add and MXFP8 quantization.

    norm = x / sqrt(mean(x**2) + eps) * (weight + weight_offset)

along the last axis, in fp32, rounded once to the dtype of x. ``weight_offset=0`` is the RMSNorm of most other models
(arXiv:1910.07467). With a residual, ``new_residual = x + residual`` is what is normalized: the norm sees the unrounded
fp32 sum. Sources: Gemma (arXiv:2403.08295); vLLM's ``GemmaRMSNorm`` and ``gemma_fused_add_rmsnorm``. Leading axes of
the weight broadcast against those of x.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import ClassVar

from m3ops import validate
from m3ops.array import ArraySpec
from m3ops.axes import Axes
from m3ops.numerics import row_sums
from m3ops.numerics.constants import MAX_NORM_SIZE
from m3ops.numerics.exact import fp32, functions, namespaces
from m3ops.op import Array, Arrays, Derivative, Op, Specs, parameter
from m3ops.ops.mxfp8.scales_spec import check_matrix, matrix_axes
from m3ops.ops.mxfp8.spec import FusedRounding, Quantization
from m3ops.plan import Plan
from m3ops.target import Target

X = "Shape ``[..., N]``{blocks}; bfloat16, float16 or float32."
RESIDUAL = "The residual stream, of the shape of x; any of these dtypes, such as float32 beside x in bfloat16."
WEIGHT = "Shape ``[N]``, or with leading axes that broadcast against those of x; any of these dtypes."
EPS = "Added to the mean square, at least 0."
WEIGHT_OFFSET = "Added to the weight: 1 where a model stores offsets from 1, as Gemma does; 0 for the ordinary RMSNorm."
WHOLE_BLOCKS = " with N a multiple of 32"


@dataclass(frozen=True)
class Norm(Op):
    """What every norm takes."""

    in_place: ClassVar[bool] = True

    eps: float = parameter(1e-6, EPS)
    weight_offset: float = parameter(1.0, WEIGHT_OFFSET)

    def __post_init__(self) -> None:
        self._canonical(
            eps=validate.number("eps", self.eps, low=0.0),
            weight_offset=validate.number("weight_offset", self.weight_offset),
        )
        super().__post_init__()

    def plan(self, specs: Specs, target: Target, *, keep: Collection[str] = ()) -> Plan:
        from m3ops.ops.gemma_rmsnorm.plan import norm_plan

        return norm_plan(self, specs, target, keep=keep)


@dataclass(frozen=True)
class GemmaRMSNorm(Norm):
    """Gemma's RMSNorm, ``x / sqrt(mean(x**2) + eps) * (weight + weight_offset)`` along the last axis, in fp32."""

    name: ClassVar[str] = "gemma_rmsnorm"
    inputs: ClassVar[Mapping[str, str]] = {"x": X.format(blocks=""), "weight": WEIGHT}
    returns: ClassVar[str] = "The norm, of the shape and dtype of x, rounded once from fp32."

    @property
    def axes(self) -> Axes:
        return Axes.of("*r N!, *r? N! -> *r N!")

    @property
    def derivative(self) -> Derivative:
        return Derivative(
            GemmaRMSNormBackward.of(eps=self.eps, weight_offset=self.weight_offset),
            {"x": "grad_x", "weight": "grad_weight"},
        )

    def infer(self, x: ArraySpec, weight: ArraySpec) -> dict[str, ArraySpec]:
        return {"norm": check_norm(x, weight)}

    def compute(self, x: Array, weight: Array) -> Arrays:
        norm = functions.rmsnorm(fp32.load(x), fp32.load(weight), self.eps, self.weight_offset)
        return {"norm": fp32.store(norm, x.dtype.name)}


@dataclass(frozen=True)
class GemmaFusedAddRMSNorm(Norm):
    """Residual add and :func:`gemma_rmsnorm` of the unrounded fp32 sum in one pass over memory."""

    name: ClassVar[str] = "gemma_fused_add_rmsnorm"
    inputs: ClassVar[Mapping[str, str]] = {"x": X.format(blocks=""), "residual": RESIDUAL, "weight": WEIGHT}
    returns: ClassVar[str] = (
        "``(norm, x + residual)``, both of the shape of x and rounded once from fp32: the norm to the dtype of x, the "
        "sum to that of residual."
    )
    result_type: ClassVar[str] = "tuple[{array}, {array}]"
    updates: ClassVar[Mapping[str, str]] = {"residual": "new_residual"}

    @property
    def axes(self) -> Axes:
        return Axes.of("*r N!, *r N!, *r? N! -> *r N!, *r N!")

    @property
    def derivative(self) -> Derivative:
        gradients = {"x": "grad_x", "residual": "grad_x", "weight": "grad_weight"}
        backward = GemmaFusedAddRMSNormBackward.of(eps=self.eps, weight_offset=self.weight_offset)
        return Derivative(backward, gradients)

    def infer(self, x: ArraySpec, residual: ArraySpec, weight: ArraySpec) -> dict[str, ArraySpec]:
        norm = check_norm(x, weight)
        return {"norm": norm, "new_residual": check_residual(x, residual)}

    def compute(self, x: Array, residual: Array, weight: Array) -> Arrays:
        total = fp32_sum(x, residual)
        norm = functions.rmsnorm(total, fp32.load(weight), self.eps, self.weight_offset)
        return {
            "norm": fp32.store(norm, x.dtype.name),
            "new_residual": fp32.store(total, residual.dtype.name),
        }


@dataclass(frozen=True)
class QuantizedNorm(Quantization, FusedRounding, Norm):
    """What every norm takes whose result is MXFP8."""

    value_error: ClassVar[str] = "The shapes do not fit each other, or N is not a multiple of 32"
    counts_buffers: ClassVar[bool] = False  # on gfx950 the kernel would have more scalars than registers

    out_norm: bool = parameter(
        False, "Whether to return the norm too, rounded to the dtype of x: MiniMax-M3's router reads it."
    )

    def __post_init__(self) -> None:
        validate.flag("out_norm", self.out_norm)
        super().__post_init__()

    def normalize(self, x: Array, weight: Array, dtype: str) -> Arrays:
        """Values and scales of the norm of fp32 numbers, and the norm itself if it is asked for."""
        norm = functions.rmsnorm(x, fp32.load(weight), self.eps, self.weight_offset)
        results = self.quantize(self.rounded(norm, dtype), self.scale_layout)
        return {**results, "norm": fp32.store(norm, dtype)} if self.out_norm else results


@dataclass(frozen=True)
class GemmaRMSNormQuantize(QuantizedNorm):
    """:func:`gemma_rmsnorm` and :func:`mxfp8_quantize` of the norm in one pass over memory."""

    name: ClassVar[str] = "gemma_rmsnorm_quantize"
    inputs: ClassVar[Mapping[str, str]] = {"x": X.format(blocks=WHOLE_BLOCKS), "weight": WEIGHT}
    returns: ClassVar[str] = (
        "An ``MXFP8`` of values ``[..., N]`` and scales ``[..., N / 32]``, padded in a tiled layout; with "
        "``out_norm``, ``(MXFP8, norm)``. The norm has the dtype of x."
    )
    result_type: ClassVar[str] = "MXFP8 | tuple[MXFP8, {array}]"

    @property
    def axes(self) -> Axes:
        own = matrix_axes(self.scale_layout)
        return Axes.of(f"*r {own}, *r? N! -> *r {own}, *r {own}" + f", *r {own}" * self.out_norm)

    def infer(self, x: ArraySpec, weight: ArraySpec) -> dict[str, ArraySpec]:
        norm = check_norm(x, weight)
        check_matrix(self.scale_layout, "x", x)
        results = self.quantized_specs(x, self.scale_layout)
        return {**results, "norm": norm} if self.out_norm else results

    def compute(self, x: Array, weight: Array) -> Arrays:
        return self.normalize(fp32.load(x), weight, x.dtype.name)


@dataclass(frozen=True)
class GemmaFusedAddRMSNormQuantize(QuantizedNorm):
    """:func:`gemma_fused_add_rmsnorm` and :func:`mxfp8_quantize` of its norm in one pass over memory."""

    name: ClassVar[str] = "gemma_fused_add_rmsnorm_quantize"
    inputs: ClassVar[Mapping[str, str]] = {
        "x": X.format(blocks=WHOLE_BLOCKS),
        "residual": RESIDUAL,
        "weight": WEIGHT,
    }
    returns: ClassVar[str] = (
        "``(MXFP8, x + residual)``; with ``out_norm``, ``(MXFP8, x + residual, norm)``. The ``MXFP8`` has values "
        "``[..., N]`` and scales ``[..., N / 32]``, padded in a tiled layout. The sum has the dtype of residual, the "
        "norm that of x."
    )
    result_type: ClassVar[str] = "tuple[MXFP8, {array}] | tuple[MXFP8, {array}, {array}]"
    updates: ClassVar[Mapping[str, str]] = {"residual": "new_residual"}

    @property
    def axes(self) -> Axes:
        own = matrix_axes(self.scale_layout)
        return Axes.of(f"*r {own}, *r {own}, *r? N! -> *r {own}, *r {own}, *r {own}" + f", *r {own}" * self.out_norm)

    def infer(self, x: ArraySpec, residual: ArraySpec, weight: ArraySpec) -> dict[str, ArraySpec]:
        norm, new_residual = check_norm(x, weight), check_residual(x, residual)
        check_matrix(self.scale_layout, "x", x)
        results = {**self.quantized_specs(x, self.scale_layout), "new_residual": new_residual}
        return {**results, "norm": norm} if self.out_norm else results

    def compute(self, x: Array, residual: Array, weight: Array) -> Arrays:
        total = fp32_sum(x, residual)
        results = self.normalize(total, weight, x.dtype.name)
        norm = {"norm": results.pop("norm")} if self.out_norm else {}
        return {**results, "new_residual": fp32.store(total, residual.dtype.name), **norm}


@dataclass(frozen=True)
class NormBackward(Norm):
    """The gradients of a norm with respect to x and its weight.

        grad_x      = rstd * (h - n * mean(h * n)) + grad_new_residual,  n = (x + residual) * rstd,
                                                                         h = grad * (weight + weight_offset)
        grad_weight = sum over rows of grad * n

    with ``rstd = 1 / sqrt(mean((x + residual)**2) + eps)``, in fp32, rounded once to the dtypes of x and weight. The
    mean does not depend on the order of addition; the sum over rows has one order, that of ``functions.sum_rows``.
    Leading axes of the weight broadcast against those of x; the sum runs over the other axes only.
    """

    in_place: ClassVar[bool] = False

    def plan(self, specs: Specs, target: Target, *, keep: Collection[str] = ()) -> Plan:
        from m3ops.ops.gemma_rmsnorm.backward_plan import backward_plan

        return backward_plan(self, specs, target, keep=keep)

    def gradients(self, x: Array, weight: Array, grad: Array) -> tuple[Array, Array, Array]:
        """The results of ``functions.rmsnorm_backward`` for fp32 rows and gradients."""
        return functions.rmsnorm_backward(x, fp32.load(weight), grad, self.eps, self.weight_offset)


@dataclass(frozen=True)
class GemmaRMSNormBackward(NormBackward):
    """The gradients of :class:`GemmaRMSNorm`, see :class:`NormBackward`."""

    name: ClassVar[str] = "gemma_rmsnorm_backward"
    inputs: ClassVar[Mapping[str, str]] = {"x": "", "weight": "", "grad": ""}

    @property
    def axes(self) -> Axes:
        return Axes.of("*r N!, *r? N!, *r N! -> *r N!, *r?+ N!")

    def infer(self, x: ArraySpec, weight: ArraySpec, grad: ArraySpec) -> dict[str, ArraySpec]:
        grad_x = check_norm(x, weight)
        validate.same("grad", grad, "x", x)
        return {"grad_x": grad_x, "grad_weight": ArraySpec(weight.shape, weight.dtype)}

    def compute(self, x: Array, weight: Array, grad: Array) -> Arrays:
        dy = fp32.load(grad)
        rstd, inner, normalized = self.gradients(fp32.load(x), weight, dy)
        grad_x = fp32.store(fp32.round32(rstd * inner), x.dtype.name)
        return {"grad_x": grad_x, "grad_weight": weight_gradient(dy, normalized, weight)}


@dataclass(frozen=True)
class GemmaFusedAddRMSNormBackward(NormBackward):
    """The gradients of :class:`GemmaFusedAddRMSNorm`, see :class:`NormBackward`; that of the residual is that of x.

    The last product and sum of ``grad_x`` are one fma. It is fp32 where x and the residual have two dtypes, to which it
    is then rounded.
    """

    name: ClassVar[str] = "gemma_fused_add_rmsnorm_backward"
    inputs: ClassVar[Mapping[str, str]] = {"x": "", "residual": "", "weight": "", "grad": "", "grad_new_residual": ""}

    @property
    def axes(self) -> Axes:
        return Axes.of("*r N!, *r N!, *r? N!, *r N!, *r N! -> *r N!, *r?+ N!")

    def infer(
        self, x: ArraySpec, residual: ArraySpec, weight: ArraySpec, grad: ArraySpec, grad_new_residual: ArraySpec
    ) -> dict[str, ArraySpec]:
        check_norm(x, weight)
        check_residual(x, residual)
        validate.same("grad", grad, "x", x)
        validate.same("grad_new_residual", grad_new_residual, "residual", residual)
        grad_x = ArraySpec(x.shape, _dtype_of_both(x.dtype, residual.dtype))
        return {"grad_x": grad_x, "grad_weight": ArraySpec(weight.shape, weight.dtype)}

    def compute(self, x: Array, residual: Array, weight: Array, grad: Array, grad_new_residual: Array) -> Arrays:
        total, dy = namespaces.barrier(fp32_sum(x, residual)), fp32.load(grad)
        rstd, inner, normalized = self.gradients(total, weight, dy)
        grad_x = fp32.fma(rstd, inner, fp32.load(grad_new_residual))
        return {
            "grad_x": fp32.store(grad_x, _dtype_of_both(x.dtype.name, residual.dtype.name)),
            "grad_weight": weight_gradient(dy, normalized, weight),
        }


def check_norm(x: ArraySpec, weight: ArraySpec) -> ArraySpec:
    """Validates what every norm takes and returns what the norm is like."""
    validate.array("x", x)
    validate.array("weight", weight)
    if not 0 < x.shape[-1] <= MAX_NORM_SIZE:
        raise ValueError(f"x must have a last axis of 1 to {MAX_NORM_SIZE} elements, got shape {x.shape}")
    if weight.shape[-1] != x.shape[-1] or not validate.broadcasts(weight.shape[:-1], x.shape[:-1]):
        raise ValueError(
            f"weight must have shape ({x.shape[-1]},) or broadcast against x {x.shape}, got {weight.shape}"
        )
    return ArraySpec(x.shape, x.dtype)


def check_residual(x: ArraySpec, residual: ArraySpec) -> ArraySpec:
    """Validates a residual and returns what the new one is like."""
    validate.array("residual", residual)
    validate.same_shape("residual", residual, "x", x)
    return ArraySpec(residual.shape, residual.dtype)


def _dtype_of_both(x: str, residual: str) -> str:
    return x if x == residual else "float32"


def fp32_sum(x: Array, residual: Array) -> Array:
    """The sum that a norm with residual add normalizes."""
    return fp32.round32(fp32.load(x) + fp32.load(residual))


def weight_gradient(grad: Array, normalized: Array, weight: Array) -> Array:
    """The sum of ``grad * normalized`` over the rows that share a row of the weight."""
    total = functions.sum_rows(*(row_sums.grouped(rows, weight.shape) for rows in (grad, normalized)))
    return fp32.store(total, weight.dtype.name).reshape(weight.shape)
