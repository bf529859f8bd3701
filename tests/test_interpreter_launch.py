"""The adapter of Triton's interpreter around a launch: memory, the process it runs in, and the ops as a whole."""

from __future__ import annotations

import dataclasses
import threading
import time
from collections.abc import Sequence
from typing import Any

import interpreter
import numpy as np
import pytest
import triton
import triton.language as tl
from backends import array_spec
from compare import assert_same_bytes
from interpreter import launch
from test_interpreter import (
    BF16,
    E4M3FN,
    E4M3FNUZ,
    F16,
    F32,
    H100,
    I32,
    MI355X,
    TARGETS,
    U8,
    assert_same,
    random_floats,
    run,
)
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from triton.runtime.jit import JITFunction

from m3ops import rows
from m3ops.cases.case import normal
from m3ops.cases.mxfp8_dequantize import random_bytes
from m3ops.numerics import tile
from m3ops.op import COMPILER_OPTIONS, ArraySpec, LaunchPlan
from m3ops.ops import OPS
from m3ops.target import Target
from m3ops.tiling import RowTiling, Tiling, tiling

# Memory


@triton.jit
def _copy_kernel(
    x_ptr,
    num_rows,
    out_ptr,
    N: tl.constexpr,
    SHIFT: tl.constexpr,
    STRIDE: tl.constexpr,
    LIMIT: tl.constexpr,
    FROM: tl.constexpr,
):
    i = tl.program_id(0) * N + tl.arange(0, N)
    source_ptr = out_ptr if FROM == "output" else x_ptr
    x = tl.load(source_ptr + (i + SHIFT) * STRIDE, mask=i < LIMIT)
    target_ptr = x_ptr if FROM == "store to input" else out_ptr
    tl.store(target_ptr + i + (SHIFT if FROM == "store" else 0), x, mask=i < num_rows)


def copy(
    x: np.ndarray, shift: int = 0, stride: int = 1, limit: int = 2**20, source: str = "input", grid: int = 1
) -> Any:
    return run(_copy_kernel, x, out=x.dtype, grid=grid, SHIFT=shift, STRIDE=stride, LIMIT=limit, FROM=source)


def test_strided_arrays_of_all_dtypes_are_read_in_place() -> None:
    for dtype in (F32, F16, BF16, E4M3FN, E4M3FNUZ, U8, I32, np.dtype("int64")):
        x = np.arange(64).astype(dtype)
        for stride in (1, 3, -1, -2):
            view = x[::stride][:16]
            assert_same(
                copy(view, stride=stride, grid=4).view(f"u{dtype.itemsize}"), view.copy().view(f"u{dtype.itemsize}")
            )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"shift": 1}, "1 addresses are no element of the array, the first at byte 64"),
        ({"shift": -2}, "2 addresses are no element of the array, the first at byte -8"),
        ({"stride": 2}, "8 addresses"),
        ({"stride": 2**26}, "15 addresses"),
        ({"source": "output"}, "load from a pointer into no input"),
        ({"source": "store to input"}, "store to a pointer into no output"),
        ({"source": "store", "shift": 1, "stride": 0}, "1 addresses are no element"),
    ],
)
def test_addresses_outside_the_arrays_are_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(IndexError, match=message):
        copy(np.arange(48, dtype=F32)[16:32], **arguments)


def test_the_gaps_of_a_strided_array_are_outside() -> None:
    with pytest.raises(IndexError, match="8 addresses"):
        copy(np.arange(32, dtype=F32)[::2], stride=1)


def test_masked_lanes_read_nothing_and_are_undefined() -> None:
    assert np.isnan(copy(np.zeros(16, F32), limit=3)[3:]).all()
    assert_same(copy(np.arange(16, dtype=U8), limit=3), [0, 1, 2] + [255] * 13)


