"""The adapter of Triton's interpreter around a launch: memory, the process it runs in, and the ops as a whole."""

from __future__ import annotations

import dataclasses
import threading
import time
from typing import Any

import interpreter
import numpy as np
import pytest
import triton
import triton.language as tl
from backends import interpreted, planned, specs_of
from compare import assert_same_bytes
from inputs import OPS_OF_ROWS, PARAMETERS, arguments
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

from m3ops.array import ArraySpec
from m3ops.numerics.tile import fp32, functions
from m3ops.op import Op, Specs
from m3ops.ops import OPS
from m3ops.ops.mxfp8.cases_dequantize import random_bytes
from m3ops.plan import Launch, Plan
from m3ops.target import Target
from m3ops.testing.arrays import normal
from m3ops.testing.case import operands as by_name
from m3ops.tiles import rows
from m3ops.tiles.rows import Tile

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


@triton.jit
def _columns_kernel(tile, out_ptr, SIZE: tl.constexpr, TILE: tl.constexpr):
    _, _, cols = rows.window(tile, 1, SIZE, TILE)
    tl.store(out_ptr + tl.arange(0, TILE.cols)[None, :], cols.to(tl.int64))


@pytest.mark.parametrize("size", [2**20, 2**30 + 2**12, 2**31 + 2**12, 2**33 + 32])
def test_columns_of_a_row_past_32_bits(size: int) -> None:
    """A tensor of one axis may have so many. Of alternating gates and ups the operand has twice as many."""
    op = OPS["mxfp8_quantize"].of()
    x = ArraySpec((size,), "bfloat16")
    (launch,) = op.plan({"x": x, **op.check({"x": x})}, H100).launches
    (last, *_), tile = launch.grid, launch.constants["TILE"]
    got = np.zeros(tile.cols, np.int64)
    arguments = {"tile": last - 1, "out_ptr": "columns"}
    one = Launch(_columns_kernel, (1,), arguments, {"SIZE": size, "TILE": tile}, ("columns",), 4)
    interpreter.run(Plan((one,), 0), {}, {"columns": got})
    np.testing.assert_array_equal(got, (last - 1) * tile.cols + np.arange(tile.cols))
    assert got[0] < size <= got[-1] + 1


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
        ({"source": "output"}, "load from an array that it writes"),
        ({"source": "store to input"}, "store to an array that the launch does not write"),
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
def _half_kernel(x_ptr, out_ptr, N: tl.constexpr):
    i = tl.arange(0, N // 2)
    tl.store(out_ptr + i, tl.load(x_ptr + i))


def test_every_element_of_an_output_is_written() -> None:
    with pytest.raises(IndexError, match="out_ptr: 8 of 16 elements not written"):
        run(_half_kernel, np.zeros(16, F32), out=F32)


# Plans


@triton.jit
def _part_kernel(x_ptr, out_ptr, N: tl.constexpr, START: tl.constexpr):
    i = START + tl.arange(0, N)
    tl.store(out_ptr + i, tl.load(x_ptr + i) + 1)


def part(source: str, target: str, start: int, size: int = 8) -> Launch:
    """A launch that writes ``source + 1`` to a part of ``target``."""
    arguments = {"x_ptr": source, "out_ptr": target}
    return Launch(_part_kernel, (1,), arguments, {"N": size, "START": start}, (target,), num_warps=1)


def run_plan(*launches: Launch, **given: Any) -> np.ndarray:
    """The result ``y [16]`` of launches that read ``x [16]``, with scratch memory ``t [16]``."""
    out = np.zeros(16, I32)
    plan = Plan(launches, bytes_moved=0, scratch={"t": ArraySpec((16,), "int32")})
    interpreter.run(plan, {"x": np.arange(16, dtype=I32)}, {"y": out}, **given)
    return out


def test_launches_read_what_earlier_ones_have_written() -> None:
    assert_same(run_plan(part("x", "t", 0, 16), part("t", "y", 0), part("t", "y", 8)), np.arange(16) + 2)
    with pytest.raises(IndexError, match="load of 8 elements that no launch has written"):
        run_plan(part("x", "t", 0), part("t", "y", 0, 16))


def test_elements_that_stay_are_not_written_and_need_not_be() -> None:
    first = {"y": np.arange(16) < 8}
    assert_same(run_plan(part("x", "y", 8), kept=first), [*[0] * 8, *range(9, 17)])
    with pytest.raises(IndexError, match="y: 8 of 16 elements written that have to stay as they are"):
        run_plan(part("x", "y", 0, 16), kept=first)
    with pytest.raises(IndexError, match="y: 8 of 16 elements not written"):
        run_plan(part("x", "y", 0), kept={"y": np.zeros(16, bool)})


@triton.jit
def _axes_kernel(x_ptr, out_ptr):
    program = (tl.program_id(0) * 3 + tl.program_id(1)) * 4 + tl.program_id(2)
    sizes = tl.num_programs(0) * 100 + tl.num_programs(1) * 10 + tl.num_programs(2)
    tl.store(out_ptr + program, tl.load(x_ptr + program) + sizes)


def test_a_grid_has_up_to_three_axes() -> None:
    x, out = np.arange(24, dtype=I32), np.zeros(24, I32)
    one = Launch(_axes_kernel, (2, 3, 4), {"x_ptr": "x", "out_ptr": "y"}, {}, ("y",), num_warps=1)
    interpreter.run(Plan((one,), bytes_moved=0), {"x": x}, {"y": out})
    assert_same(out, x + 234)


# Process


def compiled(one: Launch, specs: Specs, target: Target) -> Any:
    types = {"bfloat16": "*bf16", "float16": "*fp16", "float32": "*fp32"}
    bound = one.bound(specs)
    pointers = {name: types.get(spec.dtype, "*u8") for name, spec in bound.items() if isinstance(spec, ArraySpec)}
    numbers = {name: "i32" for name, value in bound.items() if isinstance(value, int)}
    names = one.kernel.arg_names
    signature = dict.fromkeys(names, "constexpr") | pointers | numbers
    values = {**dict.fromkeys(name for name, value in bound.items() if value is None), **one.constants}
    source = ASTSource(one.kernel, signature, {(names.index(name),): value for name, value in values.items()})
    arch = int(target.arch.removeprefix("sm_")) if target.vendor == "nvidia" else target.arch
    gpu = GPUTarget("cuda" if target.vendor == "nvidia" else "hip", arch, target.warp_size)
    asm = triton.compile(source, target=gpu, options=one.compiler_options).asm
    return asm["ptx" if target.vendor == "nvidia" else "amdgcn"]


def check(op: Op, arrays: tuple[np.ndarray, ...], target: Target) -> None:
    """An op's kernels give the specification's bytes."""
    inputs = by_name(op, arrays)
    for got, want in zip(
        interpreted(op, inputs, planned(op, inputs, target)), op.reference(inputs).values(), strict=True
    ):
        assert (got.shape, got.dtype) == (want.shape, want.dtype)
        as_bytes = got.itemsize == 1  # quantized results: NaN has one code there
        assert_same(*((got.view(U8), want.view(U8)) if as_bytes else (got, want)))


def state() -> dict[str, Any]:
    """What a launch could leave changed: Triton's language, the JIT, and the modules of the kernels."""
    classes = tl.tensor, tl.constexpr, tl.dtype, JITFunction
    owners = (tl, tl.core, tl.math, tl.standard, triton.runtime.interpreter, fp32, functions, rows, *classes)
    return {f"{owner.__name__}.{name}": getattr(owner, name) for owner in owners for name in dir(owner)}


@pytest.mark.parametrize("fails", [False, True])
def test_a_launch_leaves_the_process_as_it_was(fails: bool) -> None:
    before = state()
    if fails:
        with pytest.raises(IndexError):
            copy(np.zeros(16, F32), shift=1)
    else:
        check(OPS["swiglu_oai"].of(), (np.ones((2, 64), F32),), H100)
    after = state()
    assert before.keys() == after.keys()
    dunder = "__dict__", "__doc__", "__weakref__"  # made anew by each access
    assert [name for name in before if not name.endswith(dunder) and before[name] != after[name]] == []
    assert not hasattr(fp32, "interpreter_semantic"), "Triton's own rewriter adds its names to the kernels' modules"
    with pytest.raises(RuntimeError, match="outside of the scope of a kernel"):
        fp32.bits32(1)


@pytest.mark.parametrize("target", [MI355X, H100], ids=lambda target: target.arch)
def test_kernels_compile_between_launches(target: Target, tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    arrays = (random_floats(7, 128).reshape(2, 64),)
    op = OPS["swiglu_oai_quantize"].of()
    inputs = by_name(op, arrays)
    specs, (one,) = specs_of(inputs), planned(op, inputs, target).launches
    code = []
    for attempt in ("before", "after"):
        monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path / attempt))
        code.append(compiled(one, {**specs, **op.check(specs)}, target))
        check(op, arrays, target)
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
    scales = rng.integers(0, 256, (2, 3, 3), dtype=U8)[::-1]
    made = {
        "gate_up": x[:, ::2, ::2],
        "x": x.transpose(1, 0, 2),
        "residual": x[::-1, :, ::-1].transpose(1, 0, 2),
        "weight": x[1, 0, ::-1].astype(F32),
        "qkv": x.transpose(1, 0, 2),
        "weight_q": x[1, 0, 96::-1].astype(F32)[:64],
        "weight_k": x[0, 1, :64],
        "cos_sin": x[1, ::-1, 1:65:2].astype(F32),
        "positions": np.array([[2, 0, 1], [-1, 1, 3]]).T,
        "weight_index_q": x[1, 0, 100:36:-1],
        "weight_index_k": x[0, :, 130:194].astype(F32)[:, None],
        "values": values[::-1],
        "scales": scales,
        "x_values": values.transpose(1, 0, 2),
        "x_scales": scales.transpose(1, 0, 2),
        "w": x[1, ::-1, ::-1].astype(F32),
        "w_values": values[0, ::-1],
        "w_scales": scales[1],
        "logits": x[..., ::3].transpose(1, 0, 2),
        "bias": x[1, 0, 127::-1].astype(F32),
        "y": x[0, :, ::2],
        "slots": rng.integers(-1, 4, (2, 3, 8), dtype=I32).transpose(1, 0, 2)[..., ::2],
        "weights": x[..., 4:8].transpose(1, 0, 2).astype(F32),
        "shared": x[..., ::-2].transpose(1, 0, 2),
    }
    return tuple(made[n] for n in OPS[name].inputs if n in made) if name in OPS_OF_ROWS else arguments(name)


