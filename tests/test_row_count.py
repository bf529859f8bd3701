"""``num_rows``, read on the device: what is left alone, what is zero, and what transformations make of it."""

from __future__ import annotations

import re
from dataclasses import asdict, replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from backends import H100, interpreted, no_gpu, planned
from compare import assert_same_bytes
from inputs import OPS_OF_ROWS, arguments, call_of, jax_function
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P
from rocm import torch_device
from specification import reference
from test_jax_sharding import DEVICES
from test_torch import OPCHECKS, arrays, every_op_of_rows, every_op_that_counts, function, tensors
from test_torch_out import poisoned
from test_torch_vmap import Calls

import m3ops_jax
import m3ops_torch
from m3ops.array import ArraySpec
from m3ops.numerics.scale_layouts import SCALE_LAYOUTS, TILES, arrange
from m3ops.op import Op, bind
from m3ops.ops import OPS
from m3ops.planning.launch import PROGRAMS, PROGRAMS_OF_BUFFERS
from m3ops.row_count import MOST_BUFFERS
from m3ops.testing.arrays import normal
from m3ops.testing.case import operands
from m3ops.tools.run import flat, to_tensor

every_op_that_counts_buffers = pytest.mark.parametrize("name", [n for n in OPS_OF_ROWS if OPS[n].counts_buffers])

EXPERTS = np.array([6, 0, -1, 4], np.int32)
"""Rows that count in each buffer of the arrays in ``inputs``, 4 of 6 rows."""


def count(number: int, device: str = "cpu") -> torch.Tensor:
    return torch.tensor([number], dtype=torch.int32, device=device)


@every_op_of_rows
def test_rows_in_given_tensors_stay_as_they_are(name: str, device: str) -> None:
    op, inputs = function(name), tensors(name, device)
    whole = flat(op(*inputs))
    for number in (0, 1, 13, 24, 99):
        out = tuple(map(poisoned, whole))
        untouched = [array.reshape(24, -1).copy() for array in arrays(out)]
        op(*inputs, num_rows=count(number, device), out=out)
        for got, want, before in zip(arrays(out), arrays(whole), untouched, strict=True):
            rows = got.reshape(24, -1)
            assert_same_bytes([rows[:number]], [want.reshape(24, -1)[:number]])
            assert_same_bytes([rows[number:]], [before[number:]])


@every_op_that_counts_buffers
def test_experts_in_given_tensors(name: str, device: str) -> None:
    """Each expert's rows are what a call with its count alone makes of them."""
    op, inputs, counts = function(name), tensors(name, device), to_tensor(EXPERTS, device)
    out, wanted = (tuple(map(poisoned, flat(op(*inputs)))) for _ in range(2))
    op(*inputs, num_rows=counts, out=out)
    for expert in range(4):
        own = [tensor[expert] if tensor.ndim == 3 else tensor for tensor in inputs]
        op(*own, num_rows=counts[expert], out=tuple(tensor[expert] for tensor in wanted))
    assert_same_bytes(arrays(out), arrays(wanted))


@pytest.mark.parametrize("arch", ["gfx942", "gfx950"])
@pytest.mark.parametrize("name", ["swiglu_oai", "swiglu_oai_quantize", "mxfp8_quantize", "gemma_rmsnorm_heads"])
def test_experts_in_given_tensors_on_amd(name: str, arch: str) -> None:
    op, inputs, counts = function(name), tensors(name, "cpu"), to_tensor(EXPERTS)
    out = tuple(map(poisoned, flat(op(*inputs))))
    wanted = tuple(tensor.clone() for tensor in out)
    op(*inputs, num_rows=counts, out=wanted)
    with torch_device.device(arch):
        op(*inputs, num_rows=counts, out=out)
    assert_same_bytes(arrays(out), arrays(wanted))


@pytest.mark.parametrize("arch", ["gfx942", "gfx950"])
@pytest.mark.parametrize("name", ["mxfp8_quantize", "gemma_fused_add_rmsnorm"])
def test_rows_in_given_tensors_on_amd(name: str, arch: str) -> None:
    op, inputs = function(name), tensors(name, "cpu")
    out = tuple(map(poisoned, flat(op(*inputs))))
    wanted = tuple(tensor.clone() for tensor in out)
    op(*inputs, num_rows=count(13), out=wanted)
    with torch_device.device(arch):
        op(*inputs, num_rows=count(13), out=out)
    assert_same_bytes(arrays(out), arrays(wanted))