@triton.jit
def _half_kernel(x_ptr, num_rows, out_ptr, N: tl.constexpr):
    i = tl.arange(0, N // 2)
    tl.store(out_ptr + i, tl.load(x_ptr + i))


def test_every_element_of_an_output_is_written() -> None:
    with pytest.raises(IndexError, match="output 0: 8 of 16 elements not written"):
        run(_half_kernel, np.zeros(16, F32), out=F32)


# Process


def compiled(plan: LaunchPlan, inputs: tuple[ArraySpec, ...], outputs: tuple[ArraySpec, ...], target: Target) -> Any:
    types = {"bfloat16": "*bf16", "float16": "*fp16", "float32": "*fp32"}
    given = plan.arguments(*([types.get(spec.dtype, "*u8") for spec in specs] for specs in (inputs, outputs)))
    names = plan.kernel.arg_names
    kinds = {str: str, int: lambda _: "i32", type(None): lambda _: "constexpr"}
    signature = dict.fromkeys(names, "constexpr") | {n: kinds[type(a)](a) for n, a in zip(names, given, strict=False)}
    constants = dict.fromkeys(("live_ptr", "LIVE")) | dict(plan.constants)
    source = ASTSource(plan.kernel, signature, {(names.index(name),): value for name, value in constants.items()})
    arch = int(target.arch.removeprefix("sm_")) if target.vendor == "nvidia" else target.arch
    gpu = GPUTarget("cuda" if target.vendor == "nvidia" else "hip", arch, target.warp_size)
    asm = triton.compile(source, target=gpu, options={"num_warps": plan.num_warps, **COMPILER_OPTIONS}).asm
    return asm["ptx" if target.vendor == "nvidia" else "amdgcn"]


def planned(name: str, arrays: tuple[np.ndarray, ...], target: Target, **params: Any) -> Any:
    """``(plan, input specs, output specs, all parameters)`` of an op."""
    op = OPS[name]
    params = op.canonical(op.filled(params))
    specs = tuple(ArraySpec(a.shape, a.dtype.name, tuple(s // a.itemsize for s in a.strides)) for a in arrays)
    outputs = op.infer(*specs, **params)
    return op.plan(specs, outputs, params, target), specs, outputs, params


def check(name: str, arrays: tuple[np.ndarray, ...], target: Target, **params: Any) -> None:
    """An op's kernel gives the specification's bytes."""
    plan, _, outputs, params = planned(name, arrays, target, **params)
    results = [np.empty(spec.shape, spec.dtype) for spec in outputs]
    launch(plan, arrays, results)
    for got, want in zip(results, OPS[name].reference(*arrays, **params), strict=True):
        assert (got.shape, got.dtype) == (want.shape, want.dtype)
        as_bytes = got.itemsize == 1  # quantized results: NaN has one code there
        assert_same(*((got.view(U8), want.view(U8)) if as_bytes else (got, want)))


def state() -> dict[str, Any]:
    """What a launch could leave changed: Triton's language, the JIT, and the modules of the kernels."""
    classes = tl.tensor, tl.constexpr, tl.dtype, JITFunction
    owners = (tl, tl.core, tl.math, tl.standard, triton.runtime.interpreter, tile, rows, *classes)
    return {f"{owner.__name__}.{name}": getattr(owner, name) for owner in owners for name in dir(owner)}


@pytest.mark.parametrize("fails", [False, True])
def test_a_launch_leaves_the_process_as_it_was(fails: bool) -> None:
    before = state()
    if fails:
        with pytest.raises(IndexError):
            copy(np.zeros(16, F32), shift=1)
    else:
        check("swiglu_oai", (np.ones((2, 64), F32),), H100)
    after = state()
    assert before.keys() == after.keys()
    dunder = "__dict__", "__doc__", "__weakref__"  # made anew by each access
    assert [name for name in before if not name.endswith(dunder) and before[name] != after[name]] == []
    assert not hasattr(tile, "interpreter_semantic"), "Triton's own rewriter adds its names to the kernels' modules"
    with pytest.raises(RuntimeError, match="outside of the scope of a kernel"):
        tile.bits32(1)


@pytest.mark.parametrize("target", [MI355X, H100], ids=lambda target: target.arch)
def test_kernels_compile_between_launches(target: Target, tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    arrays = (random_floats(7, 128).reshape(2, 64),)
    plan, inputs, outputs, _ = planned("swiglu_oai_quantize", arrays, target)
    code = []
    for attempt in ("before", "after"):
        monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path / attempt))
        code.append(compiled(plan, inputs, outputs, target))
        check("swiglu_oai_quantize", arrays, target)
    assert code[0] == code[1]


def test_launches_from_several_threads_do_not_mix(monkeypatch: pytest.MonkeyPatch) -> None:
    set_grid_idx = interpreter._Builder.set_grid_idx

    def set_and_wait(*arguments: Any) -> None:
        set_grid_idx(*arguments)
        time.sleep(0.002)  # lets another thread in, if there is a way in

    monkeypatch.setattr(interpreter._Builder, "set_grid_idx", set_and_wait)
    failures: list[Exception] = []

    def work(size: int) -> None:
        try:
            for _ in range(3):
                x = np.full(16 * size, size, F32)
                assert_same(copy(x, grid=size), x)
        except Exception as failure:  # a thread's exceptions reach no test by themselves
            failures.append(failure)

    threads = [threading.Thread(target=work, args=(size,)) for size in (1, 2, 4, 8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []


def test_an_interpreted_function_is_refused() -> None:
    with pytest.raises(TypeError, match="TRITON_INTERPRET"):
        run(triton.runtime.interpreter.InterpretedFunction(_copy_kernel.fn), np.zeros(16, F32), out=F32)


def test_errors_name_the_kernel_and_its_line() -> None:
    with pytest.raises(IndexError) as failure:
        copy(np.zeros(16, F32), shift=1)
    entry = next(entry for entry in failure.traceback if entry.name == "_copy_kernel")
    assert "tl.load(source_ptr" in str(entry.statement)


# Ops


def operands(name: str, dtype: str) -> tuple[np.ndarray, ...]:
    """Small random operands: rows and columns past the edges of tiles, strided arrays, NaN, infinity and zeros."""
    rng = np.random.default_rng(8)
    x = (rng.standard_normal((2, 3, 2 * 192)) * np.exp2(rng.integers(-20, 6, (2, 3, 1)))).astype(dtype)
    x[0, 0, :7] = [np.nan, np.inf, -np.inf, 0.0, -0.0, 1e-7, 3e4]
    x[1, 1], x[1, 2, ::2] = 0.0, -0.0
    values = rng.integers(0, 256, (2, 3, 96), dtype=U8).view(E4M3FN)
    made = {
        "gate_up": x[:, ::2, ::2],
        "x": x.transpose(1, 0, 2),
        "residual": x[::-1, :, ::-1].transpose(1, 0, 2),
        "weight": x[1, 0, ::-1].astype(F32),
        "qkv": x.transpose(1, 0, 2),
        "weight_q": x[1, 0, 96::-1].astype(F32)[:64],
        "weight_k": x[0, 1, :64],
        "values": values[::-1],
        "scales": rng.integers(0, 256, (2, 3, 3), dtype=U8)[::-1],
    }
    return tuple(made[argument] for argument in OPS[name].inputs)


QUANTIZED_NORM = [{}, {"round_activation": True, "out_norm": True, "fp8_format": "e4m3fnuz"}]
PARAMS: dict[str, list[dict[str, Any]]] = {
    "swiglu_oai": [{}, {"limit": None, "alpha": 0.5, "out_dtype": "float32"}, {"layout": "interleaved"}],
    "swiglu_oai_quantize": [{}, {"round_activation": True, "scale_rule": "floor", "fp8_format": "e4m3fnuz"}],
    "mxfp8_quantize": [{}, {"scale_rule": "floor"}, {"fp8_format": "e4m3fnuz"}],
    "mxfp8_dequantize": [{}, {"out_dtype": "float16"}, {"out_dtype": "float32"}],
    "gemma_rmsnorm": [{}, {"eps": 0.0}],
    "gemma_rmsnorm_heads": [{"num_heads_q": 3, "num_heads_k": 1, "num_heads_v": 2}],
    "gemma_rmsnorm_quantize": QUANTIZED_NORM,
    "gemma_fused_add_rmsnorm_quantize": QUANTIZED_NORM,
}


@pytest.mark.parametrize("target", TARGETS, ids=lambda target: target.arch)
@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float32"])
@pytest.mark.parametrize("name", OPS)
def test_ops_give_the_specifications_bytes(name: str, dtype: str, target: Target) -> None:
    for params in PARAMS.get(name, [{}]):
        check(name, operands(name, dtype), target, **params)


@pytest.mark.parametrize("reload", [False, True])
@pytest.mark.parametrize(("rows", "cols"), [(1, 32), (4, 128), (2, 256), (1, 512)])
@pytest.mark.parametrize("name", ["gemma_rmsnorm", "gemma_fused_add_rmsnorm"])
def test_any_tile_gives_the_same_norm(name: str, rows: int, cols: int, reload: bool) -> None:
    x, residual, weight = normal((5, 300), "bfloat16"), normal((5, 300), "bfloat16", 2.0), normal((300,), "float32")
    arrays = [x, weight] if name == "gemma_rmsnorm" else [x, residual, weight]
    check_tiling(name, arrays, RowTiling(-(-5 // rows), rows, cols, True, 1, -(-300 // cols), reload))


@pytest.mark.parametrize(("rows", "cols"), [(1, 32), (8, 128), (2, 1024)])
@pytest.mark.parametrize("name", ["swiglu_oai", "swiglu_oai_quantize", "mxfp8_quantize", "mxfp8_dequantize"])
def test_any_tile_gives_the_same_elements(name: str, rows: int, cols: int) -> None:
    x = normal((5, 2 * 1056), "bfloat16", 3.0)
    arrays = {"gate_up": [x], "x": [x[:, :1056]], "values": random_bytes((5, 1056))}[OPS[name].inputs[0]]
    check_tiling(name, arrays, tiling(5, 1056, rows, cols, 1))


def check_tiling(name: str, arrays: Sequence[np.ndarray], t: Tiling) -> None:
    op = OPS[name]
    expected = op.reference(*arrays, **op.filled({}))
    plan = op.plan(tuple(map(array_spec, arrays)), tuple(map(array_spec, expected)), op.filled({}), H100)
    forced = dataclasses.replace(plan, grid=t.grid, constants={**plan.constants, **t.constants})
    results = [np.empty(array.shape, array.dtype) for array in expected]
    launch(forced, arrays, results)
    assert_same_bytes(results, expected)
