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
# # Speed
#
# The ops of `m3ops` do a few dozen operations for each element, so the limit is the time that their bytes take. This
# notebook reads what `python -m m3ops bench` wrote on an H100 and on an H200, sets it beside that limit, and measures
# some of the same sizes on this machine's GPU, if there is one. The files are of 2026-11-28. The kernels were rewritten
# on that day, with the same tiles and the same arithmetic, after these runs; `docs/performance.md` says how little that
# changed.

# %%
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import torch

from m3ops.testing.workloads import WORKLOADS
from m3ops.tools.bench.plot import COLORS, LABELS
from m3ops.tools.bench.result import CONTENDERS, Report
from m3ops.tools.bench.run import find_sides, run, start_report
from m3ops.tools.bench.torch_side import TorchSide

plt.style.use("m3ops.mplstyle")
folder = Path("../docs/performance")
reports = {name: Report.load(folder / f"{name.lower()}.json") for name in ("H100", "H200")}
for name, report in reports.items():
    assert not report.failures  # bytes are checked before anything is timed
    copy = f"copy {report.copy_gbps:.0f} GB/s, empty kernel {report.empty_us:.2f} us"
    versions = f"torch {report.versions['torch']}, jax {report.versions['jax']}"
    print(f"{name}, {report.date[:10]}: {copy}, {len(report.rows)} timings, {versions}")

# %% [markdown]
# ## Time against bytes
#
# Each point is one op at one size of MiniMax-M3. The line is the time that a device-to-device copy of as many bytes
# would take at the bandwidth of a 1 GiB copy. No op that reads its input once and writes its output once can be much
# below it. Small sizes cannot be below the time of an empty kernel.

# %%
BYTES = {(w.op, w.name): w.bytes_moved for w in WORKLOADS}


def points(report, contender, modes=("events", "graph")):
    """Bytes and microseconds of every timing on the device."""
    rows = [r for r in report.rows if r.contender == contender and r.mode in modes]
    return [BYTES[r.op, r.workload] for r in rows], [r.us for r in rows]


def against_the_limit(axis, report, name):
    size = np.geomspace(3e3, 3e9, 50)
    axis.plot(size, size / report.copy_gbps * 1e-3, color="black", linewidth=1, label="bytes / copy bandwidth")
    if report.empty_us:
        axis.axhline(report.empty_us, color="black", linewidth=1, linestyle=":", label="empty kernel")
    for contender, marker in (("m3ops_torch", "o"), ("torch.compile", "x")):
        kind = {"color": COLORS[contender], "alpha": 0.9, "label": LABELS.get(contender, contender)}
        axis.plot(*points(report, contender), marker, markersize=5.5, **kind)
    axis.set(xscale="log", yscale="log", title=name, xlabel="bytes moved", ylabel="time [us]", ylim=(0.7, 2000))


fig, axes = plt.subplots(1, 2, figsize=(11, 4.4), sharey=True)
for axis, (name, report) in zip(axes, reports.items(), strict=True):
    against_the_limit(axis, report, f"{name}: every op and size")
axes[0].legend(loc="upper left")
axes[1].set_ylabel("")
plt.show()

# %% [markdown]
# ## Fraction of the copy bandwidth
#
# At the large sizes bandwidth decides. Here 1 is the bandwidth of a 1 GiB copy; a smaller copy can be a little faster
# or slower. Both panels have the same rows: every op and size that was measured on either GPU.


# %%
def prefill(report, contender):
    """The fraction of the copy bandwidth by op and workload."""
    return {
        (r.op, r.workload): r.of_copy for r in report.rows if r.contender == contender and r.mode in ("events", "batch")
    }


def fractions(axis, report, name, keys):
    for contender, marker in (("jax.jit", "v"), ("m3ops_jax", "s"), ("m3ops_torch", "o"), ("torch.compile", "x")):
        found = prefill(report, contender)
        heights = [keys.index(key) for key in found]
        label = LABELS.get(contender, contender)
        axis.plot(list(found.values()), heights, marker, color=COLORS[contender], markersize=6.5, label=label)
    axis.axvline(1, color="black", linewidth=1, linestyle="--")
    axis.set_yticks(range(len(keys)), [f"{op}, {workload}" for op, workload in keys], fontsize=9)
    axis.set(title=name, xlabel="bandwidth / that of a 1 GiB copy", xlim=(0, 1.15), ylim=(len(keys) - 0.5, -0.5))


