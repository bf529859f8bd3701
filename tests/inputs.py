"""Arrays to try an op with, by the names of its inputs."""

from __future__ import annotations

import functools
from typing import Any

import ml_dtypes
import numpy as np
import torch

from m3ops.op import Op
from m3ops.ops import OPS
from m3ops.testing.arrays import normal
from m3ops.tools import run

INPUTS = {
    "x": normal((4, 6, 128), "bfloat16"),
    "residual": normal((4, 6, 128), "bfloat16", 2.0),
    "weight": normal((128,), "float32"),
    "gate_up": normal((4, 6, 128), "bfloat16"),
    "values": normal((4, 6, 128), "float32").astype(ml_dtypes.float8_e4m3fn),
    "scales": np.arange(4 * 6 * 4, dtype=np.uint8).reshape(4, 6, 4) + 80,
    "x_values": normal((4, 6, 128), "float32").astype(ml_dtypes.float8_e4m3fn),
    "x_scales": np.arange(4 * 6 * 4, dtype=np.uint8).reshape(4, 6, 4) + 80,
    "w_values": normal((8, 128), "float32", 3.0).astype(ml_dtypes.float8_e4m3fn),
    "w_scales": np.arange(8 * 4, dtype=np.uint8).reshape(8, 4) + 110,
    "qkv": normal((4, 6, 12 * 64), "bfloat16"),
    "weight_q": normal((64,), "bfloat16"),
    "weight_k": normal((64,), "float32", 0.5),
    "cos_sin": normal((20, 64), "float32", 0.6),
    "positions": np.array(7, np.int32),
    "weight_index_q": normal((64,), "float16", 0.5),
    "weight_index_k": normal((64,), "bfloat16", 0.25),
    "key_cache": normal((5, 16, 2, 64), "float32", 2.0).astype(ml_dtypes.float8_e4m3fn),
    "value_cache": normal((5, 16, 2, 64), "float32").astype(ml_dtypes.float8_e4m3fn),
    "slot_mapping": np.where(np.arange(24) % 5 == 3, -1, np.arange(24) * 31 % 80).astype(np.int32).reshape(4, 6),
    "index_cache": normal((9, 8, 1, 64), "float16"),
    "index_slot_mapping": (np.arange(24, dtype=np.int32)[::-1] * 25 % 72).reshape(4, 6),
    "k_scale": np.array([0.7], np.float32),
    "v_scale": np.array([0.3], np.float32),
    "q_scale": np.array([0.6], np.float32),
    "w": normal((16, 128), "float32", 0.1),
    "logits": normal((4, 6, 16), "float32"),
    "bias": normal((16,), "float32", 0.25),
    "y": normal((20, 128), "bfloat16"),
    "slots": (np.arange(4 * 6 * 3, dtype=np.int32) * 7 % 23 - 2).reshape(4, 6, 3),
    "weights": normal((4, 6, 3), "float32"),
    "shared": normal((4, 6, 128), "bfloat16"),
    "ids": (np.arange(4 * 6 * 3, dtype=np.int32) * 7 % 11 - 1).reshape(4, 6, 3),
}
"""An array for each input of an op of rows. Arrays of 4 x 6 rows have three axes, and no other has."""

OWN = {
    "swiglu_oai_fake_quant": {**INPUTS, "up": normal((4, 6, 128), "bfloat16", 2.0)},
    **{name: {"x": normal((64, 96), "bfloat16")} for name in ("mxfp8_quantize_transposed", "mxfp8_quantize_both")},
    "moe_scatter_quantize": {
        "x": INPUTS["x"].reshape(24, 128),
        "slots": np.argsort(np.arange(24 * 3, dtype=np.int32) * 29 % 73).astype(np.int32).reshape(24, 3) - 2,
    },
    **{
        name: {**INPUTS, "qkv": normal((4, 6, 15 * 64), "bfloat16")}
        for name in ("gemma_rmsnorm_rope_heads", "gemma_rmsnorm_rope_kv_insert")
    },
    "mxfp8_grouped_matmul": {
        "x_values": INPUTS["x_values"].reshape(24, 128),
        "x_scales": INPUTS["x_scales"].reshape(24, 4),
        "w_values": normal((3, 8, 128), "float32", 3.0).astype(ml_dtypes.float8_e4m3fn),
        "w_scales": np.arange(3 * 8 * 4, dtype=np.uint8).reshape(3, 8, 4) + 80,
        "group_sizes": np.array([10, 0, 11], np.int32),
        "rows": np.arange(22, dtype=np.int32)[::-1].copy(),
    },
    "mxfp8_k_grouped_matmul": {
        **INPUTS,
        "x_values": INPUTS["x_values"].reshape(24, 128),
        "x_scales": INPUTS["x_scales"].reshape(24, 4),
        "group_sizes": np.array([33, 0, 32], np.int32),
    },
}
"""Those of ops whose operands have no leading axes or are matrices, and a qkv with index heads."""

HEADS = {"num_heads_q": 8, "num_heads_k": 2, "num_heads_v": 2}
OF_INDEX = {**HEADS, "num_heads_index_q": 2, "q_dtype": "float8_e4m3fn"}
PARAMETERS: dict[str, dict[str, Any]] = {
    "moe_sort": {"num_experts": 8},
    "gemma_rmsnorm_heads": HEADS,
    "gemma_rmsnorm_rope_heads": OF_INDEX,
    "gemma_rmsnorm_rope_kv_insert": OF_INDEX,
}
"""What a call with all of these inputs has to give beside them; nearly all parameters have defaults."""


def call_of(name: str) -> Op:
    """An op with its parameters."""
    return OPS[name].of(**PARAMETERS.get(name, {}))


def _in_torch(name: str) -> dict[str, Any]:
    dtypes = run.dtype_parameters(OPS[name])
    return {n: getattr(torch, v) if n in dtypes else v for n, v in PARAMETERS.get(name, {}).items()}


TORCH_PARAMETERS = {name: _in_torch(name) for name in OPS}
"""The same as the front end of PyTorch takes them, with its dtypes."""


def jax_function(name: str) -> Any:
    """A public function as one of arrays."""
    return functools.partial(run.jax_function(name), **PARAMETERS.get(name, {}))


COUNTING = [name for name, op in OPS.items() if op.counts_rows]
"""Ops that take ``num_rows``. Those that do not have tests of their own."""

AXES = {name: call_of(name).axes for name in COUNTING}
OPS_OF_ROWS = [name for name, of in AXES.items() if any(own.rows for own in of.inputs) and not of.gathers_rows]
"""Ops that make rows of rows, the leading axes, which do not depend on each other."""

ROWS_FIRST = [name for name in OPS_OF_ROWS if AXES[name].inputs[0].rows]
"""Those whose first input has them."""


def arguments(name: str) -> tuple[np.ndarray, ...]:
    """The inputs of an op in their order; optional ones at the end may be missing."""
    given = OWN.get(name, INPUTS)
    return tuple(given[argument] for argument in OPS[name].inputs if argument in given)
