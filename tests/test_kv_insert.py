"""``gemma_rmsnorm_rope_kv_insert``: only addressed slots change, in place too, whatever slots hold."""

from __future__ import annotations

import re
from collections.abc import Callable
from contextlib import nullcontext
from functools import partial
from typing import Any
from unittest import mock

import jax
import numpy as np
import pytest
import torch
from backends import interpreted, planned
from compare import assert_same_bytes
from rocm import jax_device, torch_device
from test_torch import arrays

import m3ops_jax
import m3ops_torch
from m3ops.ops import OPS
from m3ops.ops.gemma_rmsnorm_heads.cases_insert import OP, inputs
from m3ops.testing.arrays import normal
from m3ops.testing.case import operands
from m3ops.tools.run import to_numpy, to_tensor
from m3ops_torch import _reference

HEADS = (4, 2, 2)
GIVEN: dict[str, Any] = {"num_heads_q": 4, "num_heads_k": 2, "num_heads_v": 2, "rotary_dim": 32}
CALL = OPS[OP].of(**GIVEN)
ARCHS = ["gfx942", "gfx950"]
in_torch = partial(m3ops_torch.gemma_rmsnorm_rope_kv_insert, **GIVEN)
in_jax = partial(m3ops_jax.gemma_rmsnorm_rope_kv_insert, **GIVEN)
every_dtype = pytest.mark.parametrize("dtype", ["bfloat16", "float8_e4m3fn"])


def made(dtype: str = "bfloat16", total: int = 13, **changed: Any) -> tuple[Any, ...]:
    """The inputs of a call, some of them changed."""
    qkv = lambda: (normal((total, sum(HEADS) * 64), "bfloat16"),)  # noqa: E731
    return inputs(qkv, HEADS, cache=dtype, change=lambda _: changed)


def expected(given: tuple[Any, ...]) -> list[np.ndarray]:
    return [*CALL.reference(operands(CALL, given)).values()]


def tensors(given: tuple[Any, ...]) -> list[Any]:
    return [None if array is None else to_tensor(array) for array in given]


# What it computes, by other means.


def _norm_and_turn(heads: np.ndarray, weight: np.ndarray, cos_sin: np.ndarray) -> np.ndarray:
    """In float64."""
    x = heads.astype(np.float64)
    x = x / np.sqrt(np.mean(x * x, axis=-1, keepdims=True) + 1e-6) * (1 + weight.astype(np.float64))
    cos, sin = np.split(cos_sin.astype(np.float64)[:, None], 2, axis=-1)
    half = cos.shape[-1]
    first, second, rest = x[..., :half], x[..., half : 2 * half], x[..., 2 * half :]
    return np.concatenate([first * cos - second * sin, second * cos + first * sin, rest], axis=-1)