keys = list(dict.fromkeys(key for report in reports.values() for key in prefill(report, "m3ops_torch")))
fig, axes = plt.subplots(1, 2, figsize=(11, 6.6), sharey=True)
for axis, (name, report) in zip(axes, reports.items(), strict=True):
    fractions(axis, report, name, keys)
handles, labels = axes[0].get_legend_handles_labels()
fig.legend(handles, labels, loc="outside lower center", ncols=4)
plt.show()

# %% [markdown]
# `jax.jit` falls behind wherever there is a block maximum: XLA writes the activation to memory and reads it again for
# the scales. `m3ops_jax` is timed by wall clock over asynchronous batches, which counts the gaps between kernels and,
# for the smallest sizes, the host.
#
# ## Where the H200 runs out of instructions
#
# At 4.28 TB/s the H200 moves the bytes of 851 billion elements of `swiglu_oai_quantize` a second, which leaves 39
# instructions for each; the kernel needs 31 of them. That is why its fraction is below that of `mxfp8_quantize`, which
# needs far fewer, and why the arithmetic is written to be short. `docs/performance.md` has the count.
#
# ## A decode step
#
# With a handful of rows an op is one launch and one trip to memory. These launches were replayed from a CUDA graph:

# %%
SHOWN = {"swiglu_oai_quantize": "decode, M = {}", "gemma_fused_add_rmsnorm": "hidden decode, M = {}"}

fig, axes = plt.subplots(1, 2, figsize=(11, 3.8), sharey=True)
for axis, (name, report) in zip(axes, reports.items(), strict=True):
    timed = report.workloads()
    keys = [(op, text.format(m)) for op, text in SHOWN.items() for m in (1, 4, 16, 32, 64)]
    keys = [key for key in keys if key in timed]
    contenders = ("m3ops_torch", "torch.compile", "chain", "copy")
    for number, contender in enumerate(contenders):
        bars = {at: timed[key][contender].us for at, key in enumerate(keys) if contender in timed[key]}
        places = np.array(list(bars)) + (number - 1.5) * 0.2
        axis.bar(places, bars.values(), 0.19, color=COLORS[contender], label=LABELS.get(contender, contender))
    axis.axhline(report.empty_us, color="black", linewidth=1, linestyle=":", label="empty kernel")
    axis.set_xticks(range(len(keys)), [f"{op.split('_')[0]}\nM = {w.split('= ')[1]}" for op, w in keys], fontsize=9)
    axis.set_title(f"{name}: swiglu_oai_quantize, gemma_fused_add_rmsnorm")
    axis.grid(visible=False, axis="x")
axes[0].set_ylabel("time of one launch [us]")
handles, labels = axes[0].get_legend_handles_labels()
fig.legend(handles, labels, loc="outside lower center", ncols=5)
plt.show()

# %% [markdown]
# ## This machine
#
# On a GPU the next cell checks the bytes at some of the sizes, times them and draws them as above.
# `python -m m3ops bench` measures everything.

# %%
sides, notes = find_sides([TorchSide]) if torch.cuda.is_available() else ([], ["there is no GPU here"])
if sides:
    chosen = [w for w in WORKLOADS if w.name in ("shared expert prefill", "hidden prefill", "decode, M = 1")]
    live = start_report(sides, notes)
    run(sides, chosen, [name for name in CONTENDERS if "jax" not in name], live)
    assert not live.failures, live.failures
    fig, (left, right) = plt.subplots(1, 2, figsize=(11, 4.4))
    against_the_limit(left, live, live.device)
    fractions(right, live, live.device, list(prefill(live, "m3ops_torch")))
    plt.show()
else:
    print("not measured:", *notes)
