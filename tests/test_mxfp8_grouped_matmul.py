"""Grouped products: each row as the plain product gives it, in whatever company and whatever way it is asked for."""

from __future__ import annotations

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from backends import H100, no_gpu, planned
from compare import assert_same_bytes
from inputs import arguments
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P
from specification import reference
from test_jax_sharding import DEVICES
from test_torch import arrays, function, tensors
from torch._dynamo.testing import CompileCounter

import m3ops_torch
from m3ops.array import ArraySpec
from m3ops.op import bind
from m3ops.ops import OPS
from m3ops.ops.mxfp8_matmul.cases import matrix
from m3ops.ops.mxfp8_matmul.cases_grouped import grouped
from m3ops.planning.launch import PROGRAMS
from m3ops.testing import formulas
from m3ops.tools.run import jax_function, to_numpy, to_tensor

NAME = "mxfp8_grouped_matmul"


def test_each_row_is_that_of_the_plain_product() -> None:
    x, x_scales, w, w_scales, sizes = grouped((30, 2080), 33, (7, 0, 12, 5))
    (got,) = reference(NAME, x, x_scales, w, w_scales, sizes)
    starts = np.cumsum(sizes) - sizes
    for group, (start, size) in enumerate(zip(starts, sizes, strict=True)):
        rows = slice(start, start + size)
        (want,) = reference("mxfp8_matmul", x[rows], x_scales[rows], w[group], w_scales[group])
        assert_same_bytes([got[rows]], [want])
    assert not got[24:].view(np.uint16).any()


def test_a_row_does_not_depend_on_its_company() -> None:
    """Gathered alone, in another group size or behind others, each row has the bytes that it has among all."""
    x, x_scales, w, w_scales, sizes = grouped((30, 1056), 17, (7, 0, 12, 11))
    (whole,) = reference(NAME, x, x_scales, w, w_scales, sizes)
    for row in (0, 6, 7, 18, 29):
        group = int(np.searchsorted(np.cumsum(sizes), row, side="right"))
        alone = (np.arange(4) == group).astype(np.int32)
        (got,) = reference(NAME, x, x_scales, w, w_scales, alone, np.array([row], np.int32))
        assert_same_bytes([got[0]], [whole[row]])


@pytest.mark.parametrize("framework", ["torch", "jax"])
def test_the_formula_to_compare_with_is_the_same_product(framework: str) -> None:
    """The frameworks' own products of groups, of numbers dequantized to bfloat16, which is exact for these scales."""
    operands = grouped((24, 512), 48, (7, 0, 17), scales=range(120, 130))
    if framework == "torch":
        got = to_numpy(formulas.TORCH[NAME](*map(to_tensor, operands)))
    else:
        got = np.asarray(formulas.JAX[NAME](*operands))
    call = OPS[NAME].of(arithmetic="fast")
    (want,) = reference(NAME, *operands)
    bound = call.error_bound(*operands)  # type: ignore[attr-defined]
    assert np.all(np.abs(got.astype(np.float64) - want.astype(np.float64)) <= bound)


def test_the_bound_of_fast_arithmetic_is_that_of_each_group() -> None:
    """Zero in rows without a group, and for the others what the plain product states."""
    x, x_scales, w, w_scales, sizes = grouped((12, 96), 8, (3, 0, 5))
    rows = np.arange(12, dtype=np.int32)[::-1].copy()
    bound = OPS[NAME].of().error_bound(x, x_scales, w, w_scales, sizes, rows)  # type: ignore[attr-defined]
    plain = OPS["mxfp8_matmul"].of()
    for group, own in ((0, slice(0, 3)), (2, slice(3, 8))):
        want = plain.error_bound(x[rows[own]], x_scales[rows[own]], w[group], w_scales[group])  # type: ignore[attr-defined]
        np.testing.assert_array_equal(bound[own], want)
    assert not bound[8:].any()


def test_a_limited_number_of_programs() -> None:
    """However large the buffer of rows that may be used."""
    for num_rows in (1, 4096, 2**20):
        x = [ArraySpec((num_rows, 6144), "float8_e4m3fn"), ArraySpec((num_rows, 192), "uint8")]
        w = [ArraySpec((8, 6144, 6144), "float8_e4m3fn"), ArraySpec((8, 6144, 192), "uint8")]
        op = OPS[NAME].of()
        specs = bind(op, [*x, *w, ArraySpec((8,), "int32"), None], ArraySpec((1,), "int32"))
        launches = op.plan({**specs, **op.check(specs)}, H100).launches
        assert {one.grid for one in launches} == {(PROGRAMS * H100.multiprocessors,)}


