"""Tiled scales: the layout against independent statements of it, its padding, and the products that read it."""

from __future__ import annotations

import itertools
from typing import Any

import jax
import numpy as np
import pytest
import torch
from backends import BACKENDS, H100, no_gpu
from compare import assert_same_bytes
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P
from specification import reference
from test_jax_sharding import COLLECTIVE, DEVICES

import m3ops_jax
import m3ops_torch
from m3ops.array import ArraySpec
from m3ops.numerics.scale_layouts import SCALE_LAYOUTS, TILES, arrange, restore, stored_shape
from m3ops.ops import OPS
from m3ops.plan import Launch
from m3ops.testing.arrays import normal
from m3ops.tiles.scales import PADDING_CHUNK
from m3ops.tools.run import flat, to_numpy, to_tensor

SHAPES = [(1, 1), (1, 96), (5, 7), (32, 8), (127, 4), (128, 4), (129, 5), (300, 13), (256, 96), (512, 9)]
every_layout = pytest.mark.parametrize("layout", TILES)


def random_scales(shape: tuple[int, ...]) -> np.ndarray:
    return np.random.default_rng(7).integers(1, 255, shape, dtype=np.uint8)


# --- The layouts, said by others -------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_swizzle_is_that_of_torchao(shape: tuple[int, int]) -> None:
    pytest.importorskip("torchao", reason="torchao is not installed")
    from torchao.prototype.mx_formats.utils import to_blocked

    scales = random_scales(shape)
    np.testing.assert_array_equal(arrange(scales, "swizzle_128x4").ravel(), to_blocked(torch.from_numpy(scales)))


def swizzled_offset(row: int, block: int, padded: tuple[int, int]) -> int:
    """The documentation of cuBLAS, which numbers the tiles row by row: tile, then ``(row % 32) * 16 + ...``."""
    tile = row // 128 * (padded[1] // 4) + block // 4
    return 512 * tile + row % 32 * 16 + row % 128 // 32 * 4 + block % 4


