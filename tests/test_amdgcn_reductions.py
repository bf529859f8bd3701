"""Reductions and layout changes on the interpreter of AMD machine code: DPP, permutations, and LDS between waves."""

import ml_dtypes
import numpy as np
import pytest
from amdgcn import launch
from amdgcn.compiling import ARCHS, TRITON_TYPE, compile_sample
from amdgcn.samples import block_amax_kernel, layout_kernel, reduce_kernel

# rows, columns, axis, warps: within a wave, across waves, several rows a wave, down the columns, eight waves a row
SHAPES = [(1, 1024, 1, 1), (4, 256, 1, 4), (64, 32, 1, 4), (64, 16, 0, 2), (2, 2048, 1, 8), (8, 8, 1, 1)]
PROGRAMS = 3


def reduce(arch: str, op: str, x: np.ndarray, shape: tuple[int, int, int, int], out: type) -> np.ndarray:
    rows, columns, axis, warps = shape
    signature = {"x_ptr": "*" + TRITON_TYPE[x.dtype], "o_ptr": "*" + TRITON_TYPE[np.dtype(out)]}
    constexprs = {"OP": op, "ROWS": rows, "COLS": columns, "AXIS": axis}
    kernel = compile_sample(reduce_kernel, arch, signature, constexprs, num_warps=warps)
    result = np.zeros(PROGRAMS * (columns if axis == 0 else rows), out)
    launch(kernel, (PROGRAMS,), [x, result])
    return result.reshape(PROGRAMS, -1)


def tiles(dtype: type, shape: tuple[int, int, int, int], seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    size = (PROGRAMS, *shape[:2])
    if dtype is np.float32:
        return rng.standard_normal(size).astype(np.float32)
    info = np.iinfo(dtype)
    return rng.integers(info.min, info.max, size, dtype, endpoint=True)


@pytest.mark.parametrize("arch", ARCHS)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("dtype", [np.int32, np.int64, np.int8], ids=lambda t: t.__name__)
def test_integer_reductions(arch, shape, dtype):
    x = tiles(dtype, shape)
    axis = shape[2] + 1
    wide = np.int32 if dtype is np.int8 else dtype  # Triton adds small integers as int32
    assert (reduce(arch, "sum", x, shape, wide) == x.sum(axis, dtype=wide)).all()
    assert (reduce(arch, "max", x, shape, dtype) == x.max(axis)).all()
    assert (reduce(arch, "min", x, shape, dtype) == x.min(axis)).all()
    assert (reduce(arch, "xor", x, shape, dtype) == np.bitwise_xor.reduce(x, axis)).all()


@pytest.mark.parametrize("arch", ARCHS)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_float_reductions(arch, shape):
    x = tiles(np.float32, shape)
    axis = shape[2] + 1
    assert (reduce(arch, "max", x, shape, np.float32) == x.max(axis)).all()
    assert (reduce(arch, "min", x, shape, np.float32) == x.min(axis)).all()
    assert (reduce(arch, "max_nan", x, shape, np.float32) == x.max(axis)).all()
    exact = np.round(x * 256)  # integers: every order of addition gives the same sum
    assert (reduce(arch, "sum", exact, shape, np.float32) == exact.sum(axis)).all()


@pytest.mark.parametrize("arch", ARCHS)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_one_nan_reaches_the_result(arch, shape):
    """And only the result of its own row or column; a maximum that does not propagate ignores it."""
    x = tiles(np.float32, shape)
    x[1, 0, 3] = np.nan
    axis = shape[2] + 1
    assert (np.isnan(reduce(arch, "max_nan", x, shape, np.float32)) == np.isnan(x.max(axis))).all()
    assert (reduce(arch, "max", x, shape, np.float32) == np.fmax.reduce(x, axis)).all()


@pytest.mark.parametrize("arch", ARCHS)
@pytest.mark.parametrize("dtype", [np.float32, ml_dtypes.bfloat16], ids=["fp32", "bf16"])
def test_amax_of_32_columns_and_back(arch, dtype):
    rows, columns = 4, 512
    x = np.random.default_rng(1).standard_normal((8, columns)).astype(dtype)
    name = "*" + TRITON_TYPE[np.dtype(dtype)]
    kernel = compile_sample(block_amax_kernel, arch, {"x_ptr": name, "o_ptr": name}, {"ROWS": rows, "COLS": columns})
    out = np.zeros_like(x)
    launch(kernel, (2,), [x, out])
    amax = np.abs(x.astype(np.float32)).reshape(8, -1, 32).max(2)
    assert (out.astype(np.float32).reshape(8, -1, 32) == amax[:, :, None]).all()


# ---- layout changes

LAYOUTS = {
    "trans": lambda x: x.swapaxes(1, 2),
    "split_join": lambda x: x.reshape(*x.shape[:2], -1, 2)[..., ::-1],
    "split_halves": lambda x: x.reshape(*x.shape[:2], 2, -1)[:, :, ::-1],
    "gather": lambda x: x[:, :, ::-1],
    "flatten": lambda x: x.swapaxes(1, 2),
}


@pytest.mark.parametrize("arch", ARCHS)
@pytest.mark.parametrize("op", LAYOUTS)
@pytest.mark.parametrize("shape", [(32, 64, 4), (16, 128, 1), (64, 64, 8)], ids=str)
def test_layout_changes(arch, op, shape):
    rows, columns, warps = shape
    for dtype in (np.float32, np.int8, *((np.int16, np.int64) if warps == 4 else ())):
        info = np.iinfo({4: np.int32}.get(np.dtype(dtype).itemsize, dtype))
        bits = np.random.default_rng(2).integers(
            info.min, info.max, (PROGRAMS, rows, columns), info.dtype, endpoint=True
        )
        name = "*" + TRITON_TYPE[np.dtype(dtype)]
        constexprs = {"OP": op, "ROWS": rows, "COLS": columns}
        kernel = compile_sample(layout_kernel, arch, {"x_ptr": name, "o_ptr": name}, constexprs, num_warps=warps)
        out = np.zeros_like(bits)
        launch(kernel, (PROGRAMS,), [bits, out])
        assert (out.reshape(PROGRAMS, -1) == LAYOUTS[op](bits).reshape(PROGRAMS, -1)).all(), dtype


@pytest.mark.parametrize("arch", ARCHS)
def test_running_sum(arch):
    x = np.round(tiles(np.float32, (32, 64, 1, 4)) * 256)
    constexprs = {"OP": "cumsum", "ROWS": 32, "COLS": 64}
    kernel = compile_sample(layout_kernel, arch, {"x_ptr": "*fp32", "o_ptr": "*fp32"}, constexprs)
    out = np.zeros_like(x)
    launch(kernel, (PROGRAMS,), [x, out])
    assert (out == x.cumsum(2)).all()
