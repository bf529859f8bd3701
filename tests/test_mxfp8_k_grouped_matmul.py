"""Products of groups along K: each as the plain product gives it of its blocks alone, whatever lies beside them."""

from __future__ import annotations

from itertools import pairwise

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from backends import H100, interpreted, no_gpu, planned
from compare import assert_same_bytes
from inputs import arguments
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P
from specification import reference
from test_jax_sharding import DEVICES
from test_torch import arrays, function, tensors

from m3ops.array import ArraySpec
from m3ops.op import bind
from m3ops.ops import OPS
from m3ops.ops.mxfp8_matmul.cases import CHUNK, finite, matrix
from m3ops.ops.mxfp8_matmul.cases_k_grouped import k_grouped
from m3ops.testing import formulas
from m3ops.tools.run import jax_function, to_numpy, to_tensor

NAME = "mxfp8_k_grouped_matmul"
SIZES = (70, 0, 1, CHUNK + 40, -3, 2**31 - 1)
BLOCKS = ((0, 3), (3, 3), (3, 4), (4, 38), (38, 38), (38, 44))
"""Of 44 blocks those of groups of these sizes."""


def test_each_group_is_the_plain_product_of_its_blocks() -> None:
    x, x_scales, w, w_scales, sizes = k_grouped(9, 17, SIZES, 44)
    (got,) = reference(NAME, x, x_scales, w, w_scales, sizes)
    for product, (first, end) in zip(got, BLOCKS, strict=True):
        blocks, elements = slice(first, end), slice(32 * first, 32 * end)
        own = x[:, elements], x_scales[:, blocks], w[:, elements], w_scales[:, blocks]
        assert_same_bytes([product], reference("mxfp8_matmul", *own))


@pytest.mark.parametrize("arithmetic", ["exact", "fast"])
def test_a_group_does_not_depend_on_its_neighbours(arithmetic: str) -> None:
    """The same blocks behind other groups, and beside NaN, in the kernel too."""
    op = OPS[NAME].of(arithmetic=arithmetic)
    x, x_scales, w, w_scales, _ = k_grouped(9, 17, (), 10, small=arithmetic == "fast")
    results = []
    for before in (0, 1, 35):
        operands = []
        for values, scales in ((x, x_scales), (w, w_scales)):
            others = finite((len(values), 32 * before), "others")
            beside = np.full((len(values), before), 255, np.uint8)
            operands += [np.hstack([others, values, others]), np.hstack([beside, scales, beside])]
        inputs = bind(op, (*operands, np.array([32 * before, 320, 32 * before], np.int32)))
        results.append(interpreted(op, inputs, planned(op, inputs))[0][1])
    assert_same_bytes(results[1:], [results[0]] * 2)


@pytest.mark.parametrize("framework", ["torch", "jax"])
def test_the_formula_to_compare_with_is_the_same_product(framework: str) -> None:
    """The frameworks' own products of groups, of numbers dequantized to bfloat16, which is exact for these scales."""
    operands = k_grouped(48, 64, (64, 0, 96), 6, scales=range(120, 130))
    if framework == "torch":
        got = to_numpy(formulas.TORCH[NAME](*map(to_tensor, operands)))
    else:
        got = np.asarray(formulas.JAX[NAME](*operands))
    bound = OPS[NAME].of(arithmetic="fast").error_bound(*operands)  # type: ignore[attr-defined]
    (want,) = reference(NAME, *operands)
    assert np.all(np.abs(got.astype(np.float64) - want.astype(np.float64)) <= bound)


def test_the_bound_of_fast_arithmetic_is_that_of_each_group() -> None:
    x, x_scales, w, w_scales, sizes = k_grouped(9, 17, SIZES, 44)
    bound = OPS[NAME].of().error_bound(x, x_scales, w, w_scales, sizes)  # type: ignore[attr-defined]
    plain = OPS["mxfp8_matmul"].of()
    for own, (first, end) in zip(bound, BLOCKS, strict=True):
        if first == end:
            continue
        blocks, elements = slice(first, end), slice(32 * first, 32 * end)
        given = x[:, elements], x_scales[:, blocks], w[:, elements], w_scales[:, blocks]
        np.testing.assert_array_equal(own, plain.error_bound(*given))  # type: ignore[attr-defined]