@pytest.mark.parametrize("layout", TILES)
def test_tiled_scales_in_given_tensors(layout: str, device: str) -> None:
    """Scales of rows that do not count stay, with what pads these rows; what pads the matrix is zero as ever."""
    x = to_tensor(normal((45, 96), "bfloat16"), device)
    zeros = m3ops_torch.mxfp8_quantize(x, scale_layout=layout, num_rows=count(40, device))
    out = m3ops_torch.MXFP8(*map(poisoned, zeros), scale_layout=layout)
    m3ops_torch.mxfp8_quantize(x, scale_layout=layout, num_rows=count(40, device), out=out)
    rows = np.arange(45)[:, None] >= np.full(zeros.scales.shape[-1], 40)
    stay = to_tensor(arrange(rows.astype(np.uint8), layout), device)
    assert torch.equal(out.scales, torch.where(stay.bool(), 0xA5, zeros.scales))


@every_op_that_counts
def test_opcheck(name: str, device: str) -> None:
    inputs = tensors(name, device)
    # The schema test compares before and after with an operator that 8-bit floats lack.
    checks = [c for c in OPCHECKS if not (c == "test_schema" and any(t.itemsize == 1 for t in inputs))]
    params = {**asdict(call_of(name)), "num_rows": count(5, device)}
    torch.library.opcheck(getattr(torch.ops.m3ops, name).default, inputs, params, test_utils=checks)


@every_op_that_counts
def test_compile_and_a_count_that_changes(name: str, device: str) -> None:
    torch._dynamo.reset()  # else the ops, one after another through one function, reach its limit of recompilations
    op, inputs = function(name), tensors(name, device)
    compiled = torch.compile(op, fullgraph=True, backend="aot_eager")
    for number in (3, 20):
        wanted = arrays(op(*inputs, num_rows=count(number, device)))
        assert_same_bytes(arrays(compiled(*inputs, num_rows=count(number, device))), wanted)


@every_op_that_counts_buffers
def test_compile_and_counts_of_experts_that_change(name: str, device: str) -> None:
    torch._dynamo.reset()  # else the ops, one after another through one function, reach its limit of recompilations
    op, inputs = function(name), tensors(name, device)
    compiled = torch.compile(op, fullgraph=True, backend="aot_eager")
    for counts in map(partial(to_tensor, device=device), (EXPERTS, EXPERTS[::-1].copy())):
        wanted = arrays(op(*inputs, num_rows=counts))
        assert_same_bytes(arrays(compiled(*inputs, num_rows=counts)), wanted)


@pytest.mark.gpu
@pytest.mark.skipif(no_gpu() is not None, reason=str(no_gpu()))
@every_op_that_counts
def test_a_graph_replays_with_another_count(name: str) -> None:
    op, inputs, number = function(name), tensors(name, "cuda"), count(5, "cuda")
    op(*inputs, num_rows=number)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        results = op(*inputs, num_rows=number)
    for changed in (5, 0, 24, 17, -3, 1000):
        number.fill_(changed)
        graph.replay()
        torch.cuda.synchronize()
        assert_same_bytes(arrays(results), arrays(op(*inputs, num_rows=count(changed, "cuda"))))
        cpu = op(*(tensor.cpu() for tensor in inputs), num_rows=count(changed))
        assert_same_bytes(arrays(results), arrays(cpu))


@pytest.mark.gpu
@pytest.mark.skipif(no_gpu() is not None, reason=str(no_gpu()))
@pytest.mark.parametrize("number", [8, 4096, 1])
@pytest.mark.parametrize("name", ["swiglu_oai_quantize", "gemma_fused_add_rmsnorm_quantize"])
def test_a_large_buffer(name: str, number: int) -> None:
    rows = [normal((4096, 6144), "bfloat16", 3.0), normal((4096, 6144), "bfloat16"), normal((6144,), "bfloat16")]
    inputs = [to_tensor(array, "cuda") for array in rows[: 1 + 2 * ("add" in name)]]
    first = [tensor[:number] if tensor.ndim == 2 else tensor for tensor in inputs]
    wanted = flat(getattr(m3ops_torch, name)(*first))
    for got, want in zip(
        flat(getattr(m3ops_torch, name)(*inputs, num_rows=count(number, "cuda"))), wanted, strict=True
    ):
        assert torch.equal(got[:number].view(torch.uint8), want.view(torch.uint8))
        assert not got[number:].view(torch.uint8).any()


