"""Experts divided among devices: the bytes of one device, in JAX on eight devices and in PyTorch by two processes."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import jax
import numpy as np
import processes
import pytest
import torch
from compare import assert_same_bytes
from jax.sharding import AxisType
from jax.sharding import PartitionSpec as P
from test_jax_sharding import COLLECTIVE, DEVICES
from test_layers import Arrays, in_torch

import m3ops_jax
import m3ops_torch
from m3ops.testing import layer
from m3ops.testing.layer import compute
from m3ops.tools.run import to_tensor

DIVIDED = ("x", "w13", "w2")
"""What each device has its own part of."""


def arrays(choice: str = "normal") -> Arrays:
    """Two tokens and one expert for each of eight devices; the choice may leave some experts without a token."""
    own = layer.arrays(tokens=16, experts=8)
    if choice != "normal":
        own["bias"] += np.arange(8, dtype=np.float32)
    return own


every_choice = pytest.mark.parametrize("choice", ["normal", "all to the last experts"])


@every_choice
@pytest.mark.parametrize("kind", [AxisType.Auto, AxisType.Explicit], ids=str)
@pytest.mark.parametrize("count", [1, 2, 8])
def test_in_jax(count: int, kind: AxisType, choice: str) -> None:
    """One all-gather of the tokens, one all-to-all of the results, and nothing else travels."""
    if len(DEVICES) < count:
        pytest.skip(f"fewer than {count} devices")
    mesh = jax.make_mesh((count,), ("experts",), axis_types=(kind,), devices=DEVICES[:count])
    own = arrays(choice)
    specs = {name: P("experts") if name in DIVIDED else P() for name in own}

    def on_each(parts: Arrays) -> Any:
        return compute(m3ops_jax, *(parts[name] for name in specs), axis_name="experts")  # JAX sorts a tree's names

    placed = {name: jax.device_put(a, jax.NamedSharding(mesh, specs[name])) for name, a in own.items()}
    with jax.set_mesh(mesh):
        divided = jax.jit(jax.shard_map(on_each, mesh=mesh, in_specs=(specs,), out_specs=P("experts")))
        compiled = divided.lower(placed).compile()
        assert_same_bytes([np.asarray(compiled(placed))], [in_torch(own)])
    if count > 1:
        assert Counter(COLLECTIVE.findall(compiled.as_text())) == {"all-gather": 1, "all-to-all": 1}


@every_choice
@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def test_in_torch(device: str, choice: str, tmp_path: Path) -> None:
    """The worker compares its tokens' results, which it computed with the other, with these."""
    own = arrays(choice)
    tensors = {name: to_tensor(array) for name, array in own.items()}
    torch.save({**tensors, "wanted": to_tensor(in_torch(own))}, tmp_path / "layer")
    processes.run("experts_worker.py", device, tmp_path)


def test_tiled_scales_of_tokens_are_refused() -> None:
    """The rows of a tile are neighbours; those of several devices would be others."""
    mesh = jax.make_mesh((2,), ("experts",), axis_types=(AxisType.Auto,), devices=DEVICES[:2])
    own = arrays()

    def on_each(x: jax.Array, w13: jax.Array, w2: jax.Array) -> jax.Array:
        tiled = m3ops_jax.mxfp8_quantize(x, scale_layout="swizzle_128x4")
        weights, logits = map(m3ops_jax.mxfp8_quantize, (w13, w2)), m3ops_jax.moe_logits(x, own["router"])
        return m3ops_jax.moe_layer(tiled, logits, own["bias"], *weights, axis_name="experts")

    divided = jax.shard_map(on_each, mesh=mesh, in_specs=(P("experts"),) * 3, out_specs=P("experts"))
    with pytest.raises(ValueError, match="x must have row-major scales for experts of several devices, got swizzle"):
        jax.eval_shape(divided, *(own[name] for name in DIVIDED))


@pytest.mark.parametrize("count", [1, 2])
def test_a_stack_with_the_shared_expert_is_of_one_device(count: int) -> None:
    mesh = jax.make_mesh((count,), ("experts",), axis_types=(AxisType.Auto,), devices=DEVICES[:count])
    own = {name: array for name, array in arrays().items() if not name.startswith("shared")}

    def on_each(*parts: jax.Array) -> Any:
        return compute(m3ops_jax, *parts, axis_name="experts", shared_in_stack=True)

    specs = tuple(P("experts") if name in DIVIDED else P() for name in own)
    divided = jax.shard_map(on_each, mesh=mesh, in_specs=specs, out_specs=P("experts"))
    with pytest.raises(ValueError, match="shared_in_stack must be False with experts divided among devices"):
        jax.eval_shape(divided, *own.values())


def test_the_experts_of_all_devices_have_a_logit() -> None:
    """Forgetting the axis is an error, not a choice among a device's own experts."""
    x, router, bias, w13, w2, *_ = (to_tensor(array) for array in arrays().values())
    with pytest.raises(ValueError, match=r"logits must have shape \(16, 4\) for x of shape \(16, 64\), got \(16, 8\)"):
        compute(m3ops_torch, x, router, bias, w13[:4], w2[:4])
