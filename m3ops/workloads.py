"""MiniMax-M3's real sizes, named once: what ``python -m m3ops bench`` times and the tests run a few rows of.

Hidden size 6144, heads of dimension 128 (64 q, 4 k and 4 v), dense I = 12288, MoE I = 3072 (128 experts, top-4, one
shared expert). A prefill step has 16384 tokens here, so 65536 expert rows and, at 64 heads, 1048576 rows of the QK
norm; twice as many tokens where q, k and v are packed. Tensor parallelism over 8 devices leaves I / 8.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from m3ops.op import ArraySpec
from m3ops.ops import OPS

HIDDEN = 6144
HEAD_DIM = 128
MOE_SIZE = 3072
DENSE_SIZE = 12288
TENSOR_PARALLEL_SIZE = MOE_SIZE // 8
TOKENS = 16384
EXPERT_ROWS = 4 * TOKENS
HEAD_ROWS = 64 * TOKENS
QKV_HEADS = 64 + 4 + 4
QKV_SIZE = QKV_HEADS * HEAD_DIM
QKV_TOKENS = 2 * TOKENS


@dataclass(frozen=True)
class Workload:
    """One call of an op at a size that the model runs it at.

    Attributes:
        op: Name of the op.
        name: Where in the model the size occurs, unique among the op's.
        num_rows: Rows of the operands.
        size: Elements of a row of the result, I or N.
        inputs: Shapes and dtypes of the array arguments.
        given: Keyword arguments that differ from the defaults.
        small: Whether launch latency decides its speed, not memory bandwidth.
        live: How many of the rows count, given on the device as ``num_rows=``; None for all, without it.
        into: Whether results go to memory that is given as ``out=``.
    """

    op: str
    name: str
    num_rows: int
    size: int
    inputs: tuple[ArraySpec, ...]
    given: Mapping[str, Any] = field(default_factory=dict)
    small: bool = False
    live: int | None = None
    into: bool = False

    @property
    def kind(self) -> str:
        """``"large"``, ``"small"`` or ``"padded"``."""
        return "padded" if self.live is not None else "small" if self.small else "large"

    @property
    def id(self) -> str:
        return f"{self.op}: {self.name}"

    @property
    def params(self) -> dict[str, Any]:
        """All keyword arguments."""
        return OPS[self.op].filled(self.given)

    @property
    def outputs(self) -> tuple[ArraySpec, ...]:
        return OPS[self.op].infer(*self.inputs, **self.params)

    @property
    def bytes_moved(self) -> int:
        """Each input byte read once and each output byte written once; of rows that do not count only zeros written."""
        inputs, outputs = (sum(spec.nbytes for spec in specs) for specs in (self.inputs, self.outputs))
        if self.live is None:
            return inputs + outputs
        alone = replace(self.with_rows(self.live), live=None)
        zeros = 0 if self.into else outputs - sum(spec.nbytes for spec in alone.outputs)
        return alone.bytes_moved + zeros

    def with_rows(self, num_rows: int) -> Workload:
        """The same call with another number of rows."""
        return replace(self, num_rows=num_rows, inputs=_inputs(self.op, num_rows, self.size))


def _inputs(op: str, num_rows: int, size: int) -> tuple[ArraySpec, ...]:
    rows, weight = ArraySpec((num_rows, size), "bfloat16"), ArraySpec((size,), "bfloat16")
    gate_up = ArraySpec((num_rows, 2 * size), "bfloat16")
    head_weight = ArraySpec((HEAD_DIM,), "bfloat16")
    quantized = ArraySpec((num_rows, size), "float8_e4m3fn"), ArraySpec((num_rows, size // 32), "uint8")
    return {
        "swiglu_oai": (gate_up,),
        "swiglu_oai_quantize": (gate_up,),
        "mxfp8_quantize": (rows,),
        "mxfp8_dequantize": quantized,
        "gemma_rmsnorm": (rows, weight),
        "gemma_fused_add_rmsnorm": (rows, rows, weight),
        "gemma_rmsnorm_quantize": (rows, weight),
        "gemma_fused_add_rmsnorm_quantize": (rows, rows, weight),
        "gemma_rmsnorm_heads": (rows, head_weight, head_weight),
    }[op]


MOE_PREFILL = ("MoE prefill", EXPERT_ROWS, MOE_SIZE)
DENSE_PREFILL = ("dense prefill", TOKENS, DENSE_SIZE)
INTERLEAVED_PREFILL = ("MoE prefill, interleaved", EXPERT_ROWS, MOE_SIZE)
SHARED_PREFILL = ("shared expert prefill", TOKENS, MOE_SIZE)
SLICE_PREFILL = ("MoE prefill, TP 8", EXPERT_ROWS, TENSOR_PARALLEL_SIZE)
HIDDEN_PREFILL = ("hidden prefill", TOKENS, HIDDEN)
QKV_PREFILL = ("packed QK norm prefill", QKV_TOKENS, QKV_SIZE)
QK_PREFILL = ("QK norm prefill", HEAD_ROWS, HEAD_DIM)

PADDED_ROWS, LIVE_ROWS = 4096, 8
"""A buffer for the worst case, and what a decode step puts there."""


def _workloads() -> Iterator[Workload]:
    def at(op: str, name: str, num_rows: int, size: int, *, small: bool = False, **given: Any) -> Workload:
        return Workload(op, name, num_rows, size, _inputs(op, num_rows, size), given, small)

    def padded(op: str, size: int) -> Iterator[Workload]:
        whole = at(op, f"{LIVE_ROWS} of {PADDED_ROWS} rows", PADDED_ROWS, size, small=True)
        yield replace(whole, live=LIVE_ROWS)
        yield replace(whole, name=f"{whole.name}, out=", live=LIVE_ROWS, into=True)

    for op in ("swiglu_oai_quantize", "swiglu_oai", "mxfp8_quantize"):
        for prefill in (MOE_PREFILL, DENSE_PREFILL, SHARED_PREFILL, SLICE_PREFILL):
            yield at(op, *prefill)
        for num_rows in (1, 4, 32):
            yield at(op, f"decode, M = {num_rows}", num_rows, MOE_SIZE, small=True)
            yield at(op, f"decode, M = {num_rows}, TP 8", num_rows, TENSOR_PARALLEL_SIZE, small=True)
    for op in ("swiglu_oai_quantize", "swiglu_oai"):
        yield at(op, *INTERLEAVED_PREFILL, layout="interleaved")
        yield at(op, "decode, M = 32, interleaved", 32, MOE_SIZE, small=True, layout="interleaved")
    for prefill in (MOE_PREFILL, SHARED_PREFILL):
        yield at("mxfp8_dequantize", *prefill)
    for op in ("gemma_rmsnorm", "gemma_fused_add_rmsnorm"):
        for prefill in (HIDDEN_PREFILL, QK_PREFILL):
            yield at(op, *prefill)
        for num_rows in (1, 16, 64):
            yield at(op, f"hidden decode, M = {num_rows}", num_rows, HIDDEN, small=True)
    for op in ("gemma_rmsnorm_quantize", "gemma_fused_add_rmsnorm_quantize"):
        yield at(op, *HIDDEN_PREFILL)
        for num_rows in (1, 16, 64):
            yield at(op, f"hidden decode, M = {num_rows}", num_rows, HIDDEN, small=True)
    yield at("gemma_rmsnorm_heads", *QKV_PREFILL)
    for num_rows in (1, 64):
        yield at("gemma_rmsnorm_heads", f"packed QK norm decode, M = {num_rows}", num_rows, QKV_SIZE, small=True)
    yield from padded("swiglu_oai_quantize", MOE_SIZE)
    yield from padded("gemma_fused_add_rmsnorm_quantize", HIDDEN)


WORKLOADS = tuple(_workloads())