@every_op_of_rows
def test_a_limited_number_of_programs(name: str) -> None:
    """However large the buffer: programs that find nothing to do cost time too."""
    op = OPS[name].of()
    for num_rows in (1, 100, 4096, 2**20):
        specs = bind(op, [_operand(op, operand, num_rows) for operand in op.inputs], ArraySpec((1,), "int32"))
        plan = op.plan({**specs, **op.check(specs)}, H100)
        assert {one.grid for one in plan.launches} == {(PROGRAMS * H100.multiprocessors,)}


@pytest.mark.parametrize("experts", [2, 128, MOST_BUFFERS])
@every_op_that_counts_buffers
def test_a_limited_number_of_programs_for_experts(name: str, experts: int) -> None:
    op = OPS[name].of()
    rows = [_operand(op, operand, 96) for operand in op.inputs]
    buffers = [
        ArraySpec((experts, *spec.shape), spec.dtype) if spec is not None and 96 in spec.shape[:1] else spec
        for spec in rows
    ]
    specs = bind(op, buffers, ArraySpec((experts,), "int32"))
    for one in op.plan({**specs, **op.check(specs)}, H100).launches:
        assert one.grid == (PROGRAMS_OF_BUFFERS * H100.multiprocessors,)
        assert 96 % one.constants["TILE"].rows == 0


@pytest.mark.parametrize("programs", [1, 2])
@every_op_that_counts
def test_few_programs_go_through_all_tiles(name: str, programs: int) -> None:
    _with_few_programs(name, programs, np.array([23], np.int32))


@pytest.mark.parametrize("programs", [1, 3, 4, 9])
@every_op_that_counts_buffers
def test_few_programs_go_through_the_tiles_of_all_experts(name: str, programs: int) -> None:
    """Fewer than there are experts, as many, and a number of them that they do not divide."""
    _with_few_programs(name, programs, EXPERTS)


def _with_few_programs(name: str, programs: int, num_rows: np.ndarray) -> None:
    op = call_of(name)
    inputs = {**operands(op, arguments(name)), "num_rows": num_rows}
    plan = planned(op, inputs)
    few = [
        replace(
            one,
            grid=(programs,),
            constants={**one.constants, "COUNT": replace(one.constants["COUNT"], programs=programs)},
        )
        if one.constants.get("COUNT")
        else one
        for one in plan.launches
    ]
    results = interpreted(op, inputs, replace(plan, launches=tuple(few)))
    assert_same_bytes(results, [*op.reference(inputs).values()])


def _operand(op: Op, name: str, num_rows: int) -> ArraySpec | None:
    if name in ("up", "group_sizes", "q_scale"):
        return None
    special = {
        "gate_up": ((num_rows, 6144), "bfloat16"),
        "weight": ((3072,), "bfloat16"),
        "qkv": ((num_rows, (77 if "weight_index_q" in op.inputs else 72) * 128), "bfloat16"),
        **dict.fromkeys(("weight_q", "weight_k", "weight_index_q", "weight_index_k"), ((128,), "bfloat16")),
        "cos_sin": ((4096, 64), "float32"),
        "positions": ((num_rows,), "int32"),
        **dict.fromkeys(("values", "x_values"), ((num_rows, 3072), "float8_e4m3fn")),
        **dict.fromkeys(("scales", "x_scales"), ((num_rows, 96), "uint8")),
        "w_values": ((6144, 3072), "float8_e4m3fn"),
        "w_scales": ((6144, 96), "uint8"),
        "w": ((128, 3072), "float32"),
        "logits": ((num_rows, 128), "float32"),
        "bias": ((128,), "float32"),
        "y": ((4 * num_rows, 3072), "bfloat16"),
        "slots": ((num_rows, 4), "int32"),
        "weights": ((num_rows, 4), "float32"),
    }
    return ArraySpec(*special.get(name, ((num_rows, 3072), "bfloat16")))


# --- JAX -------------------------------------------------------------------------------------------------------------


