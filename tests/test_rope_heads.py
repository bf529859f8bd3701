"""Norms with rotary embedding of more rows than fill a GPU: a program takes several tiles of heads."""

from __future__ import annotations

from dataclasses import replace
from typing import Any
from unittest import mock

import numpy as np
import pytest
from backends import interpreted, planned
from compare import assert_same_bytes
from rocm import torch_device

from m3ops.ops import EVERY_OP
from m3ops.rope import rope_cos_sin
from m3ops.target import Target
from m3ops.testing.arrays import normal
from m3ops.testing.case import operands

GIVEN = {"num_heads_q": 8, "num_heads_k": 4, "num_heads_v": 4, "rotary_dim": 16}
INDEXED = {**GIVEN, "num_heads_index_q": 4}
"""With one index_k head beside them, the last tile has one head and room for four."""
APART = {**GIVEN, "q_dtype": "float8_e4m3fn"}
"""A tile of q heads is written to a result of its own, and its place in the row as it was."""


def call(given: dict[str, Any], rows: int) -> tuple[Any, dict[str, np.ndarray]]:
    """An op, and inputs of so many rows of heads of 32."""
    weights = normal((4 if given == INDEXED else 2, 32), "bfloat16", 0.5)
    heads = sum(number for name, number in given.items() if name.startswith("num")) + (given == INDEXED)
    fixed = rope_cos_sin(50, 16), np.arange(rows, dtype=np.int32) * 7 % 51 - 1
    op = EVERY_OP["gemma_rmsnorm_rope_heads"].of(**given)
    return op, operands(op, (normal((rows, heads * 32), "bfloat16", 2.0), *weights[:2], *fixed, *weights[2:]))


@pytest.mark.parametrize(
    ("given", "each"), [(GIVEN, 4), (INDEXED, 3), (APART, 4)], ids=["q, k, v", "index heads", "q apart"]
)
@pytest.mark.parametrize(("arch", "rows"), [("sm_90", 261), ("gfx942", 521), ("gfx950", 521)])
def test_a_program_takes_several_tiles(arch: str, rows: int, given: dict[str, Any], each: int) -> None:
    """Of a GPU with one multiprocessor, which is full soon. AMD's machine code is executed."""
    target = replace(Target.named(arch), multiprocessors=1)
    op, inputs = call(given, rows)
    plan = planned(op, inputs, target)
    heads = plan.launches[0].constants["HEADS"]
    assert (heads.together, heads.tiles_each) == (4, each)
    if target.vendor == "nvidia":
        got = interpreted(op, inputs, plan)
    else:
        with mock.patch.object(Target, "named", return_value=target):
            got = torch_device.run(arch, op.name, list(inputs.values()), given)
    assert_same_bytes(got, [*op.reference(inputs).values()])


@pytest.mark.parametrize("given", [GIVEN, INDEXED], ids=["q, k, v", "index heads"])
def test_counted_rows_have_a_program_for_every_tile(given: dict[str, int]) -> None:
    """Also where there are counts for several experts, whose buffers may be full."""
    op, inputs = call(given, 192)
    inputs |= {name: inputs[name].reshape(2, 96, *inputs[name].shape[1:]) for name in ("qkv", "positions")}
    inputs["num_rows"] = np.array([96, 50], np.int32)
    plan = planned(op, inputs, replace(Target.named("sm_90"), multiprocessors=1))
    assert plan.launches[0].constants["HEADS"].tiles_each == 1
    assert_same_bytes(interpreted(op, inputs, plan), [*op.reference(inputs).values()])
