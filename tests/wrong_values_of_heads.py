"""The same as wrong_values.py, of norms of heads, with rotary embedding and a cache."""

from __future__ import annotations

from wrong_types import Table, indexed, insert

VALUE_ERRORS_OF_HEADS: Table = {
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
    "a scale of q in the row": (
        lambda m, a: insert(m, a, q_scale=a(1, dtype="float32")),
        "q_scale must be None where q_dtype is",
    ),
    "a scale for each q head": (
        lambda m, a: insert(m, a, q_scale=a(64, dtype="float32"), q_dtype=a(1, dtype="float8_e4m3fn").dtype),
        "q_scale must have shape (1,), got (64,)",
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
}