@pytest.mark.parametrize("name", [NAME, "mxfp8_matmul"])
def test_sums_of_chunks_of_a_large_buffer_take_little_memory(name: str) -> None:
    for num_rows in (64, 4096, 65536):
        x = [ArraySpec((num_rows, 6144), "float8_e4m3fn"), ArraySpec((num_rows, 192), "uint8")]
        groups = (8,) if name == NAME else ()
        w = [ArraySpec((*groups, 6144, 6144), "float8_e4m3fn"), ArraySpec((*groups, 6144, 192), "uint8")]
        op = OPS[name].of()
        specs = bind(op, [*x, *w, *([ArraySpec(groups, "int32"), None] if groups else [])], ArraySpec((1,), "int32"))
        scratch = op.plan({**specs, **op.check(specs)}, H100).scratch
        assert ("partials" in scratch) == (num_rows == 64)
        assert sum(spec.nbytes for spec in scratch.values()) < 2**28 + 5 * num_rows * 6144


def test_the_weights_of_a_layer_need_64_bit_offsets() -> None:
    """M3's experts have 4.8e9 values; the strides of the last group reach past 2**32."""
    w = ArraySpec((128, 6144, 6144), "float8_e4m3fn")
    assert w.size > 2**32
    x = [ArraySpec((4, 6144), "float8_e4m3fn"), ArraySpec((4, 192), "uint8")]
    op = OPS[NAME].of()
    specs = bind(op, [*x, w, ArraySpec((128, 6144, 192), "uint8"), ArraySpec((128,), "int32"), None])
    product = op.plan({**specs, **op.check(specs)}, H100).launches[1]
    assert (product.constants["W"].groups, product.constants["W"].values.strides) == (128, (6144, 1))


class TestJax:
    """Under transformations of JAX."""

    def test_vmap_over_what_examples_differ_in(self) -> None:
        x, x_scales, w, w_scales, sizes, rows = arguments(NAME)
        every = np.array([sizes, sizes[::-1], 0 * sizes], np.int32)
        op = jax_function(NAME)
        got = jax.jit(jax.vmap(op, (None, None, None, None, 0, None)))(x, x_scales, w, w_scales, every, rows)
        want = [np.asarray(op(x, x_scales, w, w_scales, own, rows)) for own in every]
        assert_same_bytes([np.asarray(got)], [np.stack(want)])

    @pytest.mark.parametrize("kind", [AxisType.Auto, AxisType.Explicit])
    def test_columns_are_divided_without_communication(self, kind: AxisType) -> None:
        given = arguments(NAME)
        mesh = jax.make_mesh((len(DEVICES),), ("a",), axis_types=(kind,), devices=DEVICES)
        specs = [P(None, "a") if array.ndim == 3 else P() for array in given]
        placed = [jax.device_put(a, NamedSharding(mesh, spec)) for a, spec in zip(given, specs, strict=True)]
        with jax.set_mesh(mesh):
            compiled = jax.jit(jax_function(NAME)).lower(*placed).compile()
            (got,) = jax.tree.leaves(compiled(*placed))
        assert got.sharding.spec == P(None, "a")
        assert "all-" not in compiled.as_text()
        assert_same_bytes([np.asarray(got)], reference(NAME, *given))

    def test_experts_are_divided_in_a_shard_map(self) -> None:
        """Each device multiplies the rows of its own experts; of rows without one of its groups it knows zeros."""
        x, x_scales, w, w_scales, sizes = grouped((24, 64), 8, [3] * len(DEVICES))
        mesh = jax.make_mesh((len(DEVICES),), ("e",), axis_types=(AxisType.Auto,), devices=DEVICES)
        op = jax_function(NAME)
        local = jax.shard_map(op, mesh=mesh, in_specs=(P("e"),) * 5, out_specs=P("e"))
        got = jax.jit(local)(x, x_scales, w, w_scales, sizes)
        assert_same_bytes([np.asarray(got)], reference(NAME, x, x_scales, w, w_scales, sizes))

    def test_without_a_derivative(self) -> None:
        x, x_scales, w, w_scales, sizes, rows = arguments(NAME)

        def loss(scale: jax.Array) -> jax.Array:
            values = (x.astype(jnp.float32) * scale).astype(x.dtype)
            return jax_function(NAME)(values, x_scales, w, w_scales, sizes, rows).astype(jnp.float32).sum()

        with pytest.raises(TypeError, match=f"{NAME} .*jax.lax.stop_gradient"):
            jax.grad(loss)(jnp.float32(1))

    def test_the_count_is_read_on_the_device(self) -> None:
        """One program for all sizes of the groups."""
        x, x_scales, w, w_scales, sizes, rows = arguments(NAME)
        op = jax.jit(chex.assert_max_traces(lambda *given: jax_function(NAME)(*given), n=1))
        for own in (sizes, sizes[::-1].copy(), np.zeros(3, np.int32)):
            got = op(x, x_scales, w, w_scales, own, rows)
            assert_same_bytes([np.asarray(got)], reference(NAME, x, x_scales, w, w_scales, own, rows))


