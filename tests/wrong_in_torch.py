"""Wrong calls, as in wrong_types.py, of arguments that PyTorch alone has, or of what only its tensors can be."""

from __future__ import annotations

import torch
from wrong_types import Table

X, WEIGHT = torch.zeros(4, 64, dtype=torch.bfloat16), torch.zeros(64, dtype=torch.bfloat16)
VALUES, SCALES = torch.zeros(4, 64).to(torch.float8_e4m3fn), torch.zeros(4, 2, dtype=torch.uint8)
BUFFER = torch.zeros(8, 64, dtype=torch.bfloat16)

TORCH_TYPE_ERRORS: Table = {
    "a list of numbers for out": (
        lambda m, a: m.gemma_rmsnorm(X, WEIGHT, out=[1.0]),
        "out must be an array, got float",
    ),
    "another dtype of out": (
        lambda m, a: m.mxfp8_quantize(X, out=(VALUES, SCALES.to(torch.int8))),
        "out[1] must have dtype uint8, got int8",
    ),
}

TORCH_VALUE_ERRORS: Table = {
    "one of two for out": (
        lambda m, a: m.mxfp8_quantize(X, out=VALUES),
        "out must hold 2 tensors, as the result does, got 1",
    ),
    "another shape of out": (
        lambda m, a: m.gemma_rmsnorm(X, WEIGHT, out=BUFFER),
        "out must have shape (4, 64), got (8, 64)",
    ),
    "an out on another device": (
        lambda m, a: m.gemma_rmsnorm(X, WEIGHT, out=BUFFER[:4].to("meta")),
        "out must be on the device of x, cpu, got meta",
    ),
    "rows of out that are not contiguous": (
        lambda m, a: m.gemma_rmsnorm(X, WEIGHT, out=a(64, 4).t()),
        "out must have contiguous rows, got strides (1, 4)",
    ),
    "tiled scales of out that are not contiguous": (
        lambda m, a: m.mxfp8_quantize(X, scale_layout="swizzle_128x4", out=(VALUES, a(128, 8, dtype="uint8")[:, ::2])),
        "out[1] must be contiguous",
    ),
    "one row of out for all": (
        lambda m, a: m.gemma_rmsnorm(X, WEIGHT, out=WEIGHT.expand(4, 64)),
        "out must not overlap itself, got strides (0, 1)",
    ),
    "a part of x for out": (
        lambda m, a: m.gemma_rmsnorm(BUFFER[:4], WEIGHT, out=BUFFER[1:5]),
        "out must not overlap x, unless it is the same tensor",
    ),
    "the weight for out": (
        lambda m, a: m.gemma_rmsnorm(BUFFER[:1], BUFFER[0:1], out=BUFFER[:1]),
        "out must not overlap weight",
    ),
    "a part of gate_up for out": (
        lambda m, a: m.swiglu_oai(BUFFER, out=BUFFER[:, :32]),
        "out must not overlap gate_up",
    ),
    "one memory for both results": (
        lambda m, a: m.gemma_fused_add_rmsnorm(X, X, WEIGHT, out=(BUFFER[:4], BUFFER[3:7])),
        "out[1] must not overlap out[0]",
    ),
    "a derivative of out": (
        lambda m, a: m.gemma_rmsnorm(X, WEIGHT.clone().requires_grad_(), out=BUFFER[:4]),
        "out has no derivative",
    ),
    "examples with out": (
        lambda m, a: torch.func.vmap(lambda x: m.gemma_rmsnorm(x, WEIGHT, out=BUFFER[0]))(X),
        "out has no rule for torch.func.vmap",
    ),
    "a weight on another device": (
        lambda m, a: m.gemma_rmsnorm(X.to("meta"), WEIGHT),
        "weight must be on the device of x, meta, got cpu",
    ),
    "num_rows on another device": (
        lambda m, a: m.gemma_rmsnorm(X, WEIGHT, num_rows=a(1, dtype="int32").to("meta")),
        "num_rows must be on the device of x, cpu, got meta",
    ),
    "tiled scales that are not contiguous": (
        lambda m, a: m.mxfp8_dequantize(m.MXFP8(VALUES, a(128, 8, dtype="uint8")[:, ::2], "swizzle_128x4")),
        "scales must be contiguous, with strides (4, 1), got (8, 2)",
    ),
}
