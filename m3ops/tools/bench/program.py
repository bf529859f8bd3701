"""Programs of many ops: what one op costs among others, without the host or an empty device around it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from m3ops.testing.model import HIDDEN, SLICE_PREFILL
from m3ops.testing.workload import Workload, rows
from m3ops.tools.bench.side import Contender

LAYERS, CALLS = 64, 16

Form = Callable[..., Any]
"""A program of the op and its inputs, which either framework runs."""


@dataclass(frozen=True)
class Program:
    """Many calls of one op.

    Attributes:
        workload: The op, with the inputs of the whole program.
        count: How often the program calls it.
        forms: The program by the way it is written, the one for a CUDA graph first.
    """

    workload: Workload
    count: int
    forms: dict[str, Form]


def _unrolled(op: Contender, x: Any, residual: Any, weights: Any) -> Any:
    for layer in range(LAYERS):
        x, residual = op(x, residual, weights[layer])
    return x, residual


def _scanned(op: Contender, x: Any, residual: Any, weights: Any, *, unroll: int) -> Any:
    import jax

    return jax.lax.scan(lambda carry, weight: (op(*carry, weight), None), (x, residual), weights, unroll=unroll)[0]


def _apart(op: Contender, *inputs: Any) -> Any:
    return [op(x) for x in inputs]


PROGRAMS = (
    Program(  # the norms of a decode step, each of what the one before gave, with their weights in one array
        Workload(
            "gemma_fused_add_rmsnorm",
            f"{LAYERS} in a chain",
            num_rows=4,
            size=HIDDEN,
            inputs_of=lambda num_rows, size: (rows(num_rows, size), rows(num_rows, size), rows(LAYERS, size)),
        ),
        LAYERS,
        {
            "unrolled": _unrolled,
            "jax.lax.scan": partial(_scanned, unroll=1),
            "jax.lax.scan, unroll=4": partial(_scanned, unroll=4),  # enough steps for a graph, and of a loop
        },
    ),
    Program(  # calls so short that the host cannot keep up with them one by one
        Workload(
            "mxfp8_quantize",
            f"{CALLS} side by side",
            *SLICE_PREFILL[1:],
            inputs_of=lambda num_rows, size: (rows(num_rows, size),) * CALLS,
        ),
        CALLS,
        {"unrolled": _apart},
    ),
)
OPTIONS: dict[str, dict[str, Any]] = {"": {}, ", graphs of any size": {"xla_gpu_graph_min_graph_size": 1}}
"""Options of ``jax.jit``: as they are, and CUDA graphs of fewer than five steps too, as the body of a scan is."""