class TestTorch:
    """Under those of PyTorch."""

    def test_vmap_over_what_examples_differ_in(self, device: str) -> None:
        *others, sizes, rows = tensors(NAME, device)
        every = torch.stack([sizes, sizes.flip(0), 0 * sizes])
        op = function(NAME)
        got = torch.func.vmap(op, (None, None, None, None, 0, None))(*others, every, rows)
        assert_same_bytes(arrays(got), arrays(torch.stack([op(*others, own, rows) for own in every])))

    def test_opcheck(self, device: str) -> None:
        operator, given = torch.ops.m3ops.mxfp8_grouped_matmul.default, tensors(NAME, device)
        params = {"arithmetic": "exact", "out_dtype": "bfloat16", "x_layout": "row_major", "w_layout": "row_major"}
        checks = ("test_faketensor", "test_aot_dispatch_dynamic")  # the schema's needs an operator that E4M3 lacks
        for operands in (given, given[:-1], [t[:0] if t.ndim < 3 and t.itemsize == 1 else t for t in given]):
            torch.library.opcheck(operator, tuple(operands), params, test_utils=checks)

    def test_later_calls_with_and_without_rows(self, device: str) -> None:
        """``rows`` and ``num_rows`` may look alike, and a later call must not be taken for one with the other."""
        *given, rows = tensors(NAME, device)
        one = rows[:1].contiguous()
        op = m3ops_torch.mxfp8_grouped_matmul
        x, w, sizes = m3ops_torch.MXFP8(*given[:2]), m3ops_torch.MXFP8(*given[2:4]), given[4]
        for _ in range(3):
            assert op(x, w, sizes, rows=one).shape == (1, 8)
            assert op(x, w, sizes, num_rows=one).shape == (24, 8)
            assert op(x, w, sizes).shape == (24, 8)

    def test_no_recompilation_for_other_numbers_of_rows(self, device: str) -> None:
        x, x_scales, w, w_scales, sizes, _ = tensors(NAME, device)
        counter = CompileCounter()
        compiled = torch.compile(function(NAME), fullgraph=True, dynamic=True, backend=counter)
        for count in (24, 17, 5):
            got = compiled(*(t[:count].clone() for t in (x, x_scales)), w, w_scales, sizes, None)
            want = reference(NAME, *(to_numpy(t[:count]) for t in (x, x_scales)), *map(to_numpy, (w, w_scales, sizes)))
            assert_same_bytes(arrays(got), want)
        assert counter.frame_count == 1

    @pytest.mark.gpu
    @pytest.mark.skipif(no_gpu() is not None, reason=str(no_gpu()))
    @pytest.mark.parametrize("arithmetic", ["exact", "fast"])
    def test_a_graph_replays_with_other_groups(self, arithmetic: str) -> None:
        """The sizes are read on the device: no launch depends on them."""
        *given, sizes, rows = tensors(NAME, "cuda")
        op = function(NAME)
        op(*given, sizes, rows, arithmetic=arithmetic)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            result = op(*given, sizes, rows, arithmetic=arithmetic)
        for own in ([10, 0, 11], [0, 0, 0], [1, 1, 1], [0, 24, 0], [30, 2, 1], [-4, 3, 9]):
            sizes.copy_(torch.tensor(own, dtype=torch.int32))
            graph.replay()
            torch.cuda.synchronize()
            want = op(*given, torch.tensor(own, dtype=torch.int32, device="cuda"), rows, arithmetic=arithmetic)
            assert_same_bytes(arrays(result), arrays(want))

    @pytest.mark.gpu
    @pytest.mark.skipif(no_gpu() is not None, reason=str(no_gpu()))
    @pytest.mark.parametrize("rows_each", [1, 9, 40, 130])
    def test_fast_is_the_plain_fast_product(self, rows_each: int) -> None:
        """The same bytes whatever the tile: batch-invariant, in groups too."""
        x, w = matrix((4 * rows_each, 1024), "x"), matrix((4, 96, 1024), "w")
        sizes = torch.full((4,), rows_each, dtype=torch.int32, device="cuda")
        given = [to_tensor(array, "cuda") for array in (*x, *w)]
        got = function(NAME)(*given, sizes, None, arithmetic="fast")
        for group in range(4):
            rows = slice(group * rows_each, (group + 1) * rows_each)
            own = [given[0][rows], given[1][rows], given[2][group], given[3][group]]
            want = function("mxfp8_matmul")(*own, arithmetic="fast")
            assert torch.equal(got[rows].view(torch.int16), want.view(torch.int16))


def test_rows_are_bound_by_name_or_not_at_all() -> None:
    op, given = OPS[NAME].of(), arguments(NAME)
    assert planned(op, bind(op, given)).launches[1].arguments["rows_ptr"] == "rows"
    assert planned(op, bind(op, (*given[:-1], None))).launches[1].arguments["rows_ptr"] is None
