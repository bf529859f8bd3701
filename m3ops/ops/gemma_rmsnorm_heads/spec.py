"""Gemma's RMSNorm of the q and k heads of a packed qkv: MiniMax-M3's QK norm, with and without rotary embedding.

    norm = [norm(q_0) ... norm(q_last) | norm(k_0) ... norm(k_last) | v]

with the norm of :mod:`m3ops.ops.gemma_rmsnorm.spec` over each head by itself, ``weight_q`` for all q heads and
``weight_k`` for all k heads; the v heads keep their bytes. With rotary embedding, x_i and y_i, elements i and
``i + rotary_dim / 2`` of a normed head, are then turned by an angle, for i below ``rotary_dim / 2``:

    [cos | sin] = cos_sin[position]
    x_i, y_i = x_i * cos_i - y_i * sin_i, y_i * cos_i + x_i * sin_i

The rest of the head stays, and the norm is not rounded before it is turned.

A layer with sparse attention also has the heads of its indexer in the row, after v, and the same is done to them:

    [q | k | v | index_q | index_k]

That is the row that the projection of such a layer gives in vLLM and that the kernels of vLLM and aiter read.
MiniMax-M3 has 4 index_q heads and one index_k head, of the same head_dim, with a weight for each of the two kinds and
the angles of q and k.

An attention that multiplies E4M3 takes q in E4M3: ``q / q_scale`` of the turned q, which is not rounded before, the
quotient rounded to fp32 and then to E4M3, where too large a number becomes the largest and NaN stays NaN.

Sources: ``qk_norm_type = "per_head"`` with ``use_gemma_norm`` in MiniMax-M3's configuration, as vLLM's
``vllm/models/minimax_m3`` reads it; for rotary embedding and index heads vLLM's
``fused_minimax_m3_qknorm_rope_kv_insert``, whose ``q_fp8_out`` q in E4M3 is, and aiter's
``fused_qknorm_idxrqknorm``; for the row vLLM's ``MinimaxM3QKVParallelLinearWithIndexer``.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from m3ops import validate
from m3ops.array import ArraySpec
from m3ops.axes import Axes
from m3ops.numerics.constants import SUM_GROUP
from m3ops.numerics.exact import fp32, functions
from m3ops.numerics.formats import FP8_FORMATS
from m3ops.op import Array, Arrays, DTypeName, Op, Specs, parameter
from m3ops.ops.gemma_rmsnorm.spec import EPS, WEIGHT_OFFSET
from m3ops.plan import Plan
from m3ops.target import Target

MAX_HEAD_DIM = 1024
E4M3_DTYPES = tuple(fmt.name for fmt in FP8_FORMATS.values())
QKV = "Shape ``[..., (num_heads_q + num_heads_k + num_heads_v) * head_dim]``; bfloat16, float16 or float32."
WEIGHT = "Shape ``[head_dim]``, or with leading axes that broadcast against those of qkv; any of these dtypes."
COS_SIN = (
    "Shape ``[max_position, rotary_dim]``, in each row the cosines of the angles, then their sines; any of these "
    "dtypes. ``m3ops.rope.rope_cos_sin`` makes it."
)
INDEX_WEIGHT = (
    "For the {0} heads of an indexer, which follow v in the row: as weight_q; None where there are none. It is given "
    "with weight_index_{1} or not at all."
)
POSITIONS = (
    "The rows of cos_sin: int32 or int64 of the leading axes of qkv, or of axes that broadcast against those. At a "
    "position that the table does not have, what is turned is NaN."
)

Q_SCALE = "What q is divided by where it has a q_dtype: float32 of one element, ``[1]``; None for 1."

Kinds = Sequence[tuple[str, int, Any]]
"""The kinds of heads in the order of a row: name, number of heads, and their weight, None for those that keep their
bytes.
"""


@dataclass(frozen=True)
class NormOfHeads(Op):
    """What both ops take."""

    in_place: ClassVar[bool] = True

    num_heads_q: int = parameter(64, "Number of q heads, at least 1.")
    num_heads_k: int = parameter(4, "Number of k heads, at least 1.")
    num_heads_v: int = parameter(4, "Number of v heads, 0 if there are none.")
    eps: float = parameter(1e-6, EPS)
    weight_offset: float = parameter(1.0, WEIGHT_OFFSET)

    def __post_init__(self) -> None:
        self._canonical(
            num_heads_q=validate.count("num_heads_q", self.num_heads_q),
            num_heads_k=validate.count("num_heads_k", self.num_heads_k),
            num_heads_v=validate.count("num_heads_v", self.num_heads_v, low=0),
            eps=validate.number("eps", self.eps, low=0.0),
            weight_offset=validate.number("weight_offset", self.weight_offset),
        )
        super().__post_init__()

    def kinds(self, weight_q: Any, weight_k: Any) -> Kinds:
        """The kinds of heads of a row, with weights or what these are like."""
        return ("q", self.num_heads_q, weight_q), ("k", self.num_heads_k, weight_k), ("v", self.num_heads_v, None)

    def check_heads(self, qkv: ArraySpec, kinds: Kinds) -> ArraySpec:
        """Validates what both ops take and returns what the result is like."""
        weights = {f"weight_{kind}": weight for kind, _, weight in kinds if weight is not None}
        for name, spec in {"qkv": qkv, **weights}.items():
            validate.array(name, spec)
        shape = weights["weight_q"].shape
        size = shape[-1]
        if not 0 < size <= MAX_HEAD_DIM:
            raise ValueError(
                f"weight_q must have a last axis, head_dim, of 1 to {MAX_HEAD_DIM} elements, got shape {shape}"
            )
        wanted = size * sum(number for _, number, _ in kinds)
        if qkv.shape[-1] != wanted:
            *first, last = (f"{number} {kind}" for kind, number, _ in kinds)
            raise ValueError(
                f"qkv must have a last axis of {wanted}, for {', '.join(first)} and {last} heads of {size}, "
                f"got shape {qkv.shape}"
            )
        for name, spec in weights.items():
            if spec.shape[-1] != size or not validate.broadcasts(spec.shape[:-1], qkv.shape[:-1]):
                raise ValueError(
                    f"{name} must have shape ({size},) or broadcast against qkv {qkv.shape}, got {spec.shape}"
                )
        return ArraySpec(qkv.shape, qkv.dtype)

    def heads(self, qkv: Array, kinds: Kinds, then: Callable[[Array], Array] = lambda norm: norm) -> Arrays:
        """The heads of each kind: those with a weight normed, in fp32, and passed through a function, v as in qkv.

        All norms are one expression, which XLA compiles sooner than one for each kind.
        """
        xp = qkv.__array_namespace__()
        total = sum(number for _, number, _ in kinds)
        heads = _split(qkv.reshape(*qkv.shape[:-1], total, qkv.shape[-1] // total), kinds)
        normed = [(kind, number, weight) for kind, number, weight in kinds if weight is not None]
        x = fp32.load(xp.concatenate([heads[kind] for kind, *_ in normed], axis=-2))
        leading = np.broadcast_shapes(*(weight.shape[:-1] for *_, weight in normed))
        weights = [
            xp.broadcast_to(fp32.load(weight)[..., None, :], (*leading, number, weight.shape[-1]))
            for _, number, weight in normed
        ]
        norms = then(functions.rmsnorm(x, xp.concatenate(weights, axis=-2), self.eps, self.weight_offset))
        return {**heads, **_split(norms, normed)}

    def packed(self, qkv: Array, heads: Arrays) -> Array:
        """The heads as a row of the dtype of qkv."""
        parts = [own if kind == "v" else fp32.store(own, qkv.dtype.name) for kind, own in heads.items()]
        return qkv.__array_namespace__().concatenate(parts, axis=-2).reshape(qkv.shape)

    def plan(self, specs: Specs, target: Target, *, keep: Collection[str] = ()) -> Plan:
        from m3ops.ops.gemma_rmsnorm_heads.plan import heads_plan

        return heads_plan(self, specs, target, keep=keep)


@dataclass(frozen=True)
class GemmaRMSNormHeads(NormOfHeads):
    """QK norm: :func:`gemma_rmsnorm` of each q and k head of a packed qkv in one launch; v keeps its bytes."""

    name: ClassVar[str] = "gemma_rmsnorm_heads"
    inputs: ClassVar[Mapping[str, str]] = {"qkv": QKV, "weight_q": WEIGHT, "weight_k": WEIGHT}
    returns: ClassVar[str] = "The shape and dtype of qkv, with q and k rounded once from fp32."

    @property
    def axes(self) -> Axes:
        return Axes.of("*r N!, *r? H!, *r? H! -> *r N!")

    def infer(self, qkv: ArraySpec, weight_q: ArraySpec, weight_k: ArraySpec) -> dict[str, ArraySpec]:
        return {"norm": self.check_heads(qkv, self.kinds(weight_q, weight_k))}

    def compute(self, qkv: Array, weight_q: Array, weight_k: Array) -> Arrays:
        return {"norm": self.packed(qkv, self.heads(qkv, self.kinds(weight_q, weight_k)))}


@dataclass(frozen=True)
class GemmaRMSNormRopeHeads(NormOfHeads):
    """QK norm and rotary embedding: :func:`gemma_rmsnorm` of each q and k head of a packed qkv, turned by the angles of
    its position before it is rounded, in one launch; v keeps its bytes. With the weights of an indexer the row is
    ``[q | k | v | index_q | index_k]``, and its heads are normed and turned likewise.
    """

    name: ClassVar[str] = "gemma_rmsnorm_rope_heads"
    inputs: ClassVar[Mapping[str, str]] = {
        **GemmaRMSNormHeads.inputs,
        "qkv": f"{QKV} With index heads these are in the last axis too.",
        "cos_sin": COS_SIN,
        "positions": POSITIONS,
        "weight_index_q": INDEX_WEIGHT.format("index_q", "k"),
        "weight_index_k": INDEX_WEIGHT.format("index_k", "q"),
        "q_scale": Q_SCALE,
    }
    optional: ClassVar[Collection[str]] = ("weight_index_q", "weight_index_k", "q_scale")
    returns: ClassVar[str] = (
        "The shape and dtype of qkv, with the heads of every kind but v rounded once from fp32. With ``q_dtype``, "
        "``(qkv, q)``: q has shape ``[..., num_heads_q * head_dim]``, and in qkv it keeps its bytes."
    )
    result_type: ClassVar[str] = "{array} | tuple[{array}, {array}]"

    rotary_dim: int = parameter(64, "How many elements of a head are turned, the first ones: a multiple of 16.")
    num_heads_index_q: int = parameter(4, "Number of index_q heads where there are any, at least 1.")
    num_heads_index_k: int = parameter(1, "Number of index_k heads where there are any, at least 1.")
    q_dtype: DTypeName | None = parameter(  # noqa: RUF009
        None, "An E4M3 dtype in which q is a result of its own; None for q in the row, as the other heads are."
    )

    def __post_init__(self) -> None:
        if self.q_dtype is not None:
            validate.output_dtype("q_dtype", self.q_dtype, E4M3_DTYPES)
        self._canonical(
            rotary_dim=validate.count("rotary_dim", self.rotary_dim),
            num_heads_index_q=validate.count("num_heads_index_q", self.num_heads_index_q),
            num_heads_index_k=validate.count("num_heads_index_k", self.num_heads_index_k),
        )
        if self.rotary_dim % (2 * SUM_GROUP):  # else a group of the norm's sum would be in both halves
            raise ValueError(f"rotary_dim must be a multiple of {2 * SUM_GROUP}, got {self.rotary_dim}")
        super().__post_init__()

    @property
    def axes(self) -> Axes:
        return Axes.of("*r N!, *r? H!, *r? H!, p! d!, *r?, *r? H!, *r? H!, o! -> *r N!, *r q!")

    def axes_of(self, operands: Collection[str]) -> Axes:
        axes = super().axes_of(operands)
        return axes if self.q_dtype is not None else Axes(axes.inputs, (axes.results[0], *axes.results[2:]))

    def kinds(self, weight_q: Any, weight_k: Any, weight_index_q: Any = None, weight_index_k: Any = None) -> Kinds:
        kinds = super().kinds(weight_q, weight_k)
        if weight_index_q is None:
            return kinds
        index_q = ("index_q", self.num_heads_index_q, weight_index_q)
        return *kinds, index_q, ("index_k", self.num_heads_index_k, weight_index_k)

    def infer(
        self,
        qkv: ArraySpec,
        weight_q: ArraySpec,
        weight_k: ArraySpec,
        cos_sin: ArraySpec,
        positions: ArraySpec,
        weight_index_q: ArraySpec | None = None,
        weight_index_k: ArraySpec | None = None,
        q_scale: ArraySpec | None = None,
    ) -> dict[str, ArraySpec]:
        for missing, one, other in (("q", weight_index_q, weight_index_k), ("k", weight_index_k, weight_index_q)):
            if one is None and other is not None:
                raise ValueError(f"weight_index_{missing} must be given with that of the other index heads, got None")
        norm = self.check_heads(qkv, self.kinds(weight_q, weight_k, weight_index_q, weight_index_k))
        if self.rotary_dim > weight_q.shape[-1]:
            raise ValueError(f"rotary_dim must be at most head_dim, {weight_q.shape[-1]}, got {self.rotary_dim}")
        validate.array("cos_sin", cos_sin)
        if len(cos_sin.shape) != 2 or cos_sin.shape[0] == 0 or cos_sin.shape[1] != self.rotary_dim:
            raise ValueError(f"cos_sin must have shape [max_position, {self.rotary_dim}], got {cos_sin.shape}")
        validate.dtype("positions", positions, ("int32", "int64"))
        if not validate.broadcasts(positions.shape, qkv.shape[:-1]):
            raise ValueError(
                f"positions must have the leading axes of qkv, {qkv.shape[:-1]}, or broadcast against them, "
                f"got shape {positions.shape}"
            )
        if q_scale is not None:
            check_scale("q_scale", q_scale)
        if self.q_dtype is None:
            if q_scale is not None:
                raise ValueError("q_scale must be None where q_dtype is")
            return {"norm": norm}
        return {"norm": norm, "q": ArraySpec((*qkv.shape[:-1], self.num_heads_q * weight_q.shape[-1]), self.q_dtype)}

    def compute(
        self,
        qkv: Array,
        weight_q: Array,
        weight_k: Array,
        cos_sin: Array,
        positions: Array,
        weight_index_q: Array | None = None,
        weight_index_k: Array | None = None,
        q_scale: Array | None = None,
    ) -> Arrays:
        kinds = self.kinds(weight_q, weight_k, weight_index_q, weight_index_k)
        return self.row_and_q(qkv, self.heads(qkv, kinds, self.turn(cos_sin, positions)), q_scale)

    def row_and_q(self, qkv: Array, heads: Arrays, q_scale: Array | None) -> Arrays:
        """The results, by name, from the heads of each kind."""
        row = self.packed(qkv, heads)
        if self.q_dtype is None:
            return {"norm": row}
        q = stored(heads["q"], self.q_dtype, q_scale)
        q = q.reshape(*qkv.shape[:-1], self.num_heads_q * q.shape[-1])
        size = q.shape[-1]
        return {"norm": qkv.__array_namespace__().concatenate([qkv[..., :size], row[..., size:]], axis=-1), "q": q}

    @staticmethod
    def turn(cos_sin: Array, positions: Array) -> Callable[[Array], Array]:
        """What turns the norms of the rows at these positions."""
        cos, sin = functions.cos_and_sin(cos_sin, positions)
        return lambda norm: functions.rotate_halves(norm, cos[..., None, :], sin[..., None, :])


def _split(heads: Array, kinds: Kinds) -> Arrays:
    """Heads, the axis before the last, by kind."""
    ends = itertools.accumulate(number for _, number, _ in kinds)
    return {kind: heads[..., end - number : end, :] for (kind, number, _), end in zip(kinds, ends, strict=True)}


def check_scale(name: str, scale: ArraySpec) -> None:
    """Validates what heads are divided by before they are rounded to E4M3."""
    validate.dtype(name, scale, ("float32",))
    if scale.shape != (1,):
        raise ValueError(f"{name} must have shape (1,), got {scale.shape}")


def stored(heads: Array, dtype: str, scale: Array | None) -> Array:
    """Heads, in fp32 or as they were, in another dtype."""
    if heads.dtype.name == dtype:
        return heads
    x = heads if heads.dtype.name == "float64" else fp32.load(heads)
    return fp32.store(x if scale is None else fp32.round32(x / fp32.load(scale)), dtype)