def _specs(groups: int, size: int) -> dict[str, ArraySpec]:
    matrices = [ArraySpec((6144, size), "float8_e4m3fn"), ArraySpec((6144, size // 32), "uint8")] * 2
    op = OPS[NAME].of()
    specs = bind(op, [*matrices, ArraySpec((groups,), "int32")])
    return {**specs, **op.check(specs)}


def test_the_gradient_of_a_layers_weights_is_one_launch() -> None:
    """M3's experts have 4.8e9 elements: the numbers of their rows are 64-bit ones before they become offsets."""
    specs = _specs(128, 32768 + 128 * 32)
    assert specs["product"].size > 2**32
    digits, product = OPS[NAME].of().plan(specs, H100).launches
    assert product.grid == (96 * 96, 128)
    assert (digits.writes, product.writes) == (("digits", "factors"), ("product",))


def test_more_groups_than_a_grid_has() -> None:
    with pytest.raises(ValueError, match=r"65536 groups are more than a kernel numbers \(65535\)"):
        OPS[NAME].of().plan(_specs(65536, 32), H100)


class TestJax:
    """Under transformations of JAX."""

    def test_vmap_over_what_examples_differ_in(self) -> None:
        *operands, sizes = arguments(NAME)
        every = np.array([sizes, sizes[::-1], 0 * sizes], np.int32)
        op = jax_function(NAME)
        got = jax.jit(jax.vmap(op, (None, None, None, None, 0)))(*operands, every)
        assert_same_bytes([np.asarray(got)], [np.stack([np.asarray(op(*operands, own)) for own in every])])

    @pytest.mark.parametrize("kind", [AxisType.Auto, AxisType.Explicit])
    @pytest.mark.parametrize("divided", ["x", "w"])
    def test_rows_are_divided_without_communication(self, divided: str, kind: AxisType) -> None:
        *_, sizes = arguments(NAME)
        given = (*matrix((16, 128), "x"), *matrix((24, 128), "w"), sizes)
        mesh = jax.make_mesh((len(DEVICES),), ("a",), axis_types=(kind,), devices=DEVICES)
        specs = [P("a") if name.startswith(divided) else P() for name in OPS[NAME].inputs]
        placed = [jax.device_put(a, NamedSharding(mesh, spec)) for a, spec in zip(given, specs, strict=True)]
        with jax.set_mesh(mesh):
            compiled = jax.jit(jax_function(NAME)).lower(*placed).compile()
            (got,) = jax.tree.leaves(compiled(*placed))
        assert got.sharding.is_equivalent_to(
            NamedSharding(mesh, P(None, *(["a"] if divided == "x" else [None, "a"]))), 3
        )
        assert "all-" not in compiled.as_text()
        assert_same_bytes([np.asarray(got)], reference(NAME, *given))

    def test_experts_are_divided_in_a_shard_map(self) -> None:
        """Each device has the blocks of its own experts."""
        x, x_scales, w, w_scales, sizes = k_grouped(9, 17, [33] * len(DEVICES), 2 * len(DEVICES))
        mesh = jax.make_mesh((len(DEVICES),), ("e",), axis_types=(AxisType.Auto,), devices=DEVICES)
        along_k = (P(None, "e"),) * 4
        local = jax.shard_map(jax_function(NAME), mesh=mesh, in_specs=(*along_k, P("e")), out_specs=P("e"))
        got = jax.jit(local)(x, x_scales, w, w_scales, sizes)
        assert_same_bytes([np.asarray(got)], reference(NAME, x, x_scales, w, w_scales, sizes))

    def test_without_a_derivative(self) -> None:
        x, *others = arguments(NAME)

        def loss(scale: jax.Array) -> jax.Array:
            return (
                jax_function(NAME)((x.astype(jnp.float32) * scale).astype(x.dtype), *others).astype(jnp.float32).sum()
            )

        with pytest.raises(TypeError, match=f"{NAME} .*jax.lax.stop_gradient"):
            jax.grad(loss)(jnp.float32(1))


class TestTorch:
    """Under those of PyTorch."""

    def test_vmap_over_what_examples_differ_in(self, device: str) -> None:
        *others, sizes = tensors(NAME, device)
        every = torch.stack([sizes, sizes.flip(0), 0 * sizes])
        op = function(NAME)
        got = torch.func.vmap(op, (None, None, None, None, 0))(*others, every)
        assert_same_bytes(arrays(got), arrays(torch.stack([op(*others, own) for own in every])))

    def test_opcheck(self, device: str) -> None:
        operator = torch.ops.m3ops.mxfp8_k_grouped_matmul.default
        params = {"arithmetic": "exact", "out_dtype": "bfloat16", "x_layout": "row_major", "w_layout": "row_major"}
        checks = ("test_faketensor", "test_aot_dispatch_dynamic")  # the schema's needs an operator that E4M3 lacks
        torch.library.opcheck(operator, tuple(tensors(NAME, device)), params, test_utils=checks)

    @pytest.mark.gpu
    @pytest.mark.skipif(no_gpu() is not None, reason=str(no_gpu()))
    @pytest.mark.parametrize("arithmetic", ["exact", "fast"])
    def test_a_graph_replays_with_other_groups(self, arithmetic: str) -> None:
        """The sizes are read on the device: no launch depends on them."""
        *given, sizes = tensors(NAME, "cuda")
        op = function(NAME)
        op(*given, sizes, arithmetic=arithmetic)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            result = op(*given, sizes, arithmetic=arithmetic)
        for own in ([33, 0, 32], [0, 0, 0], [1, 1, 1], [0, 128, 0], [300, 2, 1], [-4, 3, 90]):
            sizes.copy_(torch.tensor(own, dtype=torch.int32))
            graph.replay()
            torch.cuda.synchronize()
            want = op(*given, torch.tensor(own, dtype=torch.int32, device="cuda"), arithmetic=arithmetic)
            assert_same_bytes(arrays(result), arrays(want))

    @pytest.mark.gpu
    @pytest.mark.skipif(no_gpu() is not None, reason=str(no_gpu()))
    @pytest.mark.parametrize("rows", [16, 100, 300])
    def test_fast_is_the_plain_fast_product(self, rows: int) -> None:
        """The same bytes whatever the tile and the step along K."""
        given = [to_tensor(array, "cuda") for array in (*matrix((rows, 2048), "x"), *matrix((96, 2048), "w"))]
        ends = (0, 256, 288, 288, 2048)
        sizes = torch.tensor(np.diff(ends), dtype=torch.int32, device="cuda")
        got = function(NAME)(*given, sizes, arithmetic="fast")
        for group, (first, end) in enumerate(pairwise(ends)):
            own = [t[:, first // d : end // d] for t, d in zip(given, (1, 32, 1, 32), strict=True)]
            want = function("mxfp8_matmul")(*own, arithmetic="fast")
            assert torch.equal(got[group].view(torch.int16), want.view(torch.int16))

    @pytest.mark.gpu
    @pytest.mark.skipif(no_gpu() is not None, reason=str(no_gpu()))
    @pytest.mark.parametrize("arithmetic", ["exact", "fast"])
    def test_offsets_past_the_largest_int32(self, arithmetic: str) -> None:
        """Groups of the same blocks, whose products have 2**32 bytes and more together."""
        x, w = matrix((8192, 64), "x"), matrix((8192, 64), "w")
        given = [to_tensor(np.tile(array, 40), "cuda") for array in (*x, *w)]
        got = function(NAME)(*given, torch.full((40,), 64, dtype=torch.int32, device="cuda"), arithmetic=arithmetic)
        assert got.numel() > 2**31
        for group in (0, 31, 32, 39):
            assert torch.equal(got[group].view(torch.int16), got[1].view(torch.int16))
        (want,) = reference(NAME, x[0][:64], x[1][:64], *w, np.array([64], np.int32))
        if arithmetic == "exact":
            assert_same_bytes([to_numpy(got[39, :64])], [want[0]])
