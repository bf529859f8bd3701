"""MiniMax-M3's real sizes, named once.

Hidden size 6144, heads of dimension 128 (64 q, 4 k and 4 v; with sparse attention 4 index_q and one index_k too), of
which rotary embedding turns 64, dense I = 12288, MoE I = 3072 (128 experts, top-4, one shared expert). A prefill step
has 16384 tokens here, so 65536 expert rows and, at 64 heads, 1048576 rows of the QK norm; twice as many tokens where q,
k and v are packed. A block of the cache has 128
slots. Tensor parallelism over 8 devices leaves I / 8.
"""

HIDDEN = 6144
HEAD_DIM = 128
ROTARY_DIM = 64
HEADS_KV = 4
CACHE_BLOCK = 128
MOE_SIZE = 3072
DENSE_SIZE = 12288
TENSOR_PARALLEL_SIZE = MOE_SIZE // 8
EXPERTS = 128
TOP_K = 4
TOKENS = 16384
EXPERT_ROWS = TOP_K * TOKENS
HEAD_ROWS = 64 * TOKENS
QKV_SIZE = (64 + 4 + 4) * HEAD_DIM
QKV_INDEX_SIZE = QKV_SIZE + (4 + 1) * HEAD_DIM
QKV_TOKENS = 2 * TOKENS

MOE_PREFILL = ("MoE prefill", EXPERT_ROWS, MOE_SIZE)
DENSE_PREFILL = ("dense prefill", TOKENS, DENSE_SIZE)
TRAINING = ("MoE training step", EXPERT_ROWS, MOE_SIZE)
HIDDEN_TRAINING = ("hidden training step", TOKENS, HIDDEN)
QK_TRAINING = ("QK norm training step", HEAD_ROWS, HEAD_DIM)
INTERLEAVED_PREFILL = ("MoE prefill, interleaved", EXPERT_ROWS, MOE_SIZE)
SHARED_PREFILL = ("shared expert prefill", TOKENS, MOE_SIZE)
SLICE_PREFILL = ("MoE prefill, TP 8", EXPERT_ROWS, TENSOR_PARALLEL_SIZE)
HIDDEN_PREFILL = ("hidden prefill", TOKENS, HIDDEN)
QKV_PREFILL = ("packed QK norm prefill", QKV_TOKENS, QKV_SIZE)
INDEX_PREFILL = ("packed QK norm prefill, index heads", QKV_TOKENS, QKV_INDEX_SIZE)
COMBINE_PREFILL = ("MoE output prefill", TOKENS, HIDDEN)
ROUTER_TRAINING = ("router training step", TOKENS, EXPERTS)
COMBINE_TRAINING = ("MoE output training step", TOKENS, HIDDEN)
ROUTER_PREFILL = ("router prefill", TOKENS, EXPERTS)
QK_PREFILL = ("QK norm prefill", HEAD_ROWS, HEAD_DIM)

PADDED_ROWS, LIVE_ROWS = 4096, 8
"""A buffer for the worst case, and what a decode step puts there."""

LOCAL_EXPERTS, EXPERT_BUFFER = 32, 1024
"""Of experts divided among four GPUs, those of one, and the rows that a buffer has for each."""
