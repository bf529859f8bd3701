"""Scales of groups of rows: where each is against independent statements of it, who reads them, transformations."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from backends import H100, interpreted, no_gpu, planned
from compare import assert_same_bytes
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P
from specification import reference
from test_jax_sharding import DEVICES
from test_scale_layouts import random_scales, swizzled_offset
from test_torch_out import poisoned

import m3ops_jax
import m3ops_torch
from m3ops.array import ArraySpec
from m3ops.numerics.exact.scale_groups import arrange_groups, restore_groups
from m3ops.numerics.scale_layouts import OF_GROUPS
from m3ops.op import bind
from m3ops.ops import OPS
from m3ops.testing.arrays import normal
from m3ops.tools.run import to_numpy, to_tensor

GROUPS, SPREAD = OF_GROUPS
every_layout = pytest.mark.parametrize("layout", OF_GROUPS)
SIZES = [(5,), (0, 1, 127, 128, 0, 129), (128, 256), (0, 0), (300, 0, 2), (1,) * 9, (0, 0, 0, 0, 130, 130)]
every_sizes = pytest.mark.parametrize("sizes", SIZES, ids=str)

X, PARTS = normal((150, 96), "bfloat16", 3.0), np.array([0, 3, 129, 4], np.int32)
"""Rows of which the last 14 are in no group."""


# --- The layouts, said by others -------------------------------------------------------------------------------------


def starts_of(layout: str, sizes: Sequence[int]) -> list[int]:
    """PyTorch pads each group to 128 rows; FlashInfer's ``sf_m_offset`` has 127 rows more for each group before."""
    if layout == SPREAD:
        return [(first + 127 * g) // 128 * 128 for g, first in enumerate([0, *np.cumsum(sizes)[:-1]])]
    return [0, *np.cumsum([-(-size // 128) * 128 for size in sizes])[:-1]]


@every_layout
@every_sizes
@pytest.mark.parametrize("beyond", [0, 30])
def test_every_scale_is_where_the_consumer_looks(layout: str, sizes: tuple[int, ...], beyond: int) -> None:
    scales = random_scales((sum(sizes) + beyond, 5))
    stored = arrange_groups(scales, layout, np.array(sizes, np.int32))
    assert stored.shape == ((len(scales) + 127 * len(sizes)) // 128 * 128, 8)
    expected, row = np.zeros(stored.size, np.uint8), 0
    for start, size in zip(starts_of(layout, sizes), sizes, strict=True):
        for inner, block in itertools.product(range(size), range(5)):
            expected[swizzled_offset(start + inner, block, stored.shape)] = scales[row + inner, block]
        row += size
    np.testing.assert_array_equal(stored.ravel(), expected)  # and what no group has is zero
    restored = restore_groups(stored, scales.shape, layout, np.array(sizes, np.int32))
    np.testing.assert_array_equal(restored, np.where(np.arange(len(scales))[:, None] < row, scales, 0))


@every_sizes
def test_groups_are_those_of_torchao(sizes: tuple[int, ...]) -> None:
    """Which has more rows of zeros at the end."""
    kernels = pytest.importorskip("torchao.prototype.moe_training.kernels.mxfp8", reason="torchao is not installed")
    scales = random_scales((sum(sizes), 8))
    theirs, starts = kernels.torch_to_blocked_2d_M_groups(torch.from_numpy(scales), torch.tensor(np.cumsum(sizes)))
    ours = arrange_groups(scales, GROUPS, np.array(sizes, np.int32))
    np.testing.assert_array_equal(ours, theirs[: len(ours)])
    assert not theirs[len(ours) :].any()
    assert starts[:-1].tolist() == starts_of(GROUPS, sizes)


# --- Ops -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("front_end", [m3ops_jax, m3ops_torch], ids=lambda module: module.__name__)
@every_layout
def test_a_chain_of_experts(front_end: Any, layout: str) -> None:
    """Each op reads what the one before it wrote, with the bytes of row-major scales."""
    array, back = (jnp.asarray, np.asarray) if front_end is m3ops_jax else (to_tensor, to_numpy)
    sizes, w = array(PARTS), front_end.mxfp8_quantize(array(normal((4, 40, 96), "bfloat16")))
    gate_up = array(np.concatenate([X, X[::-1]], axis=1))
    wanted = front_end.swiglu_oai_quantize(gate_up)
    q = front_end.swiglu_oai_quantize(gate_up, group_sizes=sizes, scale_layout=layout)
    assert q.scale_layout == layout
    first = int(PARTS.sum())
    assert_same_bytes([back(q.values)[:first]], [back(wanted.values)[:first]])
    assert not back(q.values)[first:].view(np.uint8).any()
    plain = back(front_end.mxfp8_dequantize(wanted))
    assert_same_bytes([back(front_end.mxfp8_dequantize(q, sizes))[:first]], [plain[:first]])
    product, same = (back(front_end.mxfp8_grouped_matmul(x, w, sizes)) for x in (q, wanted))
    assert_same_bytes([product], [same])


@every_layout
def test_every_byte_of_given_memory_is_written(layout: str, device: str) -> None:
    x, sizes = to_tensor(X, device), to_tensor(PARTS, device)
    wanted = m3ops_torch.mxfp8_quantize(x, sizes, scale_layout=layout)
    out = m3ops_torch.MXFP8(*map(poisoned, wanted), scale_layout=layout)
    m3ops_torch.mxfp8_quantize(x, sizes, scale_layout=layout, out=out)
    assert_same_bytes([*map(to_numpy, out)], [*map(to_numpy, wanted)])


@pytest.mark.parametrize("programs", [1, 3, 100])
@every_layout
@pytest.mark.parametrize("name", ["mxfp8_quantize", "mxfp8_dequantize"])
def test_any_number_of_programs(name: str, layout: str, programs: int) -> None:
    """They share the tiles and what is to be cleared."""
    op, arrays = OPS[name].of(scale_layout=layout), (X, PARTS)
    if name == "mxfp8_dequantize":
        arrays = (*reference("mxfp8_quantize", *arrays, scale_layout=layout), PARTS)  # type: ignore[assignment]
    inputs = bind(op, arrays)
    first, second = (plan := planned(op, inputs)).launches
    count = replace(second.constants["COUNT"], programs=programs)
    few = replace(second, grid=(programs,), constants={**second.constants, "COUNT": count})
    results = interpreted(op, inputs, replace(plan, launches=(first, few)))
    assert_same_bytes(results, [*op.reference(inputs).values()])


def test_the_number_of_rows_is_no_constant() -> None:
    """Else every batch size would compile kernels of its own."""
    op = OPS["mxfp8_quantize"].of(scale_layout=GROUPS)
    plans = []
    for rows in (2048, 2049, 4096):
        specs = {"x": ArraySpec((rows, 3072), "bfloat16"), "group_sizes": ArraySpec((8,), "int32")}
        plans.append(op.plan({**specs, **op.check(specs)}, H100).launches)
    for one in range(2):
        assert plans[0][one].constants == plans[1][one].constants == plans[2][one].constants


# --- Transformations -------------------------------------------------------------------------------------------------


def test_layouts_of_groups_are_structures_of_their_own() -> None:
    quantized = [m3ops_jax.mxfp8_quantize(jnp.asarray(X), jnp.asarray(PARTS), scale_layout=own) for own in OF_GROUPS]
    assert len({jax.tree.structure(q) for q in quantized}) == 2
    with pytest.raises(ValueError, match="scale_layout='swizzle_128x4_groups' cannot be sliced"):
        quantized[0][:2]
    values, scales = quantized[0]
    assert (values.shape, scales.shape) == ((150, 96), (640, 4))


@every_layout
def test_vmap(layout: str) -> None:
    """Each example has groups of its own."""
    x, sizes = normal((3, 150, 96), "bfloat16"), np.stack([PARTS, PARTS[::-1], np.zeros_like(PARTS)])
    wanted = [reference("mxfp8_quantize", *own, scale_layout=layout) for own in zip(x, sizes, strict=True)]
    stacked = [np.stack(parts) for parts in zip(*wanted, strict=True)]
    in_jax = jax.vmap(partial(m3ops_jax.mxfp8_quantize, scale_layout=layout))(x, sizes)
    assert_same_bytes([*map(np.asarray, in_jax)], stacked)

    def pair(x: torch.Tensor, sizes: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return tuple(m3ops_torch.mxfp8_quantize(x, sizes, scale_layout=layout))

    in_torch = torch.func.vmap(pair)(to_tensor(x), to_tensor(sizes))
    assert_same_bytes([*map(to_numpy, in_torch)], stacked)


def test_torch_compile() -> None:
    def chain(x: torch.Tensor, sizes: torch.Tensor) -> tuple[Any, torch.Tensor]:
        q = m3ops_torch.mxfp8_quantize(x, sizes, scale_layout=GROUPS)
        return q, m3ops_torch.mxfp8_dequantize(q, sizes)

    x, sizes = to_tensor(X), to_tensor(PARTS)
    (q, back), (eager, wanted) = torch.compile(chain, fullgraph=True, dynamic=True)(x, sizes), chain(x, sizes)
    assert_same_bytes([*map(to_numpy, (*q, back))], [*map(to_numpy, (*eager, wanted))])


def test_exported_programs_keep_the_layout() -> None:
    call = jax.jit(partial(m3ops_jax.mxfp8_quantize, scale_layout=SPREAD))
    (rows,) = jax.export.symbolic_shape("rows")
    given = jax.ShapeDtypeStruct((rows, 96), jnp.bfloat16), jax.ShapeDtypeStruct((4,), jnp.int32)
    loaded = jax.export.deserialize(jax.export.export(call)(*given).serialize())
    q = loaded.call(jnp.asarray(X), jnp.asarray(PARTS))
    assert q.scale_layout == SPREAD
    assert_same_bytes([*map(np.asarray, q)], reference("mxfp8_quantize", X, PARTS, scale_layout=SPREAD))


def test_rows_in_groups_are_gathered_on_automatic_meshes_and_refused_on_explicit_ones() -> None:
    x = normal((8 * len(DEVICES), 96), "bfloat16")
    sizes = np.array([3, 0, len(x) - 5], np.int32)
    call = jax.jit(partial(m3ops_jax.mxfp8_quantize, scale_layout=GROUPS))

    def sharded(kind: AxisType) -> Any:
        mesh = jax.make_mesh((len(DEVICES),), ("a",), axis_types=(kind,), devices=DEVICES)
        return jax.device_put(x, NamedSharding(mesh, P("a"))), jax.device_put(sizes, NamedSharding(mesh, P()))

    expected = reference("mxfp8_quantize", x, sizes, scale_layout=GROUPS)
    assert_same_bytes([*map(np.asarray, call(*sharded(AxisType.Auto)))], expected)
    with pytest.raises(ValueError, match=r"x must be sharded as .*not along its last 2 axes"):
        call(*sharded(AxisType.Explicit))


@pytest.mark.gpu
@pytest.mark.skipif(no_gpu() is not None, reason=str(no_gpu()))
@every_layout
@pytest.mark.parametrize("name", ["mxfp8_quantize", "swiglu_oai_quantize"])
@pytest.mark.parametrize("num_rows", [1, 4096, 20001])
def test_large_buffers(name: str, num_rows: int, layout: str) -> None:
    """Every byte is written, of 128 groups of which some are empty and rows past the last."""
    x = to_tensor(normal((num_rows, 3072), "bfloat16", 3.0), "cuda")
    sizes = np.where(np.arange(128) % 3 == 0, 0, num_rows // 90).astype(np.int32)
    torch.full((2**28,), 0xA5, dtype=torch.uint8, device="cuda")  # what the allocator hands out next
    q = getattr(m3ops_torch, name)(x, group_sizes=to_tensor(sizes, "cuda"), scale_layout=layout)
    values, scales = map(to_numpy, getattr(m3ops_torch, name)(x))
    there = np.arange(num_rows)[:, None] < sizes.sum()
    wanted = np.where(there, values.view(np.uint8), 0).view(values.dtype), arrange_groups(scales, layout, sizes)
    assert_same_bytes([*map(to_numpy, q)], wanted)
