"""Calls with a wrong type: what is wrong, the call of a front end ``m`` with arrays of ``a``, part of the message."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

Table = dict[str, tuple[Callable[[Any, Any], Any], str]]


def quantized(m: Any, a: Any, *shape: int) -> Any:
    """An ``MXFP8`` of this front end."""
    return m.MXFP8(a(*shape, dtype="float8_e4m3fn"), a(*shape[:-1], shape[-1] // 32, dtype="uint8"))


def of_groups(m: Any, a: Any, stored_rows: int) -> Any:
    """The same of four rows of 64 in groups."""
    values, scales = a(4, 64, dtype="float8_e4m3fn"), a(stored_rows, 4, dtype="uint8")
    return m.MXFP8(values, scales, "swizzle_128x4_groups")


def insert(m: Any, a: Any, **changed: Any) -> Any:
    """An insertion into caches of three blocks, with other arrays for some."""
    given = {
        "qkv": a(2, 4608),
        **dict.fromkeys(("weight_q", "weight_k"), a(64)),
        "cos_sin": a(9, 64),
        "positions": a(2, dtype="int32"),
        **{name: a(3, 16, 4, 64) for name in ("key_cache", "value_cache")},
        "slot_mapping": a(2, dtype="int32"),
    }
    return m.gemma_rmsnorm_rope_kv_insert(**given | changed)


def indexed(a: Any, **more: Any) -> dict[str, Any]:
    """What is to change for index heads."""
    return {"qkv": a(2, 4928), **dict.fromkeys(("weight_index_q", "weight_index_k"), a(64)), **more}


TYPE_ERRORS: Table = {
    "float32 sizes of groups": (
        lambda m, a: m.mxfp8_quantize(a(4, 64), a(2, dtype="float32"), scale_layout="swizzle_128x4_groups"),
        "group_sizes must have dtype int32, got float32",
    ),
    "sizes of groups as a list": (
        lambda m, a: m.swiglu_oai_quantize(a(4, 128), group_sizes=[1, 2], scale_layout="swizzle_128x4_groups"),
        "group_sizes must be an array, got list",
    ),
    "a product of unquantized values": (
        lambda m, a: m.mxfp8_matmul(m.MXFP8(a(4, 64), a(4, 2, dtype="uint8")), quantized(m, a, 8, 64)),
        "x_values must have dtype float8_e4m3fn or float8_e4m3fnuz, got bfloat16",
    ),
    "a product to float8": (
        lambda m, a: m.mxfp8_matmul(
            quantized(m, a, 4, 64), quantized(m, a, 8, 64), out_dtype=a(1, dtype="float8_e4m3fn").dtype
        ),
        "out_dtype must be bfloat16, float16 or float32, got float8_e4m3fn",
    ),
    "float32 group_sizes": (
        lambda m, a: m.mxfp8_grouped_matmul(quantized(m, a, 4, 64), quantized(m, a, 2, 8, 64), a(2, dtype="float32")),
        "group_sizes must have dtype int32, got float32",
    ),
    "rows in bfloat16": (
        lambda m, a: m.mxfp8_grouped_matmul(
            quantized(m, a, 4, 64), quantized(m, a, 2, 8, 64), a(2, dtype="int32"), rows=a(3)
        ),
        "rows must have dtype int32, got bfloat16",
    ),
    "rows as a list": (
        lambda m, a: m.mxfp8_grouped_matmul(
            quantized(m, a, 4, 64), quantized(m, a, 2, 8, 64), a(2, dtype="int32"), rows=[1, 2]
        ),
        "rows must be an array, got list",
    ),
    "group_sizes that are None": (
        lambda m, a: m.mxfp8_grouped_matmul(quantized(m, a, 4, 64), quantized(m, a, 2, 8, 64), None),
        "group_sizes must be an array, got NoneType",
    ),
    "sizes along K in float32": (
        lambda m, a: m.mxfp8_k_grouped_matmul(quantized(m, a, 4, 64), quantized(m, a, 8, 64), a(2, dtype="float32")),
        "group_sizes must have dtype int32, got float32",
    ),
    "a grouped layer of quantized weights": (
        lambda m, a: m.mxfp8_grouped_linear(a(4, 64), quantized(m, a, 2, 32, 64), a(2, dtype="int32")),
        "w must be an array, got",
    ),
    "a grouped layer of int32": (
        lambda m, a: m.mxfp8_grouped_linear(a(4, 64), a(2, 32, 64, dtype="int32"), a(2, dtype="int32")),
        "w must have dtype bfloat16, float16 or float32, got int32",
    ),
    "sizes of a grouped layer in bfloat16": (
        lambda m, a: m.mxfp8_grouped_linear(a(4, 64), a(2, 32, 64), a(2)),
        "group_sizes must have dtype int32, got bfloat16",
    ),
    "rows of a grouped layer in float32": (
        lambda m, a: m.mxfp8_grouped_linear(a(4, 64), a(2, 32, 64), a(2, dtype="int32"), a(3, dtype="float32")),
        "rows must have dtype int32, got float32",
    ),
    "rows of a grouped layer as a list": (
        lambda m, a: m.mxfp8_grouped_linear(a(4, 64), a(2, 32, 64), a(2, dtype="int32"), [1, 2]),
        "rows must be an array, got list",
    ),
    "a list": (lambda m, a: m.swiglu_oai([1.0, 2.0]), "gate_up must be an array, got list"),
    "None": (lambda m, a: m.mxfp8_quantize(None), "x must be an array, got NoneType"),
    "a number for weight": (lambda m, a: m.gemma_rmsnorm(a(2, 8), 1.0), "weight must be an array, got float"),
    "int32 gate_up": (
        lambda m, a: m.swiglu_oai(a(2, 64, dtype="int32")),
        "gate_up must have dtype bfloat16, float16 or float32, got int32",
    ),
    "an up of another dtype": (
        lambda m, a: m.swiglu_oai(a(2, 64), up=a(2, 64, dtype="float32")),
        "up must have the dtype of gate_up, bfloat16, got float32",
    ),
    "a list for up": (lambda m, a: m.swiglu_oai_quantize(a(2, 64), [1.0]), "up must be an array, got list"),
    "fp8 x": (
        lambda m, a: m.mxfp8_quantize(a(2, 64, dtype="float8_e4m3fn")),
        "x must have dtype bfloat16, float16 or float32, got float8_e4m3fn",
    ),
    "columns of integers": (
        lambda m, a: m.mxfp8_quantize_both(a(64, 64, dtype="int32")),
        "x must have dtype bfloat16, float16 or float32, got int32",
    ),
    "a list of columns": (lambda m, a: m.mxfp8_quantize_transposed([1.0]), "x must be an array, got list"),
    "a block by its size": (
        lambda m, a: m.mxfp8_quantize(a(64, 64), square_blocks=32),
        "square_blocks must be True or False, got int",
    ),
    "uint8 values": (
        lambda m, a: m.mxfp8_dequantize(m.MXFP8(a(2, 64, dtype="uint8"), a(2, 2, dtype="uint8"))),
        "values must have dtype float8_e4m3fn or float8_e4m3fnuz, got uint8",
    ),
    "int8 scales": (
        lambda m, a: m.mxfp8_dequantize(m.MXFP8(a(2, 64, dtype="float8_e4m3fn"), a(2, 2, dtype="int8"))),
        "scales must have dtype uint8, got int8",
    ),
    "a residual of integers": (
        lambda m, a: m.gemma_fused_add_rmsnorm(a(2, 64), a(2, 64, dtype="int32"), a(64)),
        "residual must have dtype bfloat16, float16 or float32, got int32",
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
    "None for weights": (
        lambda m, a: m.moe_combine(a(8, 64), a(2, 4, dtype="int32"), None),
        "weights must be an array, got NoneType",
    ),
    "slots in bfloat16": (
        lambda m, a: m.moe_scatter_quantize(a(3, 64), a(3, 2)),
        "slots must have dtype int32, got bfloat16",
    ),
    "a float for rows": (
        lambda m, a: m.moe_scatter_quantize(a(3, 64), a(3, 2, dtype="int32"), rows=8.0),
        "rows must be a Python integer, known before the kernel is compiled, got float",
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
    "a weight_index_q of integers": (
        lambda m, a: m.gemma_rmsnorm_rope_heads(
            a(2, 4928), a(64), a(64), a(9, 64), a(2, dtype="int32"), a(64, dtype="int32"), a(64)
        ),
        "weight_index_q must have dtype bfloat16, float16 or float32, got int32",
    ),
    "a float for num_heads_index_q": (
        lambda m, a: m.gemma_rmsnorm_rope_heads(
            a(2, 4608), a(64), a(64), a(9, 64), a(2, dtype="int32"), num_heads_index_q=4.0
        ),
        "num_heads_index_q must be a Python integer, known before the kernel is compiled, got float",
    ),
    "a table of integers": (
        lambda m, a: m.gemma_rmsnorm_rope_heads(a(2, 4608), a(64), a(64), a(9, 64, dtype="int32"), a(2, dtype="int32")),
        "cos_sin must have dtype bfloat16, float16 or float32, got int32",
    ),
    "slots that are no integers": (
        lambda m, a: insert(m, a, slot_mapping=a(2)),
        "slot_mapping must have dtype int32 or int64, got bfloat16",
    ),
    "a cache of bytes": (
        lambda m, a: insert(m, a, value_cache=a(3, 16, 4, 64, dtype="uint8")),
        "value_cache must have dtype bfloat16, float16, float32, float8_e4m3fn or float8_e4m3fnuz, got uint8",
    ),
    "a scale in bfloat16": (
        lambda m, a: insert(m, a, k_scale=a(1)),
        "k_scale must have dtype float32, got bfloat16",
    ),
    "a q_dtype of bfloat16": (
        lambda m, a: insert(m, a, q_dtype=a(1).dtype),
        "q_dtype must be float8_e4m3fn or float8_e4m3fnuz, got bfloat16",
    ),
    "a scale of q in float16": (
        lambda m, a: insert(m, a, q_scale=a(1, dtype="float16"), q_dtype=a(1, dtype="float8_e4m3fn").dtype),
        "q_scale must have dtype float32, got float16",
    ),
    "a number for v_scale": (lambda m, a: insert(m, a, v_scale=0.5), "v_scale must be an array, got float"),
    "no slots": (lambda m, a: insert(m, a, slot_mapping=None), "slot_mapping must be an array, got NoneType"),
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
    "experts that are not quantized": (
        lambda m, a: m.moe_layer(a(5, 64), a(5, 4), a(4), 1.0, quantized(m, a, 4, 64, 32)),
        "w13 must be an MXFP8 of this front end, got float",
    ),
    "tokens as a list": (
        lambda m, a: m.moe_layer([1.0], a(5, 4), a(4), quantized(m, a, 4, 64, 64), quantized(m, a, 4, 64, 32)),
        "x must be an array, got list",
    ),
    "a weight of integers, to be trained": (
        lambda m, a: m.mxfp8_linear(a(4, 64), a(32, 64, dtype="int32")),
        "w must have dtype bfloat16, float16 or float32, got int32",
    ),
}