@every_dtype
def test_rows_are_in_their_slots(dtype: str) -> None:
    """Token by token, ``cache[slot // size, slot % size] = k / scale`` in float64, as vLLM's test of its kernel goes.

    An fp32 norm of 64 elements, a rotation and a quotient are within 2**-15 of the head's largest element, by the
    counts of test_workloads.py, then half a unit of the last place is rounded off: of the number, 2**-8 in bfloat16 and
    2**-4 in E4M3, or of the smallest numbers of E4M3, 2**-10.
    """
    given = made(dtype)
    qkv, _, weight_k, cos_sin, positions, *caches, slots = given[:8]
    scales = given[12:14]
    heads = qkv.reshape(13, sum(HEADS), 64)
    turned = _norm_and_turn(heads[:, 4:6], weight_k, cos_sin[positions])
    for cache, result, rows, scale in zip(caches, expected(given)[1:], (turned, heads[:, 6:]), scales, strict=True):
        exact = cache.astype(np.float64)
        for row, slot in enumerate(slots):
            if slot >= 0:
                exact[slot // 16, slot % 16] = rows[row].astype(np.float64) / (1.0 if scale is None else scale[0])
        places, least = (2.0**-8, 0.0) if dtype == "bfloat16" else (2.0**-4, 2.0**-10)
        fits = np.clip(exact, -448, 448) if scale is not None else exact
        bound = np.maximum(np.abs(fits) * places, least) + 2.0**-15 * np.abs(exact).max(axis=-1, keepdims=True)
        assert (np.abs(result.astype(np.float64) - fits) <= bound).all()
        untouched = np.setdiff1d(np.arange(cache.shape[0] * 16), slots)
        blocks, offsets = np.divmod(untouched, 16)
        assert_same_bytes([result[blocks, offsets]], [cache[blocks, offsets]])


@pytest.mark.parametrize("scale", [None, 0.125, 3.0])
def test_q_in_e4m3_is_the_nearest_to_the_turned_q(scale: float | None) -> None:
    """By the bound of the test above. All other bytes are those of a call whose q stays in the row."""
    given = (*made()[:14], None if scale is None else np.array([scale], np.float32))
    op = OPS[OP].of(**GIVEN, q_dtype="float8_e4m3fn")
    row, q, *caches = op.reference(operands(op, given)).values()
    qkv, weight_q, _, cos_sin, positions = given[:5]
    heads = qkv.reshape(13, sum(HEADS), 64)[:, :4]
    exact = _norm_and_turn(heads, weight_q, cos_sin[positions]) / (scale or 1.0)
    bound = np.maximum(np.abs(exact) * 2.0**-4, 2.0**-10) + 2.0**-15 * np.abs(exact).max(axis=-1, keepdims=True)
    assert (np.abs(q.reshape(13, 4, 64).astype(np.float64) - np.clip(exact, -448, 448)) <= bound).all()
    in_row, *without = expected(given[:14])
    assert_same_bytes(caches, without)
    assert_same_bytes([row], [np.concatenate([qkv[:, : 4 * 64], in_row[:, 4 * 64 :]], axis=1)])


def test_a_whole_row_is_what_the_op_without_a_cache_returns() -> None:
    given = made()
    assert_same_bytes([expected(given)[0]], arrays(m3ops_torch.gemma_rmsnorm_rope_heads(*tensors(given)[:5], **GIVEN)))


# Slots that a cache does not have.

OUTSIDE = np.array([0, 31, 32, 33, 2**31 - 1, -1, -2, -(2**31), 7, 1000, 12, 64, 13], np.int32)
FAR = OUTSIDE.astype(np.int64) + np.where(np.arange(13) % 4 == 3, 2**32, 0)


@every_dtype
@pytest.mark.parametrize("slots", [OUTSIDE, FAR], ids=["int32", "int64"])
def test_slots_outside_write_nothing_in_the_interpreter(dtype: str, slots: np.ndarray) -> None:
    """It refuses a store at an address that is no element of the cache."""
    given = made(dtype, slot_mapping=slots)
    named = operands(CALL, given)
    assert_same_bytes(interpreted(CALL, named, planned(CALL, named)), expected(given))
    written = CALL.written(named, {"norm": given[0]})["new_key_cache"].any(axis=(2, 3))
    assert written.sum() == np.sum((slots >= 0) & (slots < 32)) > 0


@every_dtype
@pytest.mark.parametrize("arch", ARCHS)
def test_slots_outside_write_nothing_on_amd(dtype: str, arch: str) -> None:
    given = made(dtype, slot_mapping=OUTSIDE)
    assert_same_bytes(jax_device.run(arch, OP, given, GIVEN), expected(given))
    far = made(dtype, slot_mapping=FAR)
    assert_same_bytes(torch_device.run(arch, OP, far, GIVEN), expected(far))


def test_slots_outside_write_nothing_under_jit() -> None:
    given = made(slot_mapping=OUTSIDE)
    assert_same_bytes([*map(np.asarray, jax.jit(in_jax)(*given))], expected(given))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
@every_dtype
def test_slots_outside_write_nothing_on_a_gpu(dtype: str) -> None:
    given = made(dtype, slot_mapping=FAR)
    on_gpu = [None if tensor is None else tensor.cuda() for tensor in tensors(given)]
    assert_same_bytes(arrays(in_torch(*on_gpu)), expected(given))


CALLS: dict[str, Callable[..., Any]] = {"jax": in_jax, "torch": lambda *given, **n: in_torch(*tensors(given), **n)}
either_front_end = pytest.mark.parametrize("front_end", CALLS)
WRONG = {
    "past the cache": ([32], "slot_mapping must be below 32, the slots of key_cache, and at least -2**31, got 32"),
    "past 32 bits": (
        [2**32],
        "slot_mapping must be below 32, the slots of key_cache, and at least -2**31, got 4294967",
    ),
    "far below": ([-(2**32)], "slot_mapping must be below 32, the slots of key_cache, and at least -2**31, got -4294"),
    "twice": ([5, 5], "slot_mapping must name no slot twice, got 5 2 times"),
}


@either_front_end
@pytest.mark.parametrize(("first", "message"), WRONG.values(), ids=WRONG)
def test_slots_that_the_host_knows_to_be_wrong(first: list[int], message: str, front_end: str) -> None:
    slots = np.array([*first, *[-1] * (13 - len(first))], np.int64)
    with pytest.raises(ValueError, match=re.escape(message)):
        CALLS[front_end](*made(slot_mapping=slots))


@either_front_end
def test_slots_of_rows_that_do_not_count_are_not_looked_at(front_end: str) -> None:
    slots = np.where(np.arange(13) < 4, np.arange(13), 99).astype(np.int32)
    given, count = made(slot_mapping=slots), np.array([4], np.int32)
    own = count if front_end == "jax" else to_tensor(count)
    got = jax.tree.leaves(CALLS[front_end](*given, num_rows=own))
    named = operands(CALL, (*given, count))
    assert_same_bytes([g if isinstance(g, jax.Array) else to_numpy(g) for g in got], [*CALL.reference(named).values()])


def test_slots_past_32_bits_are_none_in_jax() -> None:
    """It has 32-bit numbers here, and which rows count, and so whose slots matter, is not known on the host."""
    slots = np.array([2**32 + 1, 0, -(2**32) + 3, *[-1] * 10], np.int64)
    given, none = made(slot_mapping=slots), made(slot_mapping=np.where(slots == 0, 0, -1))
    got = jax.jit(lambda count: in_jax(*given, num_rows=count))(np.array([13], np.int32))
    assert_same_bytes([*map(np.asarray, jax.tree.leaves(got))], expected(none))


# In place, in PyTorch.


def side_by_side(given: tuple[Any, ...], heads_first: bool) -> tuple[torch.Tensor, torch.Tensor]:
    """The caches of a call in one, as vLLM has them: ``[blocks, heads, slots, 2 * head_dim]``, or slots first."""
    key, value = tensors(given)[5:7]
    if heads_first:
        key, value = key.transpose(1, 2), value.transpose(1, 2)
    both = torch.cat([key.view(torch.uint8), value.view(torch.uint8)], -1).view(key.dtype)
    size = key.shape[-1]
    key, value = both[..., :size], both[..., size:]
    return (key.transpose(1, 2), value.transpose(1, 2)) if heads_first else (key, value)


@every_dtype
@pytest.mark.parametrize("heads_first", [False, True])
@pytest.mark.parametrize("arch", ["", *ARCHS])
def test_k_and_v_of_one_cache_in_place(arch: str, heads_first: bool, dtype: str) -> None:
    given, own = made(dtype), tensors(made(dtype))
    own[5], own[6] = side_by_side(given, heads_first)
    versions = [own[place]._version for place in (0, 5, 6)]
    with torch_device.device(arch) if arch else nullcontext():
        for _ in range(1 + bool(arch)):  # later calls take a shorter way
            own[0].copy_(to_tensor(given[0]))
            results = in_torch(*own, out=(own[0], own[5], own[6]))
    assert results[1] is own[5]
    assert_same_bytes(arrays((own[0], own[5].contiguous(), own[6].contiguous())), expected(given))
    assert all(own[place]._version > old for place, old in zip((0, 5, 6), versions, strict=True))


@pytest.mark.parametrize("arch", ARCHS)
def test_q_apart_leaves_the_row_alone_in_place(arch: str) -> None:
    """The row and the caches take the memory of the inputs, and nothing is written where q was."""
    given = (*made()[:14], np.array([0.5], np.float32))
    op = OPS[OP].of(**GIVEN, q_dtype="float8_e4m3fn")
    wanted = [*op.reference(operands(op, given)).values()]
    own = tensors(given)
    q = torch.empty(13, 4 * 64, dtype=torch.float8_e4m3fn)
    with torch_device.device(arch):
        in_torch(*own, q_dtype=torch.float8_e4m3fn, out=(own[0], q, *own[5:7]))
    assert_same_bytes(arrays((own[0], q, *own[5:7])), wanted)


def test_only_the_slots_are_written_in_place() -> None:
    """The rest is left alone even where it changes meanwhile: what ``out`` held stays, not what the operand holds."""
    given = made()
    own, memory = tensors(given), [torch.zeros_like(tensor) for tensor in tensors(given)[5:7]]
    in_torch(*own, out=(own[0], *memory))
    written = CALL.written(operands(CALL, given), {"norm": given[0]})
    for got, want, name in zip(arrays(tuple(memory)), expected(given)[1:], CALL.updates.values(), strict=False):
        assert_same_bytes([got], [np.where(written[name], want, np.zeros_like(want))])


def test_caches_that_overlap() -> None:
    own = tensors(made())
    with pytest.raises(ValueError, match=r"out\[2\] must not overlap out\[1\]"):
        in_torch(*own, out=(own[0], own[5], own[5]))
    wide = torch.zeros(2, 16, 2, 100, dtype=torch.bfloat16)
    own[5], own[6] = wide[..., :64], wide[..., 36:]  # 28 elements of each head are in both
    with pytest.raises(ValueError, match=r"out\[1\] must not overlap value_cache"):
        in_torch(*own, out=(own[0], own[5], own[6]))


@pytest.mark.parametrize("joined", [False, True])
@pytest.mark.parametrize("backend", ["aot_eager", "inductor"])
def test_a_compiled_graph_writes_into_the_caches(backend: str, joined: bool) -> None:
    given = made()
    own, seen = tensors(given), []
    if joined:
        own[5], own[6] = side_by_side(given, heads_first=False)

    def computed(op: Any, named: Any, out: Any = None) -> Any:
        seen.append([tensor.data_ptr() for tensor in out])
        return compute(op, named, out)

    def layer(*own: Any) -> None:
        in_torch(*own, out=(own[0], own[5], own[6]))

    compute = _reference.compute
    torch._dynamo.reset()
    with mock.patch.object(_reference, "compute", computed):
        torch.compile(layer, fullgraph=True, backend=backend)(*own)
    assert_same_bytes(arrays((own[0], own[5].contiguous(), own[6].contiguous())), expected(given))
    if backend == "inductor":  # aot_eager always works on copies
        assert seen == [[own[place].data_ptr() for place in (0, 5, 6)]]


def test_vmap_gives_each_example_caches_of_its_own() -> None:
    given = made(total=12)
    each = [array.reshape(3, 4, *array.shape[1:]) if place in (0, 4, 7) else array for place, array in enumerate(given)]
    axes = tuple(0 if place in (0, 4, 7) else None for place in range(len(given)))
    of_jax = jax.vmap(in_jax, axes)(*each)
    of_torch = torch.func.vmap(in_torch, axes)(*tensors(tuple(each)))
    for i in range(3):
        want = expected(tuple(a[i] if axis == 0 else a for a, axis in zip(each, axes, strict=True)))
        assert_same_bytes([np.asarray(result[i]) for result in of_jax], want)
        assert_same_bytes([to_numpy(result[i]) for result in of_torch], want)
    own = tensors(tuple(each))
    with pytest.raises(ValueError, match="out has no rule for"):
        torch.func.vmap(lambda *x: in_torch(*x, out=(own[0][0], own[5], own[6])), axes)(*own)
