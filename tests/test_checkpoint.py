"""Weights of experts from a file in the layout of MiniMax-M3's checkpoint, which is written here."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from compare import assert_same_bytes

import m3ops_jax
import m3ops_torch
from m3ops.checkpoint import DTYPES, MoEWeights, moe_weights, read_safetensors
from m3ops.testing.arrays import normal
from m3ops.tools.run import flat, to_numpy, to_tensor

PREFIX = "language_model.model.layers.3.block_sparse_moe."
HIDDEN, INNER, EXPERTS = 64, 32, 12
SHAPES = {"gate": (INNER, HIDDEN), "up": (INNER, HIDDEN), "down": (HIDDEN, INNER)}
EXPERT = {"gate": "w1", "up": "w3", "down": "w2"}

Tensors = dict[str, np.ndarray]


def layer(*, quantized: bool, shared: bool = True) -> Tensors:
    """A layer's tensors by their names; experts of two digits are there too, which do not sort as numbers do."""
    tensors = {
        f"{PREFIX}gate.weight": normal((EXPERTS, HIDDEN), "float32"),
        f"{PREFIX}e_score_correction_bias": normal((EXPERTS,), "float32"),
        "language_model.model.layers.30.block_sparse_moe.experts.0.w1.weight": normal((2, 2), "float32"),
    }
    for expert in range(EXPERTS):
        for part, shape in SHAPES.items():
            weight = normal(shape, "bfloat16", 0.1 + 0.01 * expert)
            tensors |= stored(f"{PREFIX}experts.{expert}.{EXPERT[part]}.", weight, quantized)
    for part, shape in SHAPES.items() if shared else ():
        tensors |= stored(f"{PREFIX}shared_experts.{part}_proj.", normal(shape, "bfloat16", 0.3), quantized)
    return tensors


def stored(name: str, weight: np.ndarray, quantized: bool) -> Tensors:
    if not quantized:
        return {f"{name}weight": weight}
    values, scales = flat(m3ops_torch.mxfp8_quantize(to_tensor(weight)))
    return {f"{name}weight": to_numpy(values), f"{name}weight_scale_inv": to_numpy(scales)}


def write(path: Path, tensors: Tensors) -> Path:
    """A file of safetensors: the length of a header, the header in JSON, and the tensors one after the other."""
    names = {dtype: name for name, dtype in reversed(DTYPES.items())}
    header, data = {"__metadata__": {"format": "pt"}}, b""
    for name, array in tensors.items():
        ends = [len(data), len(data) + array.nbytes]
        header[name] = {"dtype": names[array.dtype.name], "shape": array.shape, "data_offsets": ends}  # type: ignore[dict-item]
        data += array.tobytes()
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + data)
    return path


@pytest.mark.parametrize("quantized", [True, False])
def test_a_layer_from_a_file(quantized: bool, tmp_path: Path) -> None:
    tensors = layer(quantized=quantized)
    read = read_safetensors(write(tmp_path / "layer.safetensors", tensors))
    assert read.keys() == tensors.keys()
    assert_same_bytes([*read.values()], [*tensors.values()])
    weights = m3ops_torch.moe_weights(read, PREFIX)
    assert weights.w13.values.shape == (EXPERTS, 2 * INNER, HIDDEN)
    for expert in (0, 2, 11):
        own = {part: torch_weight(tensors, f"{PREFIX}experts.{expert}.{EXPERT[part]}.") for part in SHAPES}
        same(weights.w13[expert][:INNER], own["gate"])
        same(weights.w13[expert][INNER:], own["up"])
        same(weights.w2[expert], own["down"])


def torch_weight(tensors: Tensors, name: str) -> m3ops_torch.MXFP8:
    weight = to_tensor(tensors[f"{name}weight"])
    if weight.dtype == torch.bfloat16:
        return m3ops_torch.mxfp8_quantize(weight)
    return m3ops_torch.MXFP8(weight, to_tensor(tensors[f"{name}weight_scale_inv"]))


def same(got: m3ops_torch.MXFP8, want: m3ops_torch.MXFP8) -> None:
    assert_same_bytes([*map(to_numpy, got)], [*map(to_numpy, want)])


@pytest.mark.parametrize("shared", [True, False])
def test_both_front_ends_have_the_same_weights(shared: bool) -> None:
    tensors = layer(quantized=True, shared=shared)
    in_torch, in_jax = (m.moe_weights(tensors, PREFIX) for m in (m3ops_torch, m3ops_jax))
    assert (in_torch.shared is not None) == (in_jax.shared is not None) == shared
    assert_same_bytes([*map(to_numpy, leaves(in_torch))], [*map(np.asarray, leaves(in_jax))])
    x = normal((5, HIDDEN), "bfloat16")
    logits = (x.astype(np.float32) @ tensors[f"{PREFIX}gate.weight"].T).astype(np.float32)
    got = m3ops_torch.moe_layer(to_tensor(x), to_tensor(logits), *in_torch[1:])
    assert got.shape == x.shape
    assert bool(torch.isfinite(got).all())


def test_a_shared_expert_in_the_stack() -> None:
    tensors = layer(quantized=True)
    apart, together = (m3ops_torch.moe_weights(tensors, PREFIX, shared_in_stack=stack) for stack in (False, True))
    assert together.shared is None
    for whole, experts, shared in zip(together[2:4], apart[2:4], apart.shared or (), strict=True):
        same(whole[:-1], experts)
        same(whole[-1], shared)


def test_no_shared_expert_fits_the_stack() -> None:
    with pytest.raises(ValueError, match=r"tensors must have .*shared_experts\.gate_proj\.weight"):
        moe_weights(layer(quantized=True, shared=False), PREFIX, shared_in_stack=True)
    tensors = layer(quantized=False)
    for name in ("gate", "up"):
        key = f"{PREFIX}shared_experts.{name}_proj.weight"
        tensors[key] = np.concatenate([tensors[key], tensors[key]])
    with pytest.raises(ValueError, match="shared_in_stack must be False for a shared expert of other shapes"):
        moe_weights(tensors, PREFIX, shared_in_stack=True)


def leaves(weights: MoEWeights) -> list[object]:
    return [array for part in weights for array in (flat(part) if part is not None else ())]


def test_what_is_missing_is_named() -> None:
    tensors = layer(quantized=True)
    with pytest.raises(ValueError, match=r"tensors must have other\.experts\.0\.w1\.weight, got \d+ others"):
        moe_weights(tensors, "other.")
    del tensors[f"{PREFIX}experts.3.w2.weight_scale_inv"]
    with pytest.raises(ValueError, match=r"tensors must have .*experts\.3\.w2\.weight_scale_inv"):
        moe_weights(tensors, PREFIX)


def test_a_dtype_that_is_not_known(tmp_path: Path) -> None:
    path = write(tmp_path / "one.safetensors", {"a": np.zeros(2, np.float32)})
    path.write_bytes(path.read_bytes().replace(b'"F32"', b'"F64"'))
    with pytest.raises(ValueError, match=r"a must have one of the dtypes BF16, .*, got F64"):
        read_safetensors(path)
