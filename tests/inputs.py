"""Arrays to try an op with, by the names of its inputs."""

from __future__ import annotations

import ml_dtypes
import numpy as np

from m3ops.testing.arrays import normal

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
    "qkv": normal((4, 6, 72 * 64), "bfloat16"),
    "weight_q": normal((64,), "bfloat16"),
    "weight_k": normal((64,), "float32", 0.5),
    "cos_sin": normal((20, 64), "float32", 0.6),
    "positions": np.array(7, np.int32),
}
"""An array for each input of an op. Arrays of 4 x 6 rows have three axes, and no other has."""
