"""Calls with a wrong value or shape, as in wrong_types.py."""

from __future__ import annotations

import math

from wrong_types import Table, indexed, insert, of_groups, quantized

VALUE_ERRORS: Table = {
    "a token without an axis": (
        lambda m, a: m.moe_layer(a(), a(4), a(4), quantized(m, a, 4, 64, 64), quantized(m, a, 4, 64, 32)),
        "x must have at least one axis, got shape ()",
    ),
    "a way back of other experts": (
        lambda m, a: m.moe_layer(a(5, 64), a(5, 4), a(4), quantized(m, a, 4, 64, 64), quantized(m, a, 3, 64, 32)),
        "w2 must have shape (4, 64, 32) for x of shape (5, 64), got (3, 64, 32)",
    ),
    "experts of another size": (
        lambda m, a: m.moe_layer(a(5, 64), a(5, 4), a(4), quantized(m, a, 4, 64, 32), quantized(m, a, 4, 64, 32)),
        "w13 must have shape (4, 64, 64) for x of shape (5, 64), got (4, 64, 32)",
    ),
    "one matrix for all experts": (
        lambda m, a: m.moe_layer(a(5, 64), a(5, 4), a(4), quantized(m, a, 64, 64), quantized(m, a, 4, 64, 32)),
        "w13 must have shape (64, 64, 64) for x of shape (5, 64), got (64, 64)",
    ),
    "logits of other tokens": (
        lambda m, a: m.moe_layer(a(5, 64), a(6, 4), a(4), quantized(m, a, 4, 64, 64), quantized(m, a, 4, 64, 32)),
        "logits must have shape (5, 4) for x of shape (5, 64), got (6, 4)",
    ),
    "half of a shared expert": (
        lambda m, a: m.moe_layer(
            a(5, 64),
            a(5, 4),
            a(4),
            quantized(m, a, 4, 64, 64),
            quantized(m, a, 4, 64, 32),
            (quantized(m, a, 64, 64),),
        ),
        "shared must hold two weights, got 1",
    ),
    "a layer of an unknown arithmetic": (
        lambda m, a: m.moe_layer(
            a(5, 64), a(5, 4), a(4), quantized(m, a, 4, 64, 64), quantized(m, a, 4, 64, 32), arithmetic="quick"
        ),
        "arithmetic must be 'exact' or 'fast', got 'quick'",
    ),
    "a weight of half a block of rows, to be trained": (
        lambda m, a: m.mxfp8_linear(a(4, 64), a(16, 64)),
        "the first axis of w must be a multiple of 32 (the MXFP8 block), got 16",
    ),
    "an unknown rule for what is trained": (
        lambda m, a: m.mxfp8_linear(a(4, 64), a(32, 64), scale_rule="up"),
        "scale_rule must be",
    ),
    "a weight of another K": (
        lambda m, a: m.mxfp8_matmul(quantized(m, a, 4, 64), quantized(m, a, 8, 32)),
        "w_values must have the size of x_values along the last axis, 64, got shape (8, 32)",
    ),
    "an unknown arithmetic": (
        lambda m, a: m.mxfp8_matmul(quantized(m, a, 4, 64), quantized(m, a, 8, 64), arithmetic="quick"),
        "arithmetic must be 'exact' or 'fast', got 'quick'",
    ),
    "sizes of more groups than there are": (
        lambda m, a: m.mxfp8_grouped_matmul(quantized(m, a, 4, 64), quantized(m, a, 2, 8, 64), a(3, dtype="int32")),
        "group_sizes must have shape (2,), one for each of w_values, got (3,)",
    ),
    "ends of groups in two axes": (
        lambda m, a: m.mxfp8_grouped_matmul(quantized(m, a, 4, 64), quantized(m, a, 2, 8, 64), a(2, 1, dtype="int32")),
        "group_sizes must have one axis, [G], got shape (2, 1)",
    ),
    "rows in two axes": (
        lambda m, a: m.mxfp8_grouped_matmul(
            quantized(m, a, 4, 64), quantized(m, a, 2, 8, 64), a(2, dtype="int32"), rows=a(3, 1, dtype="int32")
        ),
        "rows must have one axis, [R], got shape (3, 1)",
    ),
    "leading axes of a grouped product": (
        lambda m, a: m.mxfp8_grouped_matmul(quantized(m, a, 3, 4, 64), quantized(m, a, 2, 8, 64), a(2, dtype="int32")),
        "x_values must have two axes, [T, K], got shape (3, 4, 64)",
    ),
    "one weight for all groups": (
        lambda m, a: m.mxfp8_grouped_matmul(quantized(m, a, 4, 64), quantized(m, a, 8, 64), a(1, dtype="int32")),
        "w_values must have three axes, [G, N, K], got shape (8, 64)",
    ),
    "leading axes of a product of groups along K": (
        lambda m, a: m.mxfp8_k_grouped_matmul(quantized(m, a, 3, 4, 64), quantized(m, a, 8, 64), a(2, dtype="int32")),
        "x_values must have two axes, [M, K], got shape (3, 4, 64)",
    ),
    "weights of a product of groups along K": (
        lambda m, a: m.mxfp8_k_grouped_matmul(quantized(m, a, 4, 64), quantized(m, a, 2, 8, 64), a(2, dtype="int32")),
        "w_values must have two axes, [N, K], got shape (2, 8, 64)",
    ),
    "sizes along K in two axes": (
        lambda m, a: m.mxfp8_k_grouped_matmul(quantized(m, a, 4, 64), quantized(m, a, 8, 64), a(2, 1, dtype="int32")),
        "group_sizes must have one axis, [G], got shape (2, 1)",
    ),
    "leading axes of a grouped layer": (
        lambda m, a: m.mxfp8_grouped_linear(a(3, 4, 64), a(2, 32, 64), a(2, dtype="int32")),
        "x must have two axes, [T, K], got shape (3, 4, 64)",
    ),
    "one weight for a grouped layer": (
        lambda m, a: m.mxfp8_grouped_linear(a(4, 64), a(32, 64), a(1, dtype="int32")),
        "w must have shape [G, N, 64] for x of shape (4, 64), got (32, 64)",
    ),
    "a grouped layer of half blocks": (
        lambda m, a: m.mxfp8_grouped_linear(a(4, 48), a(2, 32, 48), a(2, dtype="int32")),
        "the last axis of x must be a multiple of 32 (the MXFP8 block), got 48",
    ),
    "a grouped layer whose gradient has half blocks": (
        lambda m, a: m.mxfp8_grouped_linear(a(4, 64), a(2, 48, 64), a(2, dtype="int32")),
        "the middle axis of w must be a multiple of 32 (the MXFP8 block), got 48",
    ),
    "sizes of a grouped layer of more groups": (
        lambda m, a: m.mxfp8_grouped_linear(a(4, 64), a(2, 32, 64), a(3, dtype="int32")),
        "group_sizes must have shape (2,), one for each of w, got (3,)",
    ),
    "rows of a grouped layer in two axes": (
        lambda m, a: m.mxfp8_grouped_linear(a(4, 64), a(2, 32, 64), a(2, dtype="int32"), a(3, 1, dtype="int32")),
        "rows must have one axis, [R], got shape (3, 1)",
    ),
    "an unknown arithmetic of a grouped layer": (
        lambda m, a: m.mxfp8_grouped_linear(a(4, 64), a(2, 32, 64), a(2, dtype="int32"), arithmetic="quick"),
        "arithmetic must be 'exact' or 'fast', got 'quick'",
    ),
    "an unknown scale rule of a grouped layer": (
        lambda m, a: m.mxfp8_grouped_linear(a(4, 64), a(2, 32, 64), a(2, dtype="int32"), scale_rule="ceil"),
        "scale_rule must be",
    ),
    "a batch of weights": (
        lambda m, a: m.mxfp8_matmul(quantized(m, a, 4, 64), quantized(m, a, 2, 8, 64)),
        "w_values must have two axes, [N, K], got shape (2, 8, 64)",
    ),
    "a product of half blocks": (
        lambda m, a: m.mxfp8_matmul(quantized(m, a, 4, 48), quantized(m, a, 8, 48)),
        "the last axis of x_values must be a multiple of 32 (the MXFP8 block), got 48",
    ),
    "scales of a product by element": (
        lambda m, a: m.mxfp8_matmul(
            quantized(m, a, 4, 64), m.MXFP8(a(8, 64, dtype="float8_e4m3fn"), a(8, 64, dtype="uint8"))
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
    "tokens with leading axes": (
        lambda m, a: m.moe_scatter_quantize(a(2, 3, 64), a(2, 3, 2, dtype="int32")),
        "x must have two axes, [T, K], got shape (2, 3, 64)",
    ),
    "tokens of 48": (
        lambda m, a: m.moe_scatter_quantize(a(3, 48), a(3, 2, dtype="int32")),
        "the last axis of x must be a multiple of 32 (the MXFP8 block), got 48",
    ),
    "slots of other tokens": (
        lambda m, a: m.moe_scatter_quantize(a(3, 64), a(4, 2, dtype="int32")),
        "slots must have shape [3, 1 to 32] for x of shape (3, 64), got (4, 2)",
    ),
    "no slots to scatter to": (
        lambda m, a: m.moe_scatter_quantize(a(3, 64), a(3, 0, dtype="int32")),
        "slots must have shape [3, 1 to 32] for x of shape (3, 64), got (3, 0)",
    ),
    "buffers of unknown size": (
        lambda m, a: m.moe_scatter_quantize(a(3, 64), a(3, 2, dtype="int32"), num_experts=4),
        "rows must be given for buffers of 4 experts",
    ),
    "no rows to scatter to": (
        lambda m, a: m.moe_scatter_quantize(a(3, 64), a(3, 2, dtype="int32"), rows=0),
        "rows must be",
    ),
    "an up of another shape": (
        lambda m, a: m.swiglu_oai(a(2, 64), up=a(2, 32)),
        "up must have the shape of gate_up, (2, 64), got (2, 32)",
    ),
    "groups of gates alone": (
        lambda m, a: m.swiglu_oai_quantize(a(2, 64), up=a(2, 64), groups=2),
        "groups must be 1 where up is an array of its own, got 2",
    ),
    "gates that do not alternate": (
        lambda m, a: m.swiglu_oai(a(2, 64), up=a(2, 64), layout="interleaved"),
        "layout must be 'split' where up is an array of its own, got 'interleaved'",
    ),
    "I = 16, apart": (
        lambda m, a: m.swiglu_oai_fake_quant(a(2, 16), up=a(2, 16)),
        "the last axis of gate_up must be a multiple of 32 (the MXFP8 block), got 16",
    ),
    "a last axis of 40": (
        lambda m, a: m.mxfp8_quantize(a(2, 40)),
        "the last axis of x must be a multiple of 32 (the MXFP8 block), got 40",
    ),
    "columns of half a block": (
        lambda m, a: m.mxfp8_quantize_transposed(a(40, 64)),
        "the second to last axis of x must be a multiple of 32 (the MXFP8 block), got 40",
    ),
    "rows of half a block beside whole columns": (
        lambda m, a: m.mxfp8_quantize_both(a(64, 40)),
        "the last axis of x must be a multiple of 32 (the MXFP8 block), got 40",
    ),
    "square blocks of half the rows": (
        lambda m, a: m.mxfp8_quantize(a(2, 16, 64), square_blocks=True),
        "the second to last axis of x must be a multiple of 32 (the MXFP8 block), got 16",
    ),
    "square blocks of half the columns": (
        lambda m, a: m.mxfp8_quantize_transposed(a(64, 16), square_blocks=True),
        "the last axis of x must be a multiple of 32 (the MXFP8 block), got 16",
    ),
    "columns of a vector": (
        lambda m, a: m.mxfp8_quantize_transposed(a(64)),
        "x must have at least two axes, a matrix, got shape (64,)",
    ),
    "a count of rows that share scales": (
        lambda m, a: m.mxfp8_quantize(a(64, 64), square_blocks=True, num_rows=a(1, dtype="int32")),
        "num_rows must be None with square_blocks: rows share scales",
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
    "one weight of an indexer": (
        lambda m, a: m.gemma_rmsnorm_rope_heads(a(2, 4928), a(64), a(64), a(9, 64), a(2, dtype="int32"), a(64)),
        "weight_index_k must be given with that of the other index heads, got None",
    ),
    "the other weight of an indexer": (
        lambda m, a: m.gemma_rmsnorm_rope_heads(
            a(2, 4928), a(64), a(64), a(9, 64), a(2, dtype="int32"), weight_index_k=a(64)
        ),
        "weight_index_q must be given with that of the other index heads, got None",
    ),
    "index heads without weights": (
        lambda m, a: m.gemma_rmsnorm_rope_heads(a(2, 4928), a(64), a(64), a(9, 64), a(2, dtype="int32")),
        "qkv must have a last axis of 4608, for 64 q, 4 k and 4 v heads of 64, got shape (2, 4928)",
    ),
    "weights without index heads": (
        lambda m, a: m.gemma_rmsnorm_rope_heads(a(2, 4608), a(64), a(64), a(9, 64), a(2, dtype="int32"), a(64), a(64)),
        "qkv must have a last axis of 4928, for 64 q, 4 k, 4 v, 4 index_q and 1 index_k heads of 64, "
        "got shape (2, 4608)",
    ),
    "a weight_index_k of another size": (
        lambda m, a: m.gemma_rmsnorm_rope_heads(a(2, 4928), a(64), a(64), a(9, 64), a(2, dtype="int32"), a(64), a(32)),
        "weight_index_k must have shape (64,) or broadcast against qkv (2, 4928), got (32,)",
    ),
    "no index_q heads": (
        lambda m, a: m.gemma_rmsnorm_rope_heads(
            a(2, 4608), a(64), a(64), a(9, 64), a(2, dtype="int32"), num_heads_index_q=0
        ),
        "num_heads_index_q must be at least 1, got 0",
    ),
    "fewer than no index_k heads": (
        lambda m, a: m.gemma_rmsnorm_rope_heads(
            a(2, 4608), a(64), a(64), a(9, 64), a(2, dtype="int32"), num_heads_index_k=-1
        ),
        "num_heads_index_k must be at least 1, got -1",
    ),
    "a cache of other heads": (
        lambda m, a: insert(m, a, key_cache=a(3, 16, 2, 64)),
        "key_cache must have shape [num_blocks, block_size, 4, 64], got (3, 16, 2, 64)",
    ),
    "a cache without blocks": (
        lambda m, a: insert(m, a, value_cache=a(0, 16, 4, 64)),
        "value_cache must have shape [num_blocks, block_size, 4, 64], got (0, 16, 4, 64)",
    ),
    "caches of other blocks": (
        lambda m, a: insert(m, a, value_cache=a(6, 8, 4, 64)),
        "value_cache must have the blocks of key_cache, (3, 16), got shape (6, 8, 4, 64)",
    ),
    "slots of other rows": (
        lambda m, a: insert(m, a, slot_mapping=a(1, dtype="int32")),
        "slot_mapping must have the leading axes of qkv, (2,), got shape (1,)",
    ),
    "a scale for bfloat16": (
        lambda m, a: insert(m, a, k_scale=a(1, dtype="float32")),
        "k_scale must be None for a cache of bfloat16: only E4M3 has a scale",
    ),
    "a scale for each head": (
        lambda m, a: insert(m, a, v_scale=a(4, dtype="float32")),
        "v_scale must have shape (1,), got (4,)",
    ),
    "an index cache without index heads": (
        lambda m, a: insert(m, a, index_cache=a(3, 16, 1, 64), index_slot_mapping=a(2, dtype="int32")),
        "index_cache must be None where there are no index heads",
    ),
    "an index cache without slots": (
        lambda m, a: insert(m, a, **indexed(a, index_cache=a(3, 16, 1, 64))),
        "index_slot_mapping must be given with index_cache, got None",
    ),
    "index slots without a cache": (
        lambda m, a: insert(m, a, **indexed(a, index_slot_mapping=a(2, dtype="int32"))),
        "index_slot_mapping must be None where index_cache is",
    ),
    "an insertion without v heads": (
        lambda m, a: insert(m, a, num_heads_v=0),
        "num_heads_v must be at least 1, got 0",
    ),
    "two rows for one slot": (
        lambda m, a: insert(m, a),
        "slot_mapping must name no slot twice, got 0 2 times",
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
    "a router of other tokens": (
        lambda m, a: m.moe_logits(a(4, 64), a(8, 32)),
        "w must have shape [E, 64] for x of shape (4, 64), got (8, 32)",
    ),
    "a stack of routers": (
        lambda m, a: m.moe_logits(a(4, 64), a(2, 8, 64)),
        "w must have shape [E, 64] for x of shape (4, 64), got (2, 8, 64)",
    ),
    "a shared result of other rows": (
        lambda m, a: m.moe_combine(a(8, 64), a(2, 4, dtype="int32"), a(2, 4, dtype="float32"), shared=a(1, 64)),
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
    "too many experts": (
        lambda m, a: m.moe_sort(a(2, 4, dtype="int32"), 4097),
        "num_experts must be at most 4096, got 4097",
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
        "scale_layout must be 'row_major', 'swizzle_128x4', 'swizzle_8x4', 'shuffle_32x8', 'shuffle_32x4', "
        "'packed_ue8m0', 'swizzle_128x4_groups' or 'swizzle_128x4_spread_groups', got 'blocked'",
    ),
    "a norm of rows in groups": (
        lambda m, a: m.gemma_rmsnorm_quantize(a(2, 64), a(64), scale_layout="swizzle_128x4_groups"),
        "scale_layout must be 'row_major', 'swizzle_128x4', 'swizzle_8x4', 'shuffle_32x8', 'shuffle_32x4' or "
        "'packed_ue8m0', got 'swizzle_128x4_groups'",
    ),
    "groups in a layout that has none": (
        lambda m, a: m.mxfp8_quantize(a(4, 64), a(2, dtype="int32"), scale_layout="swizzle_128x4"),
        "group_sizes must be None for scale_layout='swizzle_128x4', which has no groups",
    ),
    "a layout of groups without their sizes": (
        lambda m, a: m.swiglu_oai_quantize(a(4, 128), scale_layout="swizzle_128x4_spread_groups"),
        "group_sizes must be given for scale_layout='swizzle_128x4_spread_groups', got None",
    ),
    "scales of groups without their sizes": (
        lambda m, a: m.mxfp8_dequantize(of_groups(m, a, 128)),
        "group_sizes must be given for scale_layout='swizzle_128x4_groups', got None",
    ),
    "sizes of groups in two axes": (
        lambda m, a: m.mxfp8_quantize(a(4, 64), a(2, 1, dtype="int32"), scale_layout="swizzle_128x4_groups"),
        "group_sizes must have one axis, [G], got shape (2, 1)",
    ),
    "groups of rows in two axes": (
        lambda m, a: m.mxfp8_quantize(a(2, 3, 64), a(2, dtype="int32"), scale_layout="swizzle_128x4_groups"),
        "x must have two axes for scale_layout='swizzle_128x4_groups', got shape (2, 3, 64)",
    ),
    "scales of other groups": (
        lambda m, a: m.mxfp8_dequantize(of_groups(m, a, 128), a(2, dtype="int32")),
        "scales must have shape (256, 4) for values of shape (4, 64), got (128, 4)",
    ),
    "rows of groups that are counted": (
        lambda m, a: m.mxfp8_quantize(
            a(4, 64), a(1, dtype="int32"), scale_layout="swizzle_128x4_groups", num_rows=a(1, dtype="int32")
        ),
        "num_rows must be None for scale_layout='swizzle_128x4_groups': group_sizes has the number of rows",
    ),
    "scales of groups whose rows are counted": (
        lambda m, a: m.mxfp8_dequantize(of_groups(m, a, 128), a(1, dtype="int32"), num_rows=a(1, dtype="int32")),
        "num_rows must be None for scale_layout='swizzle_128x4_groups': group_sizes has the number of rows",
    ),
    "groups of rows whose pairs are in groups": (
        lambda m, a: m.swiglu_oai_quantize(
            a(2, 128), a(1, dtype="int32"), groups=2, scale_layout="swizzle_128x4_groups"
        ),
        "groups must be 1 for scale_layout='swizzle_128x4_groups', got 2",
    ),
    "rows gathered out of groups": (
        lambda m, a: m.mxfp8_grouped_matmul(
            of_groups(m, a, 256), quantized(m, a, 2, 8, 64), a(2, dtype="int32"), rows=a(3, dtype="int32")
        ),
        "rows must be None for an x with scale_layout='swizzle_128x4_groups', which has groups",
    ),
    "a product of other groups": (
        lambda m, a: m.mxfp8_grouped_matmul(of_groups(m, a, 128), quantized(m, a, 2, 8, 64), a(2, dtype="int32")),
        "x_scales must have shape (256, 4) for x_values of shape (4, 64), got (128, 4)",
    ),
    "a product with one weight of rows in groups": (
        lambda m, a: m.mxfp8_matmul(of_groups(m, a, 128), quantized(m, a, 8, 64)),
        "'packed_ue8m0', got 'swizzle_128x4_groups'",
    ),
    "a weight in groups": (
        lambda m, a: m.mxfp8_grouped_matmul(quantized(m, a, 4, 64), of_groups(m, a, 128), a(2, dtype="int32")),
        "w_layout must be 'row_major', 'swizzle_128x4'",
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
        "num_rows must have one element, or the shape of the first of the leading axes (4,), got shape (2,)",
    ),
    "counts of other experts": (
        lambda m, a: m.mxfp8_quantize(a(3, 5, 64), num_rows=a(5, dtype="int32")),
        "num_rows must have one element, or the shape of the first of the leading axes (3, 5), got shape (5,)",
    ),
    "a count for each row of tiled scales": (
        lambda m, a: m.mxfp8_quantize(a(3, 64), scale_layout="swizzle_128x4", num_rows=a(3, dtype="int32")),
        "num_rows must have one element, got shape (3,)",
    ),
    "more counts than programs hold": (
        lambda m, a: m.mxfp8_quantize(a(1025, 1, 32), num_rows=a(1025, dtype="int32")),
        "num_rows must have at most 1024 elements, got shape (1025,)",
    ),
    "counts of a product's rows": (
        lambda m, a: m.mxfp8_matmul(quantized(m, a, 3, 4, 64), quantized(m, a, 8, 64), num_rows=a(3, dtype="int32")),
        "num_rows must have one element, got shape (3,)",
    ),
}
