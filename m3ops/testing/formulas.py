"""The ops as a user of PyTorch or JAX would write them, for ``torch.compile`` and ``jax.jit`` to fuse.

They compute what the specification does for finite inputs at the parameters of the workloads, up to the rounding of
fp32 (no NaN rules, no promise about bytes). A family's own are in its ``formula.py``, which imports the frameworks when
a formula runs.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from m3ops.testing.discovery import modules

Formula = Callable[..., Any]

TORCH: dict[str, Formula] = {op: formula for module in modules("formula") for op, formula in module.TORCH.items()}
"""Over tensors, by op. A quantized argument is its values and its scales."""

JAX: dict[str, Formula] = {op: formula for module in modules("formula") for op, formula in module.JAX.items()}
"""The same over JAX arrays."""
