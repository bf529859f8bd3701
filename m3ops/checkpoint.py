"""Weights of a mixture of experts from a checkpoint in the layout of MiniMax-M3's, as NumPy arrays.

``MiniMaxAI/MiniMax-M3-MXFP8`` stores for each expert gate, up and down, ``w1``, ``w3`` and ``w2``, as E4M3
``[out, in]`` with row-major uint8 scales, ``weight_scale_inv``, which multiply in spite of their name. The names are
those that the loaders of other projects ask for; the checkpoint itself was not read here.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from m3ops import validate
from m3ops.mxfp8 import MXFP8
from m3ops.ops.mxfp8 import MXFP8Quantize

Array = Any
Tensors = Mapping[str, np.ndarray]

DTYPES = {
    "BF16": "bfloat16",
    "F16": "float16",
    "F32": "float32",
    "F8_E4M3": "float8_e4m3fn",
    "F8_E8M0": "uint8",
    "U8": "uint8",
}
"""Those of safetensors that a checkpoint's weights have, by their names there."""

EXPERT = ("w1", "w3", "w2")
SHARED = ("gate_proj", "up_proj", "down_proj")
"""What gate, up and down are called."""


class MoEWeights(NamedTuple):
    """The weights of a mixture of experts: to both frameworks a tree of arrays.

    Attributes:
        router: The router's, fp32 or bfloat16 ``[E, H]``.
        bias: That of the choice of experts, fp32 ``[E]``.
        w13: Gates and ups of the experts, one below the other, an ``MXFP8`` of values ``[E, 2I, H]``.
        w2: The way back, an ``MXFP8`` of values ``[E, H, I]``.
        shared: The same of the expert that every token has; None if there is none, or if it is the last of w13 and w2.
    """

    router: Array
    bias: Array
    w13: Any
    w2: Any
    shared: tuple[Any, Any] | None


def read_safetensors(path: str | Path) -> dict[str, np.ndarray]:
    """The tensors of a file, by name, as views of it: what is not used is not read.

    Raises:
        ValueError: A tensor has a dtype that is not known here.
    """
    memory = np.memmap(path, np.uint8, "r")
    start = 8 + int(memory[:8].view("<u8")[0])
    entries = json.loads(bytes(memory[8:start]))
    entries.pop("__metadata__", None)
    return {name: _tensor(memory[start:], name, **entry) for name, entry in entries.items()}


def _tensor(memory: np.ndarray, name: str, dtype: str, shape: list[int], data_offsets: list[int]) -> np.ndarray:
    if dtype not in DTYPES:
        raise ValueError(f"{name} must have one of the dtypes {', '.join(DTYPES)}, got {dtype}")
    begin, end = data_offsets
    return memory[begin:end].view(DTYPES[dtype]).reshape(shape)


def moe_weights(tensors: Tensors, prefix: str, *, shared_in_stack: bool = False) -> MoEWeights:
    """The weights of one layer: of MXFP8 as they are, of bfloat16 quantized.

    Args:
        tensors: Tensors by their names in the checkpoint.
        prefix: What the names of the layer begin with, such as ``"model.layers.3.block_sparse_moe."``.
        shared_in_stack: Whether the shared expert becomes the last of w13 and w2.

    Raises:
        TypeError: ``shared_in_stack`` is neither True nor False.
        ValueError: There is no such layer, or a part of it is missing, or no shared expert fits the stack.
    """
    validate.flag("shared_in_stack", shared_in_stack)
    count = sum(name.startswith(f"{prefix}experts.") and name.endswith(".w1.weight") for name in tensors)
    if not count:
        raise ValueError(f"tensors must have {prefix}experts.0.w1.weight, got {len(tensors)} others")
    each = [_mlp(tensors, f"{prefix}experts.{expert}.", EXPERT) for expert in range(count)]
    shared = None
    if shared_in_stack:
        each.append(_fitting(_mlp(tensors, f"{prefix}shared_experts.", SHARED), each[0]))
    elif any(name.startswith(f"{prefix}shared_experts.") for name in tensors):
        shared = _mlp(tensors, f"{prefix}shared_experts.", SHARED)
    w13, w2 = (_stacked([pair[way] for pair in each]) for way in range(2))
    return MoEWeights(
        router=_get(tensors, f"{prefix}gate.weight"),
        bias=_get(tensors, f"{prefix}e_score_correction_bias").astype(np.float32),
        w13=w13,
        w2=w2,
        shared=shared,
    )


def _fitting(shared: tuple[MXFP8, MXFP8], expert: tuple[MXFP8, MXFP8]) -> tuple[MXFP8, MXFP8]:
    """A shared expert that is as large as another."""
    own, others = ([q.values.shape for q in pair] for pair in (shared, expert))
    if own != others:
        raise ValueError(f"shared_in_stack must be False for a shared expert of other shapes, got {own} and {others}")
    return shared


def _mlp(tensors: Tensors, prefix: str, names: tuple[str, str, str]) -> tuple[MXFP8, MXFP8]:
    gate, up, down = (_weight(tensors, f"{prefix}{name}.") for name in names)
    values, scales = (np.concatenate(parts) for parts in zip(gate, up, strict=True))
    return MXFP8(values, scales), down


def _weight(tensors: Tensors, prefix: str) -> MXFP8:
    weight = _get(tensors, f"{prefix}weight")
    if weight.dtype.name.startswith("float8"):
        return MXFP8(weight, _get(tensors, f"{prefix}weight_scale_inv"))
    return MXFP8(*MXFP8Quantize.of().reference({"x": weight}).values())


def _stacked(weights: list[MXFP8]) -> MXFP8:
    values, scales = (np.stack(parts) for parts in zip(*weights, strict=True))
    return MXFP8(values, scales)


def _get(tensors: Tensors, name: str) -> np.ndarray:
    if name not in tensors:
        raise ValueError(f"tensors must have {name}, as the others of its layer")
    return tensors[name]


def converted(weights: MoEWeights, convert: Callable[[np.ndarray], Array], kind: type[MXFP8]) -> MoEWeights:
    """The same weights as arrays of a framework."""

    def of(q: MXFP8) -> MXFP8:
        return kind(*map(convert, q))

    router, bias, w13, w2, shared = weights
    beside = None if shared is None else (of(shared[0]), of(shared[1]))
    return MoEWeights(convert(router), convert(bias), of(w13), of(w2), beside)
