"""MXFP8 along columns, along rows and columns, and in square blocks: what is particular to matrices."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from types import SimpleNamespace
from typing import Any

import jax
import numpy as np
import pytest
import torch
from backends import interpreted
from compare import assert_same_bytes
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P
from rocm import torch_device
from rocm.launch import Launch
from specification import reference
from test_jax_sharding import DEVICES, mesh_of, run
from test_torch import OPCHECKS, arrays, function
from test_torch_out import nested, poisoned, wide
from test_torch_vmap import Calls
from torch.func import vmap

import m3ops_jax
import m3ops_torch
from m3ops import layers
from m3ops.array import ArraySpec
from m3ops.numerics.scale_layouts import SCALE_LAYOUTS
from m3ops.ops import OPS
from m3ops.ops.mxfp8.cases_matrix import WAYS
from m3ops.target import Target
from m3ops.testing.arrays import normal
from m3ops.testing.layer import SPECIFICATION
from m3ops.tools.run import flat, jax_function, to_tensor
from m3ops_torch._operators import parameters
from m3ops_torch._sharding import REPLICATED, placements

every_way = pytest.mark.parametrize(("name", "given"), WAYS, ids=[f"{n}{'-square' * bool(g)}" for n, g in WAYS])


def x_of(device: str, *shape: int) -> torch.Tensor:
    return to_tensor(normal(shape or (64, 96), "bfloat16", 3.0), device)


# --- What they are by the row-wise op ---------------------------------------------------------------------------------


@pytest.mark.parametrize("layout", SCALE_LAYOUTS)
def test_the_bytes_are_those_of_the_transposed_matrix(layout: str) -> None:
    x = normal((2, 96, 160), "float32", 3.0)
    own, of_transposed = (reference("mxfp8_quantize", a, scale_layout=layout) for a in (x, x.swapaxes(1, 2).copy()))
    assert_same_bytes(reference("mxfp8_quantize_transposed", x, scale_layout=layout), of_transposed)
    assert_same_bytes(reference("mxfp8_quantize_both", x, scale_layout=layout), [*own, *of_transposed])


def test_square_blocks_are_the_same_both_ways() -> None:
    x = normal((64, 96), "float32", 3.0)
    values, scales, other_values, other_scales = reference("mxfp8_quantize_both", x, square_blocks=True)
    assert_same_bytes([other_values, other_scales[::32]], [values.T, scales[::32].T])
    assert_same_bytes([scales, other_scales], [np.repeat(s[::32], 32, axis=0) for s in (scales, other_scales)])
    assert_same_bytes(reference("mxfp8_quantize", x, square_blocks=True), [values, scales])
    blocks = np.abs(x).reshape(2, 32, 3, 32).max(axis=(1, 3))
    of_rows = reference("mxfp8_quantize", np.repeat(blocks, 32, axis=1))[1]
    assert_same_bytes([scales[::32]], [of_rows])


# --- Plans ------------------------------------------------------------------------------------------------------------


@every_way
def test_full_tiles_give_the_same_bytes(name: str, given: dict[str, Any]) -> None:
    """A device of one multiprocessor gets tiles as large as those of a large matrix."""
    op, inputs = OPS[name].of(**given), {"x": normal((2, 64, 256), "bfloat16", 3.0)}
    specs = {"x": ArraySpec((2, 64, 256), "bfloat16")}
    plan = op.plan({**specs, **op.check(specs)}, Target("nvidia", "sm_90", 1))
    assert plan.launches[0].constants["TILE"].cols == 128
    assert_same_bytes(interpreted(op, inputs, plan), [*op.reference(inputs).values()])


def test_the_number_of_rows_is_no_constant() -> None:
    """Else every batch size would compile a kernel of its own."""

    def constants(rows: int) -> Any:
        op, specs = OPS["mxfp8_quantize_both"].of(), {"x": ArraySpec((rows, 6144), "bfloat16")}
        return op.plan({**specs, **op.check(specs)}, Target.named("sm_90")).launches[0].constants

    assert constants(4096) == constants(8224)


# --- PyTorch ----------------------------------------------------------------------------------------------------------


@every_way
@pytest.mark.parametrize("shape", [(64, 96), (2, 32, 64), (0, 32, 64)], ids=str)
def test_opcheck(name: str, given: dict[str, Any], shape: tuple[int, ...], device: str) -> None:
    operator = getattr(torch.ops.m3ops, name).default
    x = torch.randn(shape, device=device).bfloat16()
    torch.library.opcheck(operator, (x,), parameters(OPS[name].of(**given)), test_utils=OPCHECKS)


@every_way
def test_vmap_is_one_call(name: str, given: dict[str, Any], device: str) -> None:
    op, x = partial(function(name), **given), x_of(device, 32, 3, 64)
    with Calls() as calls:
        got = vmap(op, 1)(x)
    assert calls.names == [name]
    assert_same_bytes(arrays(got), arrays(op(x.movedim(1, 0))))
    of_jax = jax.vmap(partial(jax_function(name), **given), 1)(normal((32, 3, 64), "bfloat16", 3.0))
    assert_same_bytes([*map(np.asarray, jax.tree.leaves(of_jax))], arrays(got))


@every_way
@pytest.mark.parametrize("arch", ["gfx942", "gfx950"])
def test_results_in_given_tensors(name: str, given: dict[str, Any], arch: str, device: str) -> None:
    op, x = partial(function(name), **given), x_of(device)
    wanted = op(x)
    out = nested(wanted, poisoned)
    result = op(x, out=out)
    assert all(a is b for a, b in zip(flat(result), flat(out), strict=True))
    assert_same_bytes(arrays(out), arrays(wanted))
    with pytest.raises(ValueError, match=r"out\[0\] must be contiguous"):
        op(x, out=nested(wanted, wide))
    amd = nested(wanted, poisoned)
    with torch_device.device(arch):
        op(x.cpu(), out=nested(amd, lambda t: t.cpu()) if device != "cpu" else amd)
    if device == "cpu":
        assert_same_bytes(arrays(amd), arrays(wanted))


@every_way
def test_compiled(name: str, given: dict[str, Any], device: str) -> None:
    torch._dynamo.reset()
    op = partial(function(name), **given)
    compiled = torch.compile(op, fullgraph=True, dynamic=True, backend="aot_eager")
    for rows in (64, 96):
        assert_same_bytes(arrays(compiled(x_of(device, rows, 96))), arrays(op(x_of(device, rows, 96))))


def test_placements_of_a_dtensor() -> None:
    """Blocks are not divided, and a tiled layout needs the whole matrix."""
    axes = OPS["mxfp8_quantize_both"].of().axes
    assert placements(axes, [(4, 64, 96)], 2) == [
        [REPLICATED] * 5,
        [0, 0, 0, 0, 0],
        [1, 1, 2, 2, 1],
    ]  # 96 columns are three blocks, which two devices do not share
    assert placements(axes, [(4, 64, 128)], 2)[-1] == [2, 2, 1, 1, 2]
    tiled = OPS["mxfp8_quantize_both"].of(scale_layout="swizzle_128x4").axes
    assert placements(tiled, [(4, 64, 128)], 2) == [[REPLICATED] * 5, [0, 0, 0, 0, 0]]


# --- JAX --------------------------------------------------------------------------------------------------------------


@pytest.mark.skipif(len(DEVICES) < 2, reason="needs several devices")
@pytest.mark.parametrize("kind", [AxisType.Auto, AxisType.Explicit], ids=str)
@pytest.mark.parametrize("spec", [P("b"), P(None, "b"), P("a", "b")], ids=str)
@every_way
def test_whole_blocks_are_divided_among_devices(name: str, given: dict[str, Any], spec: P, kind: AxisType) -> None:
    mesh, x = mesh_of(kind, kind), normal((32 * len(DEVICES), 128), "bfloat16", 3.0)
    with jax.set_mesh(mesh):
        given_x = jax.device_put(x, NamedSharding(mesh, spec))
        results, collectives = run(partial(jax_function(name), **given), given_x)
    assert not collectives
    assert_same_bytes([*map(np.asarray, jax.tree.leaves(results))], reference(name, x, **given))


@pytest.mark.skipif(len(DEVICES) < 2, reason="needs several devices")
def test_parts_of_blocks_are_not_divided_by_xla() -> None:
    """Two blocks of rows for more devices: it gathers them first."""
    mesh, x = mesh_of(AxisType.Auto, AxisType.Auto), normal((64, 96), "bfloat16", 3.0)
    with jax.set_mesh(mesh):
        given_x = jax.device_put(x, NamedSharding(mesh, P(("a", "b"))))
        results, _ = run(m3ops_jax.mxfp8_quantize_both, given_x)
    assert_same_bytes([*map(np.asarray, jax.tree.leaves(results))], reference("mxfp8_quantize_both", x))


@pytest.mark.skipif(len(DEVICES) < 2, reason="needs several devices")
@every_way
def test_parts_of_blocks_are_refused_where_types_tell(name: str, given: dict[str, Any]) -> None:
    mesh = mesh_of(AxisType.Explicit, AxisType.Explicit)
    x = jax.device_put(normal((64, 96), "bfloat16"), NamedSharding(mesh, P(("a", "b"))))
    wanted = r"x must be sharded in whole blocks, got bf16\[64@\(a,b\),96\]; use jax.sharding.reshard"
    with pytest.raises(ValueError, match=wanted):
        partial(jax_function(name), **given)(x)


# --- Gradients of a product -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rows", [64, 5])
def test_gradients_of_a_product_quantize_each_operand_once(rows: int) -> None:
    """Nothing is transposed or padded that need not be."""
    calls: list[tuple[str, tuple[int, ...]]] = []

    def recorded(name: str, op: Callable[..., Any]) -> Callable[..., Any]:
        def call(*operands: Any, **given: Any) -> Any:
            calls.append((name, getattr(operands[0], "shape", ())))
            named = {key: value.name if isinstance(value, np.dtype) else value for key, value in given.items()}
            return op(*operands, **named)

        return call

    ops = SimpleNamespace(**{name: recorded(name, op) for name, op in vars(SPECIFICATION).items()})
    x, w, grad = (normal(shape, "float32") for shape in ((rows, 96), (64, 96), (rows, 64)))

    def pad(matrix: np.ndarray, count: int) -> np.ndarray:
        return np.pad(matrix, ((0, count), (0, 0)))

    layers.linear_gradients(ops, pad, x, w, grad, arithmetic="exact", scale_rule="rceil")
    padded = -(-rows // 32) * 32
    assert sorted(calls) == sorted(
        [
            ("mxfp8_quantize_both", (padded, 64)),
            ("mxfp8_quantize_transposed", (64, 96)),
            ("mxfp8_quantize_transposed", (padded, 96)),
            ("mxfp8_matmul", ()),
            ("mxfp8_matmul", ()),
        ]
    )


def test_the_machine_code_of_gradients_launches_no_copy() -> None:
    """On an AMD GPU: the two launches of the products and three of quantization."""
    launches: list[Launch] = []
    x, w = (torch.randn(64, size, dtype=torch.bfloat16).requires_grad_() for size in (64, 64))
    y = m3ops_torch.mxfp8_linear(x, w)
    with torch_device.device("gfx950", launches.append):
        y.backward(torch.ones_like(y))
    assert sum("quantize" in launch.kernel.name for launch in launches) == 3


def test_containers_of_both_front_ends() -> None:
    x = normal((64, 96), "bfloat16", 3.0)
    for module, array in ((m3ops_torch, to_tensor(x)), (m3ops_jax, x)):
        own, transposed = module.mxfp8_quantize_both(array, scale_layout="swizzle_128x4")
        assert (own.scale_layout, transposed.scale_layout) == ("swizzle_128x4",) * 2
        assert (tuple(own.values.shape), tuple(transposed.values.shape)) == ((64, 96), (96, 64))
        product = module.mxfp8_matmul(own, module.mxfp8_quantize_transposed(array.T, scale_layout="swizzle_128x4"))
        assert tuple(product.shape) == (64, 64)


def test_rows_are_not_counted() -> None:
    """Of square blocks and of columns nobody could say what a part of a block is."""
    x, number = torch.zeros(64, 64), torch.ones(1, dtype=torch.int32)
    with pytest.raises(TypeError, match="mxfp8_quantize_both takes no num_rows"):
        torch.ops.m3ops.mxfp8_quantize_both(x, number, **parameters(OPS["mxfp8_quantize_both"].of()))