QUANTIZED_NORM = [{}, {"round_activation": True, "out_norm": True, "fp8_format": "e4m3fnuz"}]
INDEXED = ("num_heads_k", "num_heads_v", "num_heads_index_q", "num_heads_index_k")
PARAMS: dict[str, list[dict[str, Any]]] = {
    "swiglu_oai": [{}, {"limit": None, "alpha": 0.5, "out_dtype": "float32"}, {"layout": "interleaved"}],
    "swiglu_oai_fake_quant": [{}, {"scale_rule": "floor", "out_dtype": "float32"}],
    "swiglu_oai_quantize": [{}, {"round_activation": True, "scale_rule": "floor", "fp8_format": "e4m3fnuz"}],
    "mxfp8_quantize": [{}, {"scale_rule": "floor"}, {"fp8_format": "e4m3fnuz"}],
    "mxfp8_quantize_transposed": [{}, {"square_blocks": True}],
    "mxfp8_quantize_both": [{}, {"square_blocks": True}],
    "mxfp8_dequantize": [{}, {"out_dtype": "float16"}, {"out_dtype": "float32"}],
    "mxfp8_matmul": [{}, {"out_dtype": "float16"}, {"out_dtype": "float32"}],
    "mxfp8_k_grouped_matmul": [{}, {"out_dtype": "float32"}],
    "gemma_rmsnorm": [{}, {"eps": 0.0, "weight_offset": 0.0}],
    "gemma_rmsnorm_heads": [{"num_heads_q": 3, "num_heads_k": 1, "num_heads_v": 2}],
    "moe_route": [{}, {"top_k": 1}, {"top_k": 7, "shared_experts": 2}],
    "moe_sort": [{"num_experts": 8}, {"num_experts": 3}],
    "moe_combine": [{}, {"scale": 0.7, "out_dtype": "float16"}],
    "gemma_rmsnorm_rope_heads": [{**dict.fromkeys(INDEXED, 1), "num_heads_q": 2, "rotary_dim": 32}],
    "gemma_rmsnorm_quantize": QUANTIZED_NORM,
    "gemma_fused_add_rmsnorm_quantize": QUANTIZED_NORM,
}