def swizzled_offset_of_few_rows(row: int, block: int, padded: tuple[int, int]) -> int:
    """FlashInfer's ``[row tiles, block tiles, 8, 4]``."""
    return int(np.ravel_multi_index((row // 8, block // 4, row % 8, block % 4), (padded[0] // 8, padded[1] // 4, 8, 4)))


def shuffled_offset(row: int, block: int, padded: tuple[int, int]) -> int:
    """Lane ``16 * (block % 4) + row % 16`` of a wave of 64 reads four bytes at once: two blocks of two rows."""
    tile = row // 32 * (padded[1] // 8) + block // 8
    lane = 16 * (block % 4) + row % 16
    return 256 * tile + 4 * lane + 2 * (block // 4 % 2) + row // 16 % 2


def shuffled_offset_of_gfx1250(row: int, block: int, padded: tuple[int, int]) -> int:
    """Aiter's ``[rows / 32, 32 blocks]``: a dword of four blocks for each of 32 rows, and then the next four blocks."""
    return row // 32 * 32 * padded[1] + block // 4 * 128 + row % 32 * 4 + block % 4


def packed_offset(row: int, block: int, padded: tuple[int, int]) -> int:
    """DeepGEMM's int32 ``[rows, blocks / 4]`` with strides of 1 and of the rows, rounded up to 16 bytes of them."""
    return 4 * (row + block // 4 * padded[0]) + block % 4


OFFSETS = {
    "swizzle_128x4": swizzled_offset,
    "swizzle_8x4": swizzled_offset_of_few_rows,
    "shuffle_32x8": shuffled_offset,
    "shuffle_32x4": shuffled_offset_of_gfx1250,
    "packed_ue8m0": packed_offset,
}
PADDED = {
    "swizzle_128x4": (128, 4),
    "swizzle_8x4": (8, 4),
    "shuffle_32x8": (256, 8),
    "shuffle_32x4": (32, 4),
    "packed_ue8m0": (4, 4),
}


@every_layout
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_every_scale_is_where_the_consumer_looks(layout: str, shape: tuple[int, int]) -> None:
    scales = random_scales(shape)
    stored = arrange(scales, layout)
    multiples = PADDED[layout]
    assert stored.shape == tuple(-(-n // m) * m for n, m in zip(shape, multiples, strict=True))
    expected = np.zeros(stored.size, np.uint8)
    for row, block in itertools.product(*map(range, shape)):
        expected[OFFSETS[layout](row, block, stored.shape)] = scales[row, block]
    np.testing.assert_array_equal(stored.ravel(), expected)  # and what pads is zero


@every_layout
@pytest.mark.parametrize("shape", [*SHAPES, (0, 4), (3, 0), (2, 3, 40, 5), (0, 3, 4)], ids=str)
def test_round_trip(layout: str, shape: tuple[int, ...]) -> None:
    scales = random_scales(shape)
    stored = arrange(scales, layout)
    assert stored.shape == stored_shape(shape, layout)
    np.testing.assert_array_equal(restore(stored, shape, layout), scales)


# --- Kernels ---------------------------------------------------------------------------------------------------------

CPU = [backend for backend in BACKENDS if backend.name in ("jax-cpu", "torch-cpu", "interpreter")]
GPU = [pytest.param(b, marks=[pytest.mark.gpu]) for b in BACKENDS if b.name.endswith("gpu")]


@every_layout
@pytest.mark.parametrize("shape", [(1, 32), (33, 96), (2, 31, 64), (37, 288), (2, 5, 288)], ids=str)
@pytest.mark.parametrize("backend", [*CPU, *GPU], ids=lambda b: b.name)
def test_only_the_order_of_the_scales_differs(backend: Any, shape: tuple[int, ...], layout: str) -> None:
    if reason := backend.missing():
        pytest.skip(reason)
    x = normal(shape, "bfloat16", 3.0)
    values, scales = backend.run("mxfp8_quantize", [x], {})
    tiled = backend.run("mxfp8_quantize", [x], {"scale_layout": layout})
    assert_same_bytes(tiled, [values, arrange(scales, layout)])
    back = backend.run("mxfp8_dequantize", tiled, {"scale_layout": layout})
    assert_same_bytes(back, backend.run("mxfp8_dequantize", [values, scales], {}))


def launched(num_rows: int, layout: str) -> Launch:
    """The launch that quantizes rows of 3072."""
    op, specs = OPS["mxfp8_quantize"].of(scale_layout=layout), {"x": ArraySpec((num_rows, 3072), "bfloat16")}
    (one,) = op.plan({**specs, **op.check(specs)}, H100).launches
    return one


@pytest.mark.parametrize("layout", SCALE_LAYOUTS)
@pytest.mark.parametrize("num_rows", [1, 128, 4096, 65536 + 1])
def test_padding_costs_few_programs(num_rows: int, layout: str) -> None:
    programs = launched(num_rows, layout).grid[0] - launched(num_rows, "row_major").grid[0]
    assert programs <= -(-PADDED.get(layout, (0, 0))[0] * 96 // PADDING_CHUNK)


@every_layout
def test_the_number_of_rows_is_no_constant(layout: str) -> None:
    """Else every batch size would compile a kernel of its own."""
    constants = [launched(num_rows, layout).constants for num_rows in (130, 131, 258)]
    assert constants[0]["MX"] == constants[1]["MX"] == constants[2]["MX"]
    assert constants[0]["AT"] == constants[1]["AT"] == constants[2]["AT"]


# --- Transformations: a matrix is what a row was ---------------------------------------------------------------------


@every_layout
def test_vmap_gives_each_example_its_own_padding(layout: str) -> None:
    x = normal((3, 33, 96), "bfloat16", 3.0)
    batched = jax.vmap(lambda one: m3ops_jax.mxfp8_quantize(one, scale_layout=layout))(x)
    alone = [m3ops_jax.mxfp8_quantize(one, scale_layout=layout) for one in x]
    assert_same_bytes([np.asarray(batched.scales)], [np.stack([np.asarray(one.scales) for one in alone])])
    back = jax.vmap(m3ops_jax.mxfp8_dequantize)(batched)
    assert_same_bytes([np.asarray(back)], [np.asarray(m3ops_jax.mxfp8_dequantize(m3ops_jax.mxfp8_quantize(x)))])


@every_layout
@pytest.mark.parametrize("kind", [AxisType.Auto, AxisType.Explicit], ids=str)
def test_batches_of_matrices_are_divided_without_communication(kind: AxisType, layout: str) -> None:
    arrays = normal((8, 33, 96), "bfloat16"), normal((96,), "bfloat16")
    mesh = jax.make_mesh((len(DEVICES),), ("a",), axis_types=(kind,), devices=DEVICES)
    x = jax.device_put(arrays[0], NamedSharding(mesh, P("a")))
    weight = jax.device_put(arrays[1], NamedSharding(mesh, P()))
    call = jax.jit(lambda x, weight: m3ops_jax.gemma_rmsnorm_quantize(x, weight, scale_layout=layout))
    with jax.set_mesh(mesh):
        compiled = call.lower(x, weight).compile()
        results = compiled(x, weight)
    assert not COLLECTIVE.findall(compiled.as_text())
    assert results.scales.sharding.spec[0] == "a"
    wanted = reference("gemma_rmsnorm_quantize", *arrays, scale_layout=layout)
    assert_same_bytes([*map(np.asarray, results)], wanted)


@every_layout
def test_rows_of_a_matrix_are_gathered_on_automatic_meshes_and_refused_on_explicit_ones(layout: str) -> None:
    x = normal((8 * len(DEVICES), 96), "bfloat16")

    def sharded(kind: AxisType) -> Any:
        mesh = jax.make_mesh((len(DEVICES),), ("a",), axis_types=(kind,), devices=DEVICES)
        return jax.device_put(x, NamedSharding(mesh, P("a")))

    call = jax.jit(lambda x: m3ops_jax.mxfp8_quantize(x, scale_layout=layout))
    expected = reference("mxfp8_quantize", x, scale_layout=layout)
    assert_same_bytes([*map(np.asarray, call(sharded(AxisType.Auto)))], expected)
    with pytest.raises(ValueError, match=r"x must be sharded as .*not along its last 2 axes"):
        call(sharded(AxisType.Explicit))


@every_layout
def test_torch_compile(layout: str) -> None:
    x = to_tensor(normal((33, 96), "bfloat16", 3.0))
    call = torch.compile(lambda x: m3ops_torch.mxfp8_quantize(x, scale_layout=layout), fullgraph=True, dynamic=True)
    eager = m3ops_torch.mxfp8_quantize(x, scale_layout=layout)
    assert_same_bytes([*map(to_numpy, call(x))], [*map(to_numpy, eager)])


# --- Consumers -------------------------------------------------------------------------------------------------------


def block_scaled_product(a: tuple[np.ndarray, np.ndarray], b: tuple[np.ndarray, np.ndarray], layout: str) -> np.ndarray:
    """What a block-scaled product computes, each scale read from where its instructions read it; float64."""

    def wide(values: np.ndarray, stored: np.ndarray) -> np.ndarray:
        size = values.shape[0], values.shape[1] // 32
        flat = stored.ravel()
        offsets = [[OFFSETS[layout](row, block, stored.shape) for block in range(size[1])] for row in range(size[0])]
        return np.asarray(values.astype(np.float64) * np.repeat(np.exp2(flat[offsets] - 127.0), 32, axis=1))

    return wide(*a) @ wide(*b).T


@every_layout
def test_a_block_scaled_product(layout: str) -> None:
    """Emulated: torch 2.14's scaled_mm has no such product on a CPU ("CPU does not support swizzle")."""
    a, b = normal((40, 192), "float32"), normal((24, 192), "float32", 5.0)
    quantized = [m3ops_torch.mxfp8_quantize(to_tensor(x), scale_layout=layout) for x in (a, b)]
    product = block_scaled_product(*[tuple(map(to_numpy, q)) for q in quantized], layout)  # type: ignore[arg-type]
    plain = [m3ops_torch.mxfp8_dequantize(q, out_dtype=torch.float32) for q in quantized]
    x, y = (p.double().numpy() for p in plain)
    # Two sums of the same 192 products, in float64, each in an order of its own.
    assert (np.abs(product - x @ y.T) <= 2 * 192 * 2.0**-53 * (np.abs(x) @ np.abs(y).T)).all()
    # Rounding to E4M3, by at most 2**-4 of a number, is less on average; another block's scale is a power of two off.
    assert np.linalg.norm(product - a.astype(np.float64) @ b.T.astype(np.float64)) < 0.06 * np.linalg.norm(product)


def has_block_scaled_product() -> bool:
    return no_gpu() is None and not torch.version.hip and torch.cuda.get_device_capability() >= (10, 0)


@pytest.mark.gpu
@pytest.mark.skipif(not has_block_scaled_product(), reason="torch multiplies MXFP8 on NVIDIA from sm_100 on")
@pytest.mark.parametrize("num_rows", [1, 40, 256])
def test_scaled_mm_of_torch(num_rows: int) -> None:
    a, b = normal((num_rows, 256), "bfloat16", 3.0), normal((128, 256), "bfloat16")
    x, w = (m3ops_torch.mxfp8_quantize(to_tensor(array, "cuda"), scale_layout="swizzle_128x4") for array in (a, b))
    product = torch._scaled_mm(x.values, w.values.t(), x.e8m0, w.e8m0, out_dtype=torch.float32)
    exact, weight = (m3ops_torch.mxfp8_dequantize(q, out_dtype=torch.float32).double() for q in (x, w))
    exact = exact @ weight.T
    # The products are exact in fp32 and 256 of them are added: 256 roundings of partial sums, each below the sum of all
    # magnitudes, 2**-24 of it.
    bound = 256 * 2.0**-24 * 256 * float(exact.abs().max())
    assert float((product.double() - exact).abs().max()) <= bound


@pytest.mark.gpu
@pytest.mark.skipif(no_gpu() is not None, reason=str(no_gpu()))
@every_layout
@pytest.mark.parametrize("num_rows", [1, 127, 4096, 20001])
@pytest.mark.parametrize("name", ["mxfp8_quantize", "gemma_rmsnorm_quantize"])
def test_every_byte_is_written(name: str, num_rows: int, layout: str) -> None:
    x = [normal((num_rows, 3072), "bfloat16"), normal((3072,), "bfloat16")][: 1 + (name != "mxfp8_quantize")]
    tensors = [to_tensor(array, "cuda") for array in x]
    torch.full((2**28,), 0xA5, dtype=torch.uint8, device="cuda")  # what the allocator hands out next
    results = flat(getattr(m3ops_torch, name)(*tensors, scale_layout=layout))
    scales = flat(getattr(m3ops_torch, name)(*tensors))[1]
    assert_same_bytes([to_numpy(results[1])], [arrange(to_numpy(scales), layout)])
