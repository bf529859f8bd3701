"""Wrong calls: what is wrong, the call of a front end ``m`` with arrays made by ``a``, and a part of the message."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch

Table = dict[str, tuple[Callable[[Any, Any], Any], str]]


def _quantized(m: Any, a: Any, *shape: int) -> Any:
    """An ``MXFP8`` of this front end."""
    return m.MXFP8(a(*shape, dtype="float8_e4m3fn"), a(*shape[:-1], shape[-1] // 32, dtype="uint8"))


TYPE_ERRORS: Table = {
    "a product of unquantized values": (
        lambda m, a: m.mxfp8_matmul(m.MXFP8(a(4, 64), a(4, 2, dtype="uint8")), _quantized(m, a, 8, 64)),
        "x_values must have dtype float8_e4m3fn or float8_e4m3fnuz, got bfloat16",
    ),
    "a product to float8": (
        lambda m, a: m.mxfp8_matmul(
            _quantized(m, a, 4, 64), _quantized(m, a, 8, 64), out_dtype=a(1, dtype="float8_e4m3fn").dtype
        ),
        "out_dtype must be bfloat16, float16 or float32, got float8_e4m3fn",
    ),
    "float32 group_sizes": (
        lambda m, a: m.mxfp8_grouped_matmul(_quantized(m, a, 4, 64), _quantized(m, a, 2, 8, 64), a(2, dtype="float32")),
        "group_sizes must have dtype int32, got float32",
    ),
    "rows in bfloat16": (
        lambda m, a: m.mxfp8_grouped_matmul(
            _quantized(m, a, 4, 64), _quantized(m, a, 2, 8, 64), a(2, dtype="int32"), rows=a(3)
        ),
        "rows must have dtype int32, got bfloat16",
    ),
    "rows as a list": (
        lambda m, a: m.mxfp8_grouped_matmul(
            _quantized(m, a, 4, 64), _quantized(m, a, 2, 8, 64), a(2, dtype="int32"), rows=[1, 2]
        ),
        "rows must be an array, got list",
    ),
    "group_sizes that are None": (
        lambda m, a: m.mxfp8_grouped_matmul(_quantized(m, a, 4, 64), _quantized(m, a, 2, 8, 64), None),
        "group_sizes must be an array, got NoneType",
    ),
    "a list": (lambda m, a: m.swiglu_oai([1.0, 2.0]), "gate_up must be an array, got list"),
    "None": (lambda m, a: m.mxfp8_quantize(None), "x must be an array, got NoneType"),
    "a number for weight": (lambda m, a: m.gemma_rmsnorm(a(2, 8), 1.0), "weight must be an array, got float"),
    "int32 gate_up": (
        lambda m, a: m.swiglu_oai(a(2, 64, dtype="int32")),
        "gate_up must have dtype bfloat16, float16 or float32, got int32",
    ),
    "fp8 x": (
        lambda m, a: m.mxfp8_quantize(a(2, 64, dtype="float8_e4m3fn")),
        "x must have dtype bfloat16, float16 or float32, got float8_e4m3fn",
    ),
    "uint8 values": (
        lambda m, a: m.mxfp8_dequantize(m.MXFP8(a(2, 64, dtype="uint8"), a(2, 2, dtype="uint8"))),
        "values must have dtype float8_e4m3fn or float8_e4m3fnuz, got uint8",
    ),
    "int8 scales": (
        lambda m, a: m.mxfp8_dequantize(m.MXFP8(a(2, 64, dtype="float8_e4m3fn"), a(2, 2, dtype="int8"))),
        "scales must have dtype uint8, got int8",
    ),
    "a residual of another dtype": (
        lambda m, a: m.gemma_fused_add_rmsnorm(a(2, 64), a(2, 64, dtype="float32"), a(64)),
        "residual must have the dtype of x, bfloat16, got float32",
    ),
    "a float for num_heads_k": (
        lambda m, a: m.gemma_rmsnorm_heads(a(2, 32), a(8), a(8), num_heads_k=4.0),
        "num_heads_k must be a Python integer, known before the kernel is compiled, got float",
    ),
    "an int32 weight_q": (
        lambda m, a: m.gemma_rmsnorm_heads(a(2, 576), a(8, dtype="int32"), a(8)),
        "weight_q must have dtype bfloat16, float16 or float32, got int32",
    ),
    "int32 logits": (
        lambda m, a: m.moe_route(a(2, 16, dtype="int32"), a(16)),
        "logits must have dtype bfloat16, float16 or float32, got int32",
    ),
    "a list for bias": (lambda m, a: m.moe_route(a(2, 16), [0.0] * 16), "bias must be an array, got list"),
    "a float for top_k": (
        lambda m, a: m.moe_route(a(2, 16), a(16), top_k=4.0),
        "top_k must be a Python integer, known before the kernel is compiled, got float",
    ),
    "uint8 slots": (
        lambda m, a: m.moe_combine(a(8, 64), a(2, 4, dtype="uint8"), a(2, 4, dtype="float32")),
        "slots must have dtype int32, got uint8",
    ),
    "bfloat16 weights": (
        lambda m, a: m.moe_combine(a(8, 64), a(2, 4, dtype="int32"), a(2, 4)),
        "weights must have dtype float32, got bfloat16",
    ),
    "a sum to int8": (
        lambda m, a: m.moe_combine(
            a(8, 64), a(2, 4, dtype="int32"), a(2, 4, dtype="float32"), out_dtype=a(1, dtype="int8").dtype
        ),
        "out_dtype must be bfloat16, float16 or float32, got int8",
    ),
    "None for shared": (
        lambda m, a: m.moe_combine_add(a(8, 64), a(2, 4, dtype="int32"), a(2, 4, dtype="float32"), None),
        "shared must be an array, got NoneType",
    ),
    "uint8 ids": (lambda m, a: m.moe_sort(a(2, 4, dtype="uint8"), 8), "ids must have dtype int32, got uint8"),
    "a list of ids": (lambda m, a: m.moe_sort([[0, 1]], 8), "ids must be an array, got list"),
    "an array for num_experts": (
        lambda m, a: m.moe_sort(a(2, 4, dtype="int32"), a(1, dtype="int32")),
        "num_experts must be a Python integer, known before the kernel is compiled, got an array",
    ),
    "positions that are no integers": (
        lambda m, a: m.gemma_rmsnorm_rope_heads(a(2, 4608), a(64), a(64), a(9, 64), a(2)),
        "positions must have dtype int32 or int64, got bfloat16",
    ),
    "a table of integers": (
        lambda m, a: m.gemma_rmsnorm_rope_heads(a(2, 4608), a(64), a(64), a(9, 64, dtype="int32"), a(2, dtype="int32")),
        "cos_sin must have dtype bfloat16, float16 or float32, got int32",
    ),
    "a string for alpha": (
        lambda m, a: m.swiglu_oai(a(2, 64), alpha="1"),
        "alpha must be a Python number, known before the kernel is compiled, got str",
    ),
    "a list for alpha": (
        lambda m, a: m.swiglu_oai(a(2, 64), alpha=[1.7]),
        "alpha must be a Python number, known before the kernel is compiled, got list",
    ),
    "True for alpha": (
        lambda m, a: m.swiglu_oai(a(2, 64), alpha=True),
        "alpha must be a Python number, known before the kernel is compiled, got bool",
    ),
    "an array for beta": (
        lambda m, a: m.swiglu_oai_quantize(a(2, 64), beta=a(1)),
        "beta must be a Python number, known before the kernel is compiled, got an array",
    ),
    "alpha None": (lambda m, a: m.swiglu_oai(a(2, 64), alpha=None), "got NoneType"),
    "groups 2.0": (
        lambda m, a: m.swiglu_oai_quantize(a(2, 128), groups=2.0),
        "groups must be a Python integer, known before the kernel is compiled, got float",
    ),
    "groups True": (lambda m, a: m.swiglu_oai(a(2, 64), groups=True), "got bool"),
    "a layout that is no string": (
        lambda m, a: m.swiglu_oai_quantize(a(2, 64), layout=None),
        "layout must be a string, got NoneType",
    ),
    "a scale layout that is no string": (
        lambda m, a: m.swiglu_oai_quantize(a(2, 64), scale_layout=True),
        "scale_layout must be a string, got bool",
    ),
    "a rule that is no string": (
        lambda m, a: m.mxfp8_quantize(a(2, 64), scale_rule=1),
        "scale_rule must be a string, got int",
    ),
    "round_activation 1": (
        lambda m, a: m.swiglu_oai_quantize(a(2, 64), round_activation=1),
        "round_activation must be True or False, got int",
    ),
    "out_dtype int8": (
        lambda m, a: m.swiglu_oai(a(2, 64), out_dtype=a(1, dtype="int8").dtype),
        "out_dtype must be bfloat16, float16 or float32, got int8",
    ),
    "out_dtype None to dequantize": (
        lambda m, a: m.mxfp8_dequantize(m.MXFP8(a(64, dtype="float8_e4m3fn"), a(2, dtype="uint8")), out_dtype=None),
        "out_dtype must be bfloat16, float16 or float32, got None",
    ),
    "a tuple of arrays": (lambda m, a: m.mxfp8_quantize((a(2, 64),)), "x must be an array, got tuple"),
    "a string for residual": (
        lambda m, a: m.gemma_fused_add_rmsnorm(a(2, 64), "r", a(64)),
        "residual must be an array, got str",
    ),
    "MXFP8 instead of its values": (
        lambda m, a: m.mxfp8_dequantize(m.MXFP8(m.MXFP8(a(2, 64), a(2, 2)), a(2, 2, dtype="uint8"))),
        "values must be an array, got MXFP8",
    ),
    "int8 weight": (
        lambda m, a: m.gemma_rmsnorm_quantize(a(2, 64), a(64, dtype="int8")),
        "weight must have dtype bfloat16, float16 or float32, got int8",
    ),
    "bool x": (
        lambda m, a: m.gemma_fused_add_rmsnorm(a(2, 64, dtype="bool"), a(2, 64), a(64)),
        "x must have dtype bfloat16, float16 or float32, got bool",
    ),
    "values in E5M2": (
        lambda m, a: m.mxfp8_dequantize(m.MXFP8(a(2, 64, dtype="float8_e5m2"), a(2, 2, dtype="uint8"))),
        "values must have dtype float8_e4m3fn or float8_e4m3fnuz, got float8_e5m2",
    ),
    "alpha complex": (lambda m, a: m.swiglu_oai(a(2, 64), alpha=1j), "alpha must be a Python number"),
    "a flag for weight_offset": (
        lambda m, a: m.gemma_rmsnorm_heads(a(2, 576), a(8), a(8), weight_offset=False),
        "weight_offset must be a Python number, known before the kernel is compiled, got bool",
    ),
    "eps None": (lambda m, a: m.gemma_rmsnorm(a(2, 64), a(64), eps=None), "eps must be a Python number"),
    "out_norm None": (
        lambda m, a: m.gemma_rmsnorm_quantize(a(2, 64), a(64), out_norm=None),
        "out_norm must be True or False, got NoneType",
    ),
    "out_dtype fp8": (
        lambda m, a: m.swiglu_oai(a(2, 64), out_dtype=a(1, dtype="float8_e4m3fn").dtype),
        "out_dtype must be bfloat16, float16 or float32, got float8_e4m3fn",
    ),
    "a number for num_rows": (
        lambda m, a: m.mxfp8_quantize(a(4, 32), num_rows=3),
        "num_rows must be an array, got int",
    ),
    "int16 num_rows": (
        lambda m, a: m.gemma_rmsnorm(a(4, 64), a(64), num_rows=a(1, dtype="int16")),
        "num_rows must have dtype int32, got int16",
    ),
}

VALUE_ERRORS: Table = {
    "a weight of another K": (
        lambda m, a: m.mxfp8_matmul(_quantized(m, a, 4, 64), _quantized(m, a, 8, 32)),
        "w_values must have the size of x_values along the last axis, 64, got shape (8, 32)",
    ),
    "an unknown arithmetic": (
        lambda m, a: m.mxfp8_matmul(_quantized(m, a, 4, 64), _quantized(m, a, 8, 64), arithmetic="quick"),
        "arithmetic must be 'exact' or 'fast', got 'quick'",
    ),
    "sizes of more groups than there are": (
        lambda m, a: m.mxfp8_grouped_matmul(_quantized(m, a, 4, 64), _quantized(m, a, 2, 8, 64), a(3, dtype="int32")),
        "group_sizes must have shape (2,), one for each of w_values, got (3,)",
    ),
    "ends of groups in two axes": (
        lambda m, a: m.mxfp8_grouped_matmul(
            _quantized(m, a, 4, 64), _quantized(m, a, 2, 8, 64), a(2, 1, dtype="int32")
        ),
        "group_sizes must have one axis, [G], got shape (2, 1)",
    ),
    "rows in two axes": (
        lambda m, a: m.mxfp8_grouped_matmul(
            _quantized(m, a, 4, 64), _quantized(m, a, 2, 8, 64), a(2, dtype="int32"), rows=a(3, 1, dtype="int32")
        ),
        "rows must have one axis, [R], got shape (3, 1)",
    ),
    "leading axes of a grouped product": (
        lambda m, a: m.mxfp8_grouped_matmul(
            _quantized(m, a, 3, 4, 64), _quantized(m, a, 2, 8, 64), a(2, dtype="int32")
        ),
        "x_values must have two axes, [T, K], got shape (3, 4, 64)",
    ),
    "one weight for all groups": (
        lambda m, a: m.mxfp8_grouped_matmul(_quantized(m, a, 4, 64), _quantized(m, a, 8, 64), a(1, dtype="int32")),
        "w_values must have three axes, [G, N, K], got shape (8, 64)",
    ),
    "a batch of weights": (
        lambda m, a: m.mxfp8_matmul(_quantized(m, a, 4, 64), _quantized(m, a, 2, 8, 64)),
        "w_values must have two axes, [N, K], got shape (2, 8, 64)",
    ),
    "a product of half blocks": (
        lambda m, a: m.mxfp8_matmul(_quantized(m, a, 4, 48), _quantized(m, a, 8, 48)),
        "the last axis of x_values must be a multiple of 32 (the MXFP8 block), got 48",
    ),
    "scales of a product by element": (
        lambda m, a: m.mxfp8_matmul(
            _quantized(m, a, 4, 64), m.MXFP8(a(8, 64, dtype="float8_e4m3fn"), a(8, 64, dtype="uint8"))
        ),
        "w_scales must have shape (8, 2) for w_values of shape (8, 64), got (8, 64)",
    ),
    "no axis": (lambda m, a: m.swiglu_oai(a()), "gate_up must have at least one axis, got shape ()"),
    "an odd last axis": (
        lambda m, a: m.swiglu_oai(a(2, 7)),
        "gate_up must have an even last axis, [gate | up], got shape (2, 7)",
    ),
    "I = 48": (
        lambda m, a: m.swiglu_oai_quantize(a(2, 96)),
        "half the last axis of gate_up must be a multiple of 32 (the MXFP8 block), got 48",
    ),
    "a last axis of 40": (
        lambda m, a: m.mxfp8_quantize(a(2, 40)),
        "the last axis of x must be a multiple of 32 (the MXFP8 block), got 40",
    ),
    "too few scales": (
        lambda m, a: m.mxfp8_dequantize(m.MXFP8(a(2, 64, dtype="float8_e4m3fn"), a(2, 1, dtype="uint8"))),
        "scales must have shape (2, 2) for values of shape (2, 64), got (2, 1)",
    ),
    "a weight of another size": (
        lambda m, a: m.gemma_rmsnorm(a(2, 64), a(32)),
        "weight must have shape (64,) or broadcast against x (2, 64), got (32,)",
    ),
    "a weight that would enlarge x": (
        lambda m, a: m.gemma_rmsnorm(a(1, 64), a(2, 64)),
        "weight must have shape (64,) or broadcast against x (1, 64), got (2, 64)",
    ),
    "an empty row": (
        lambda m, a: m.gemma_rmsnorm(a(2, 0), a(0)),
        "x must have a last axis of 1 to 131072 elements, got shape (2, 0)",
    ),
    "a row past the limit": (
        lambda m, a: m.gemma_rmsnorm(a(1, 131080), a(131080)),
        "x must have a last axis of 1 to 131072 elements, got shape (1, 131080)",
    ),
    "a residual of another shape": (
        lambda m, a: m.gemma_fused_add_rmsnorm(a(2, 64), a(64), a(64)),
        "residual must have the shape of x, (2, 64), got (64,)",
    ),
    "a qkv of too few heads": (
        lambda m, a: m.gemma_rmsnorm_heads(a(2, 64), a(8), a(8)),
        "qkv must have a last axis of 576, for 64 q, 4 k and 4 v heads of 8, got shape (2, 64)",
    ),
    "a weight_k of another size": (
        lambda m, a: m.gemma_rmsnorm_heads(a(2, 32), a(8), a(4), num_heads_q=2, num_heads_k=1, num_heads_v=1),
        "weight_k must have shape (8,) or broadcast against qkv (2, 32), got (4,)",
    ),
    "a weight_q that would enlarge qkv": (
        lambda m, a: m.gemma_rmsnorm_heads(a(1, 32), a(2, 8), a(8), num_heads_q=2, num_heads_k=1, num_heads_v=1),
        "weight_q must have shape (8,) or broadcast against qkv (1, 32), got (2, 8)",
    ),
    "a head_dim past the limit": (
        lambda m, a: m.gemma_rmsnorm_heads(a(2, 4096), a(2048), a(2048), num_heads_q=1, num_heads_k=1, num_heads_v=0),
        "weight_q must have a last axis, head_dim, of 1 to 1024 elements, got shape (2048,)",
    ),
    "a rotary_dim of 24": (
        lambda m, a: m.gemma_rmsnorm_rope_heads(a(2, 4608), a(64), a(64), a(9, 24), a(2, dtype="int32"), rotary_dim=24),
        "rotary_dim must be a multiple of 16, got 24",
    ),
    "a rotary_dim past the head": (
        lambda m, a: m.gemma_rmsnorm_rope_heads(a(2, 2304), a(32), a(32), a(9, 64), a(2, dtype="int32")),
        "rotary_dim must be at most head_dim, 32, got 64",
    ),
    "a table of another rotary_dim": (
        lambda m, a: m.gemma_rmsnorm_rope_heads(a(2, 4608), a(64), a(64), a(9, 32), a(2, dtype="int32")),
        "cos_sin must have shape [max_position, 64], got (9, 32)",
    ),
    "a table for each row": (
        lambda m, a: m.gemma_rmsnorm_rope_heads(a(2, 4608), a(64), a(64), a(2, 9, 64), a(2, dtype="int32")),
        "cos_sin must have shape [max_position, 64], got (2, 9, 64)",
    ),
    "an empty table": (
        lambda m, a: m.gemma_rmsnorm_rope_heads(a(2, 4608), a(64), a(64), a(0, 64), a(2, dtype="int32")),
        "cos_sin must have shape [max_position, 64], got (0, 64)",
    ),
    "positions of other rows": (
        lambda m, a: m.gemma_rmsnorm_rope_heads(a(2, 4608), a(64), a(64), a(9, 64), a(3, dtype="int32")),
        "positions must have the leading axes of qkv, (2,), or broadcast against them, got shape (3,)",
    ),
    "no q heads": (
        lambda m, a: m.gemma_rmsnorm_heads(a(2, 32), a(8), a(8), num_heads_q=0),
        "num_heads_q must be at least 1, got 0",
    ),
    "fewer than no v heads": (
        lambda m, a: m.gemma_rmsnorm_heads(a(2, 32), a(8), a(8), num_heads_v=-1),
        "num_heads_v must be at least 0, got -1",
    ),
    "fewer experts than top_k": (
        lambda m, a: m.moe_route(a(2, 3), a(3)),
        "logits must have a last axis of 4 (top_k) to 4096 elements, got shape (2, 3)",
    ),
    "more experts than a program holds": (
        lambda m, a: m.moe_route(a(2, 4097), a(4097)),
        "logits must have a last axis of 4 (top_k) to 4096 elements, got shape (2, 4097)",
    ),
    "a bias of other experts": (
        lambda m, a: m.moe_route(a(2, 16), a(8)),
        "bias must have shape (16,) or broadcast against logits (2, 16), got (8,)",
    ),
    "a bias that would enlarge logits": (
        lambda m, a: m.moe_route(a(1, 16), a(2, 16)),
        "bias must have shape (16,) or broadcast against logits (1, 16), got (2, 16)",
    ),
    "no expert of a token": (lambda m, a: m.moe_route(a(2, 16), a(16), top_k=0), "top_k must be at least 1, got 0"),
    "33 experts of a token": (lambda m, a: m.moe_route(a(2, 64), a(64), top_k=33), "top_k must be at most 32, got 33"),
    "rows of experts with three axes": (
        lambda m, a: m.moe_combine(a(2, 4, 64), a(2, 4, dtype="int32"), a(2, 4, dtype="float32")),
        "y must have two axes, [R, N], got shape (2, 4, 64)",
    ),
    "no slots": (
        lambda m, a: m.moe_combine(a(8, 64), a(2, 0, dtype="int32"), a(2, 0, dtype="float32")),
        "slots must have a last axis of 1 to 32 elements, got shape (2, 0)",
    ),
    "fewer weights than slots": (
        lambda m, a: m.moe_combine(a(8, 64), a(2, 4, dtype="int32"), a(2, 3, dtype="float32")),
        "weights must have the shape of slots, (2, 4), got (2, 3)",
    ),
    "a shared result of other rows": (
        lambda m, a: m.moe_combine_add(a(8, 64), a(2, 4, dtype="int32"), a(2, 4, dtype="float32"), a(1, 64)),
        "shared must have the shape of the result, (2, 64), got (1, 64)",
    ),
    "an infinite scale": (
        lambda m, a: m.moe_combine(a(8, 64), a(2, 4, dtype="int32"), a(2, 4, dtype="float32"), scale=math.inf),
        "scale must be a finite fp32 number, got inf",
    ),
    "ids without an axis": (
        lambda m, a: m.moe_sort(a(dtype="int32"), 8),
        "ids must have at least one axis, got shape ()",
    ),
    "no experts": (lambda m, a: m.moe_sort(a(2, 4, dtype="int32"), 0), "num_experts must be at least 1, got 0"),
    "alpha NaN": (lambda m, a: m.swiglu_oai(a(2, 64), alpha=math.nan), "alpha must be a finite fp32 number"),
    "alpha 1e-30": (lambda m, a: m.swiglu_oai(a(2, 64), alpha=1e-30), "alpha must be 0 or at least 5.42101e-20, got "),
    "alpha -1": (lambda m, a: m.swiglu_oai_quantize(a(2, 64), alpha=-1.0), "got -1.0"),
    "alpha 1e30": (lambda m, a: m.swiglu_oai(a(2, 64), alpha=1e30), "<= 1.84467e+19, got 1e+30"),
    "beta past fp32": (lambda m, a: m.swiglu_oai(a(2, 64), beta=1e39), "beta must be a finite fp32 number, got 1e+39"),
    "limit 0": (lambda m, a: m.swiglu_oai(a(2, 64), limit=0.0), "limit must be a finite fp32 number and > 0, got 0.0"),
    "limit -7": (
        lambda m, a: m.swiglu_oai_quantize(a(2, 64), limit=-7),
        "limit must be a finite fp32 number and > 0, got -7",
    ),
    "limit infinite": (lambda m, a: m.swiglu_oai(a(2, 64), limit=math.inf), "got inf"),
    "groups 0": (lambda m, a: m.swiglu_oai(a(2, 64), groups=0), "groups must be at least 1, got 0"),
    "groups that do not divide": (
        lambda m, a: m.swiglu_oai(a(2, 64), groups=3),
        "gate_up must have a last axis of 3 groups [gate | up], got shape (2, 64)",
    ),
    "groups of half a block": (
        lambda m, a: m.swiglu_oai_quantize(a(2, 64), groups=2),
        "half a group of gate_up must be a multiple of 32 (the MXFP8 block), got 16",
    ),
    "eps negative": (
        lambda m, a: m.gemma_rmsnorm(a(2, 64), a(64), eps=-1e-6),
        "eps must be a finite fp32 number and >= 0, got -1e-06",
    ),
    "weight_offset infinite": (
        lambda m, a: m.gemma_fused_add_rmsnorm(a(2, 64), a(2, 64), a(64), weight_offset=math.inf),
        "weight_offset must be a finite fp32 number, got inf",
    ),
    "eps NaN": (lambda m, a: m.gemma_fused_add_rmsnorm(a(2, 64), a(2, 64), a(64), eps=math.nan), "got nan"),
    "an unknown layout": (
        lambda m, a: m.swiglu_oai(a(2, 64), layout="concatenated"),
        "layout must be 'split' or 'interleaved', got 'concatenated'",
    ),
    "an unknown scale rule": (
        lambda m, a: m.mxfp8_quantize(a(2, 64), scale_rule="ceil"),
        "scale_rule must be 'rceil' or 'floor', got 'ceil'",
    ),
    "an unknown format": (
        lambda m, a: m.swiglu_oai_quantize(a(2, 64), fp8_format="e5m2"),
        "fp8_format must be 'e4m3fn' or 'e4m3fnuz', got 'e5m2'",
    ),
    "an unknown scale layout": (
        lambda m, a: m.mxfp8_quantize(a(2, 64), scale_layout="blocked"),
        "scale_layout must be 'row_major', 'swizzle_128x4' or 'shuffle_32x8', got 'blocked'",
    ),
    "tiled scales of a vector": (
        lambda m, a: m.gemma_rmsnorm_quantize(a(64), a(64), scale_layout="swizzle_128x4"),
        "x must have at least two axes for scale_layout='swizzle_128x4', got shape (64,)",
    ),
    "tiled scales of groups": (
        lambda m, a: m.swiglu_oai_quantize(a(2, 128), groups=2, scale_layout="swizzle_128x4"),
        "groups must be 1 for scale_layout='swizzle_128x4', got 2",
    ),
    "row-major scales said to be tiled": (
        lambda m, a: m.mxfp8_dequantize(
            m.MXFP8(a(2, 64, dtype="float8_e4m3fn"), a(2, 2, dtype="uint8"), "shuffle_32x8")
        ),
        "scales must have shape (256, 8) for values of shape (2, 64), got (2, 2)",
    ),
    "a norm's row of 40, to be quantized": (
        lambda m, a: m.gemma_rmsnorm_quantize(a(2, 40), a(40)),
        "the last axis of x must be a multiple of 32 (the MXFP8 block), got 40",
    ),
    "scales without the rows of values": (
        lambda m, a: m.mxfp8_dequantize(m.MXFP8(a(2, 64, dtype="float8_e4m3fn"), a(2, dtype="uint8"))),
        "scales must have shape (2, 2) for values of shape (2, 64), got (2,)",
    ),
    "a weight with too many axes": (
        lambda m, a: m.gemma_fused_add_rmsnorm_quantize(a(2, 64), a(2, 64), a(1, 2, 64)),
        "weight must have shape (64,) or broadcast against x (2, 64), got (1, 2, 64)",
    ),
    "a residual of another size": (
        lambda m, a: m.gemma_fused_add_rmsnorm_quantize(a(2, 64), a(2, 96), a(64)),
        "residual must have the shape of x, (2, 64), got (2, 96)",
    ),
    "beta NaN": (lambda m, a: m.swiglu_oai(a(2, 64), beta=math.nan), "beta must be a finite fp32 number"),
    "limit NaN": (lambda m, a: m.swiglu_oai_quantize(a(2, 64), limit=math.nan), "limit must be a finite"),
    "limit too small for fp32": (
        lambda m, a: m.swiglu_oai(a(2, 64), limit=1e-50),
        "limit must be a finite fp32 number and > 0, got 1e-50",
    ),
    "two counts": (
        lambda m, a: m.swiglu_oai(a(4, 64), num_rows=a(2, dtype="int32")),
        "num_rows must have one element, got shape (2,)",
    ),
}

# Of arguments that PyTorch alone has, or of what only its tensors can be.

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
