"""Draws README's picture: ``PYTHONPATH=.:tests python docs/picture.py``.

On the left the bytes of one block as three backends give them here, on the right the committed measurements.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from rocm import torch_device

from m3ops.testing.arrays import normal
from m3ops.tools.bench.plot import COLORS
from m3ops.tools.bench.result import Report
from m3ops.tools.run import run_jax, run_torch

FOLDER = Path(__file__).parent
OP = "swiglu_oai_quantize"
BACKENDS = {
    "JAX, jitted": partial(run_jax, "cpu"),
    "PyTorch": partial(run_torch, "cpu"),
    "AMD gfx950 code,\nrun on the CPU": partial(torch_device.run, "gfx950"),
}
SHOWN = 12


def main() -> None:
    """Writes picture.png beside this file."""
    plt.style.use(FOLDER.parent / "notebooks" / "m3ops.mplstyle")
    figure, (left, right) = plt.subplots(1, 2, figsize=(12, 3.5), width_ratios=(1.25, 1))
    draw_bytes(left)
    draw_speed(right)
    figure.savefig(FOLDER / "picture.png", dpi=110)


def draw_bytes(axis: Any) -> None:
    """One row a backend: the scale byte of a block and its first value bytes."""
    gate_up = normal((1, 64), "bfloat16", 3.0)
    found = {}
    for name, run in BACKENDS.items():
        values, scales = run(OP, [gate_up], {})
        found[name] = np.append(scales[0], values[0].view(np.uint8)[:SHOWN])
    rows = np.stack(list(found.values()))
    if (rows != rows[0]).any():
        raise ValueError(f"bytes differ: {found}")
    axis.imshow(rows, cmap="Blues", vmin=0, vmax=420, aspect="auto")
    for (y, x), byte in np.ndenumerate(rows):
        axis.text(x, y, f"{byte:02x}", ha="center", va="center", family="monospace", fontsize=11)
    axis.axvline(0.5, color="white", linewidth=6)
    axis.hlines((0.5, 1.5), -0.5, SHOWN + 0.5, color="white", linewidth=6)
    axis.set_xticks(range(SHOWN + 1), ["scale", *map(str, range(SHOWN))])
    axis.set_yticks(range(len(found)), list(found), fontsize=10)
    axis.set(title="The same bytes: one block of swiglu_oai_quantize", xlabel="value number")
    axis.grid(visible=False)
    axis.tick_params(length=0)
    axis.spines[:].set_visible(False)


def draw_speed(axis: Any) -> None:
    """Fraction of the copy bandwidth on each GPU measured."""
    contenders = {"m3ops_torch": "m3ops, PyTorch", "m3ops_jax": "m3ops, JAX"}
    contenders |= {name: name for name in ("torch.compile", "jax.jit")}
    for at, gpu in enumerate(("H100", "H200")):
        timed = Report.load(FOLDER / "performance" / f"{gpu.lower()}.json").workloads()[OP, "MoE prefill"]
        for number, (contender, name) in enumerate(contenders.items()):
            fraction, place = timed[contender].of_copy or 0.0, at + (number - 1.5) * 0.2
            axis.bar(place, fraction, 0.19, color=COLORS[contender], label=name if at == 0 else None)
            axis.text(place, fraction - 0.06, f"{fraction:.2f}", ha="center", va="top")
    axis.axhline(1, color="black", linestyle="--", linewidth=1)
    axis.text(1.46, 1.015, "copy", ha="right", va="bottom", fontsize=9)
    axis.set_xticks((0, 1), ("NVIDIA H100", "NVIDIA H200"))
    axis.set(title="The speed of a copy: 65536 x 3072, bfloat16", ylabel="bandwidth / copy's", ylim=(0, 1.42))
    axis.set_xlabel("PyTorch by device events, JAX by wall clock")
    axis.grid(visible=False, axis="x")
    axis.legend(loc="upper center", ncols=2)


if __name__ == "__main__":
    main()