@every_op_of_rows
def test_vmap_counts_for_each_example(name: str) -> None:
    op, given = jax_function(name), arguments(name)
    axes = tuple(0 if array.ndim == 3 else None for array in given)
    counts = jnp.array([[0], [6], [2], [5]], jnp.int32)
    batched = jax.vmap(lambda number, *a: op(*a, num_rows=number), (0, *axes))(counts, *given)
    each = [op(*(a[i] if a.ndim == 3 else a for a in given), num_rows=counts[i]) for i in range(len(counts))]
    wanted = jax.tree.map(lambda *parts: np.stack([np.asarray(part) for part in parts]), *each)
    assert_same_bytes([*map(np.asarray, jax.tree.leaves(batched))], jax.tree.leaves(wanted))


def test_vmap_of_torch_counts_for_each_example() -> None:
    x, counts = to_tensor(normal((3, 5, 64), "bfloat16")), torch.tensor([[2], [0], [5]], dtype=torch.int32)
    with Calls() as calls:
        values, scales = torch.func.vmap(lambda a, n: tuple(m3ops_torch.mxfp8_quantize(a, num_rows=n)))(x, counts)
    assert calls.names == ["mxfp8_quantize"]
    for i in range(3):
        wanted = m3ops_torch.mxfp8_quantize(x[i], num_rows=counts[i])
        assert_same_bytes(arrays((values[i], scales[i])), arrays(wanted))