@pytest.mark.parametrize("target", TARGETS, ids=lambda target: target.arch)
@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float32"])
@pytest.mark.parametrize("name", OPS)
def test_ops_give_the_specifications_bytes(name: str, dtype: str, target: Target) -> None:
    for given in PARAMS.get(name, [PARAMETERS.get(name, {})]):
        check(OPS[name].of(**given), operands(name, dtype), target)


@pytest.mark.parametrize("reload", [False, True])
@pytest.mark.parametrize(("rows", "cols"), [(1, 32), (4, 128), (2, 256), (1, 512)])
@pytest.mark.parametrize("name", ["gemma_rmsnorm", "gemma_fused_add_rmsnorm"])
def test_any_tile_gives_the_same_norm(name: str, rows: int, cols: int, reload: bool) -> None:
    x, residual, weight = normal((5, 300), "bfloat16"), normal((5, 300), "bfloat16", 2.0), normal((300,), "float32")
    arrays = [x, weight] if name == "gemma_rmsnorm" else [x, residual, weight]
    tile = Tile(rows, cols, masked=True, parts=-(-300 // cols), reload=reload)
    check_tile(OPS[name].of(), arrays, tile, programs=-(-5 // rows))


@pytest.mark.parametrize(("rows", "cols"), [(1, 32), (8, 128), (2, 1024)])
@pytest.mark.parametrize("name", ["swiglu_oai", "swiglu_oai_quantize", "mxfp8_quantize", "mxfp8_dequantize"])
def test_any_tile_gives_the_same_elements(name: str, rows: int, cols: int) -> None:
    x = normal((5, 2 * 1056), "bfloat16", 3.0)
    arrays = {"gate_up": [x], "x": [x[:, :1056]], "values": [*random_bytes((5, 1056))]}[next(iter(OPS[name].inputs))]
    check_tile(OPS[name].of(), arrays, Tile(rows, cols, masked=True), programs=-(-5 // rows) * -(-1056 // cols))


def check_tile(op: Op, arrays: list[np.ndarray], tile: Tile, programs: int) -> None:
    inputs = by_name(op, arrays)
    plan = planned(op, inputs)
    (one,) = plan.launches
    forced = dataclasses.replace(one, grid=(programs,), constants={**one.constants, "TILE": tile})
    results = interpreted(op, inputs, dataclasses.replace(plan, launches=(forced,)))
    assert_same_bytes(results, [*op.reference(inputs).values()])