@pytest.mark.parametrize("times", [1, MOST_BUFFERS // 4 + 1], ids=["one call", "one by one"])
@pytest.mark.parametrize("name", [n for n in OPS_OF_ROWS if OPS[n].optional and OPS[n].counts_buffers])
def test_vmap_counts_where_an_optional_input_is_missing(name: str, times: int) -> None:
    """The number of rows keeps its place."""
    given = {n: a for n, a in operands(OPS[name], arguments(name)).items() if n not in OPS[name].optional}
    if "qkv" in given:
        given["qkv"] = given["qkv"][..., : 12 * 64]
    counts, in_torch, in_jax = np.array([[2], [0], [5], [1]], np.int32), function(name), jax_function(name)
    every = [np.tile(a, (times, *(1,) * (a.ndim - 1))) if a.ndim == 3 else a for a in given.values()]
    axes = tuple(0 if array.ndim == 3 else None for array in every)
    own = np.tile(counts, (times, 1))
    of_jax = jax.vmap(lambda n, *a: in_jax(*a, num_rows=n), (0, *axes))(own, *every)
    vmapped = torch.func.vmap(lambda n, *a: in_torch(*a, num_rows=n), (0, *axes))
    of_torch = vmapped(to_tensor(own), *map(to_tensor, every))
    for i in (0, 1, 2, 3, 4 * times - 1):
        inputs = [to_tensor(a[i] if a.ndim == 3 else a) for a in every]
        want = arrays(in_torch(*inputs, num_rows=to_tensor(own[i])))
        assert_same_bytes([np.asarray(result[i]) for result in jax.tree.leaves(of_jax)], want)
        assert_same_bytes(arrays(tuple(result[i] for result in flat(of_torch))), want)


@pytest.mark.parametrize("shared", [False, True], ids=["counts of each", "counts of all"])
def test_vmap_of_experts(shared: bool) -> None:
    """One launch too: the examples' experts together are the experts of one call."""
    x, counts = normal((3, 4, 6, 64), "bfloat16"), np.arange(12, dtype=np.int32).reshape(3, 4) - 1
    own = counts[0] if shared else counts
    op, axes = partial(_call, m3ops_jax.mxfp8_quantize), (0, None if shared else 0)
    assert str(jax.make_jaxpr(jax.vmap(op, axes))(x, own)).count("mxfp8_quantize[") == 1
    in_jax = jax.vmap(op, axes)(x, own)
    with Calls() as calls:
        in_torch = torch.func.vmap(partial(_call, m3ops_torch.mxfp8_quantize), axes)(to_tensor(x), to_tensor(own))
    assert calls.names == ["mxfp8_quantize"]
    wanted = [reference("mxfp8_quantize", x[i], None, own if shared else own[i]) for i in range(3)]
    for i in range(3):
        assert_same_bytes([np.asarray(part[i]) for part in in_jax], wanted[i])
        assert_same_bytes(arrays(tuple(part[i] for part in in_torch)), wanted[i])


def test_vmap_over_more_examples_than_programs_hold_counts() -> None:
    x, counts = normal((MOST_BUFFERS + 1, 2, 32), "bfloat16"), np.arange(MOST_BUFFERS + 1, dtype=np.int32) % 4 - 1
    got = jax.vmap(partial(_call, m3ops_jax.mxfp8_quantize))(x, counts)
    some = torch.func.vmap(partial(_call, m3ops_torch.mxfp8_quantize))(to_tensor(x), to_tensor(counts))
    wanted = [reference("mxfp8_quantize", x[i], None, counts[i : i + 1]) for i in (0, 1, 2, MOST_BUFFERS)]
    for i, want in zip((0, 1, 2, MOST_BUFFERS), wanted, strict=True):
        assert_same_bytes([np.asarray(part[i]) for part in got], want)
        assert_same_bytes(arrays(tuple(part[i] for part in some)), want)


def _call(op: Any, x: Any, num_rows: Any) -> tuple[Any, Any]:
    return tuple(op(x, num_rows=num_rows))


def test_counts_of_experts_are_contiguous() -> None:
    x, counts = to_tensor(normal((3, 5, 64), "bfloat16")), torch.zeros(6, dtype=torch.int32)[::2]
    with pytest.raises(ValueError, match=r"num_rows must be contiguous, with strides \(1,\), got \(2,\)"):
        m3ops_torch.mxfp8_quantize(x, num_rows=counts)


@pytest.mark.parametrize("layout", SCALE_LAYOUTS)
@pytest.mark.parametrize("kind", [AxisType.Auto, AxisType.Explicit])
def test_experts_are_divided(kind: AxisType, layout: str) -> None:
    """And their counts with them, without communication."""
    devices = len(DEVICES)
    x, counts = normal((2 * devices, 3, 96), "bfloat16"), np.arange(2 * devices, dtype=np.int32) % 5 - 1
    mesh = jax.make_mesh((devices,), ("a",), axis_types=(kind,), devices=DEVICES)
    given = [jax.device_put(array, NamedSharding(mesh, P("a"))) for array in (x, counts)]
    compiled = (
        jax.jit(lambda x, n: m3ops_jax.mxfp8_quantize(x, num_rows=n, scale_layout=layout)).lower(*given).compile()
    )
    assert not re.search(r"all-gather|all-reduce|all-to-all|collective", compiled.as_text())
    results = compiled(*given)
    for result in results:
        assert result.sharding.is_equivalent_to(NamedSharding(mesh, P("a")), 3)
    assert_same_bytes([*map(np.asarray, results)], reference("mxfp8_quantize", x, None, counts, scale_layout=layout))


def test_rows_of_experts_are_whole() -> None:
    mesh = jax.make_mesh((len(DEVICES),), ("a",), axis_types=(AxisType.Explicit,), devices=DEVICES)
    x = jax.device_put(normal((2, len(DEVICES), 96), "bfloat16"), NamedSharding(mesh, P(None, "a")))
    with pytest.raises(ValueError, match=r"x must be sharded as .*not along its last 2 axes"):
        jax.jit(lambda x: m3ops_jax.mxfp8_quantize(x, num_rows=jnp.array([1, 2], jnp.int32)))(x)


@pytest.mark.parametrize("groups", [1, 2])
def test_groups(groups: int) -> None:
    x, number = normal((5, 256), "bfloat16"), np.array([3], np.int32)
    wanted = reference("swiglu_oai_quantize", x, None, None, number, groups=groups)
    got = m3ops_jax.swiglu_oai_quantize(x, groups=groups, num_rows=number)
    assert_same_bytes([*map(np.asarray, got)], wanted)
    got = m3ops_torch.swiglu_oai_quantize(to_tensor(x), groups=groups, num_rows=to_tensor(number))
    assert_same_bytes(arrays(got), wanted)


def test_counted_rows_are_whole() -> None:
    """A device knows its own rows, not how many are before them: gathered or refused."""
    x, number = normal((8 * len(DEVICES), 96), "bfloat16"), np.array([11], np.int32)

    def sharded(kind: AxisType) -> Any:
        mesh = jax.make_mesh((len(DEVICES),), ("a",), axis_types=(kind,), devices=DEVICES)
        return jax.device_put(x, NamedSharding(mesh, P("a")))

    call = jax.jit(lambda x: m3ops_jax.mxfp8_quantize(x, num_rows=jnp.asarray(number)))
    wanted = reference("mxfp8_quantize", x, None, number)
    assert_same_bytes([*map(np.asarray, call(sharded(AxisType.Auto)))], wanted)
    with pytest.raises(ValueError, match=r"x must be sharded as .*not along its last 2 axes"):
        call(sharded(AxisType.Explicit))
