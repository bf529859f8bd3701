"""JAX programs lowered for AMD GPUs carry the right machine code, on a machine without one.

Each mend of jax-triton has a check, run twice: with the mend it passes, without it it fails in the way that its
comment describes. If the second run fails, upstream has repaired the defect: remove the mend.
"""

from __future__ import annotations

import functools
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import pytest
import rocm_lowering as rocm
import triton
import triton.language as tl
from jax.extend.core import Primitive
from jax.interpreters import mlir

from m3ops_jax import _triton_compat as compat

WAVE = {"gfx942": 64, "gfx950": 64, "gfx1100": 32, "gfx1201": 32}
ROWS, COLUMNS = 6, 96


@triton.jit
def _scale_kernel(
    x_ptr,  # [num_rows, N]
    num_rows,
    offset,
    out_ptr,  # [num_rows, N]
    LAYOUT: tl.constexpr,  # ((row stride, column stride),)
    N: tl.constexpr,
    BLOCK: tl.constexpr,
    FACTOR: tl.constexpr,
    MODE: tl.constexpr,
    ROUND: tl.constexpr,
):
    tl.static_assert(LAYOUT[0][1] == 1)
    tl.static_assert(ROUND is None)
    row = tl.program_id(0).to(tl.int64)
    columns = tl.arange(0, BLOCK)
    mask = (columns < N) & (row < num_rows)
    x = tl.load(x_ptr + row * LAYOUT[0][0] + columns * LAYOUT[0][1], mask=mask)
    if MODE == "scale":
        x = x * FACTOR
    tl.store(out_ptr + row * N + columns, x + offset, mask=mask)


@triton.jit
def _row_sum_kernel(x_ptr, out_ptr, BLOCK: tl.constexpr):
    row = tl.program_id(0)
    tl.store(out_ptr + row, tl.sum(tl.load(x_ptr + row * BLOCK + tl.arange(0, BLOCK))))


scale_p = Primitive("m3ops_test_scale")
scale_p.def_abstract_eval(lambda x, **_: jax.core.ShapedArray(x.shape, x.dtype))
row_sum_p = Primitive("m3ops_test_row_sum")
row_sum_p.def_abstract_eval(lambda x, **_: jax.core.ShapedArray(x.shape[:1], x.dtype))


def _launch(x: jax.Array, *, num_warps: int, target: str | None) -> Any:
    rows, columns = x.shape
    return compat.triton_call(
        x,
        rows,
        -1.5,
        kernel=_scale_kernel,
        out_type=jax.typeof(x),
        grid=(rows,),
        num_warps=num_warps,
        target=target,
        LAYOUT=((columns, 1),),
        N=columns,
        BLOCK=128,
        FACTOR=2.5,
        MODE="scale",
        ROUND=None,
    )


def _launch_row_sum(x: jax.Array, *, target: str) -> Any:
    rows, columns = x.shape
    out = jax.ShapeDtypeStruct((rows,), x.dtype)
    return compat.triton_call(x, kernel=_row_sum_kernel, out_type=out, grid=rows, target=target, BLOCK=columns)


for _platform in ("cuda", "rocm"):
    mlir.register_lowering(scale_p, mlir.lower_fun(_launch, multiple_results=False), platform=_platform)
    mlir.register_lowering(row_sum_p, mlir.lower_fun(_launch_row_sum, multiple_results=False), platform=_platform)


def scale(x: jax.Array, *, target: Any = None, num_warps: int = 4) -> Any:
    return scale_p.bind(x, num_warps=num_warps, target=target)


@pytest.fixture(scope="module", autouse=True)
def _plugin() -> None:
    rocm.require_plugin()


@pytest.fixture(autouse=True)
def _forget_compilations() -> None:
    forget_compilations()


def forget_compilations() -> None:
    """jax-triton keeps what it compiled in the kernel, and jit what it lowered: each test starts from nothing."""
    vars(_scale_kernel).pop("_jT_kernel_cache", None)
    jax.clear_caches()


def lower(arch: str = "gfx950", **params: Any) -> jax.stages.Lowered:
    fn = functools.partial(scale, **params)
    return rocm.lower_for_rocm(fn, jax.ShapeDtypeStruct((ROWS, COLUMNS), jnp.bfloat16), arch=arch)


def only_call(program: Any) -> rocm.KernelCall:
    (call,) = rocm.kernel_calls(program)
    return call


@pytest.mark.parametrize("arch", WAVE)
def test_launch_record(arch: str) -> None:
    """Everything that jaxlib is told about the launch is what the kernel was compiled for."""
    call = only_call(lower(arch))
    assert call.name == "_scale_kernel"
    assert call.grid == (ROWS, 1, 1)
    assert call.threads == 4 * WAVE[arch]
    assert call.shared_bytes == 0
    assert call.arguments == (
        rocm.Argument("array", buffer=0, divisibility=16),
        rocm.Argument("i32", ROWS),
        rocm.Argument("f32", -1.5),
        rocm.Argument("array", buffer=1, divisibility=16),
    )
    assert f'amdgcn-amd-amdhsa--{arch}"' in call.assembly
    assert "_scale_kernel:" in call.assembly


@pytest.mark.parametrize("arch", WAVE)
def test_code_object_is_the_assembly(arch: str) -> None:
    """The assembly text that goes with a call, run by an interpreter, is what the call's code object would do."""
    call = only_call(lower(arch))
    assert rocm.is_assembled_from(call.image, call.assembly, arch)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("s_endpgm", "s_nop 0\n\ts_endpgm"),  # an instruction more
        (".amdhsa_group_segment_fixed_size 0", ".amdhsa_group_segment_fixed_size 256"),  # another kernel descriptor
        (".max_flat_workgroup_size: 256", ".max_flat_workgroup_size: 128"),  # other metadata
    ],
)
def test_other_assembly_is_noticed(old: str, new: str) -> None:
    call = only_call(lower("gfx950"))
    assert old in call.assembly
    assert not rocm.is_assembled_from(call.image, call.assembly.replace(old, new, 1), "gfx950")


def test_shared_memory_and_order_of_calls() -> None:
    """A sum over several waves goes through shared memory; two kernels of a program come out in its order."""

    def program(x: jax.Array, *, target: str) -> Any:
        return row_sum_p.bind(scale(x, target=target), target=target)

    x = jax.ShapeDtypeStruct((ROWS, 1024), jnp.float32)
    first, second = rocm.kernel_calls(rocm.lower_for_rocm(program, x, arch="gfx942"))
    assert (first.name, second.name) == ("_scale_kernel", "_row_sum_kernel")
    assert (first.shared_bytes, second.shared_bytes) == (0, 4 * 4)  # one float32 a wave
    assert rocm.is_assembled_from(second.image, second.assembly, "gfx942")


def test_same_machine_code_as_triton() -> None:
    """jax-triton's stages, run by hand, give the code object of triton.compile for the same specialization."""
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    call = only_call(lower("gfx950"))
    constants = {
        "LAYOUT": ((COLUMNS, 1),), "N": COLUMNS, "BLOCK": 128, "FACTOR": 2.5, "MODE": "scale", "ROUND": None
    }  # fmt: skip
    types = {"x_ptr": "*bf16", "num_rows": "i32", "offset": "fp32", "out_ptr": "*bf16"}
    signature = types | dict.fromkeys(constants, "constexpr")
    aligned = {(i,): [["tt.divisibility", 16]] for i, kind in enumerate(types.values()) if kind[0] == "*"}
    compiled = triton.compile(
        ASTSource(_scale_kernel, signature, constants, aligned),
        target=GPUTarget("hip", "gfx950", 64),
        options={"num_warps": 4, "num_stages": 3},
    )
    assert rocm.machine_code(call.image) == rocm.machine_code(compiled.asm["hsaco"])


# What each mend is for. A check fails without its mend.


def check_num_ctas() -> None:
    lower()


def check_named_target() -> None:
    for arch in ("gfx942", "gfx950"):  # two of them: a machine may have one
        assert f'--{arch}"' in only_call(lower(arch)).assembly


def check_wave32() -> None:
    call = only_call(lower("gfx1100"))
    assert f".max_flat_workgroup_size: {call.threads}\n" in call.assembly


def check_embedded_code() -> None:
    call = only_call(lower())
    assert call.image.startswith(b"\x7fELF"), call.source
    assert not Path(call.source).exists()


CHECKS: dict[str, tuple[Callable[[], None], type[Exception], str]] = {
    "num_ctas": (check_num_ctas, KeyError, "num_ctas"),
    "named_target": (check_named_target, Exception, "."),  # whatever there is on the machine: no device, or another
    "wave32": (check_wave32, AssertionError, "max_flat_workgroup_size: 256"),
    "embedded_code": (check_embedded_code, AssertionError, "tmp"),
}


@pytest.mark.parametrize("mend", CHECKS)
def test_mended(mend: str) -> None:
    check, _, _ = CHECKS[mend]
    check()


@pytest.mark.parametrize("mend", CHECKS)
def test_mend_is_still_needed(mend: str) -> None:
    check, error, message = CHECKS[mend]
    with compat.without(mend), pytest.raises(error, match=message):
        check()


def _cache_dir_after_load(tmp_path: Path, *off: str) -> str:
    code = f"""
import os
from m3ops_jax import _triton_compat as compat
with compat.without(*{off!r}):
    compat.load()
print(os.environ.get("TRITON_CACHE_DIR"))
"""
    environment = os.environ | {"TRITON_CACHE_DIR": str(tmp_path), "JAX_PLATFORMS": "cpu"}
    root = Path(compat.__file__).parent.parent
    command = [sys.executable, "-c", code]
    return subprocess.run(command, env=environment, cwd=root, capture_output=True, text=True, check=True).stdout.strip()


def test_cache_dir_is_kept(tmp_path: Path) -> None:
    assert _cache_dir_after_load(tmp_path) == str(tmp_path)


def test_cache_dir_mend_is_still_needed(tmp_path: Path) -> None:
    assert _cache_dir_after_load(tmp_path, "cache_dir") == "None"


def test_every_mend_is_tested() -> None:
    assert set(CHECKS) | {"cache_dir"} == compat.MENDS


# Properties of the mends.


def test_export_carries_the_code() -> None:
    """An exported program holds the code object itself, and nothing of this machine's temporary files."""
    x = jax.ShapeDtypeStruct((ROWS, COLUMNS), jnp.bfloat16)
    unchecked = [jax.export.DisabledSafetyCheck.custom_call(rocm.CUSTOM_CALL)]
    fn = jax.jit(functools.partial(scale, target="gfx950"))
    exported = jax.export.export(fn, platforms=["rocm"], disabled_checks=unchecked)(x)
    call = only_call(exported)
    assert call == only_call(lower("gfx950"))
    assert rocm.is_assembled_from(call.image, call.assembly, "gfx950")


def test_lowering_is_reproducible() -> None:
    """JAX's persistent cache can only hit if the same program lowers to the same text."""
    first = lower("gfx950").as_text()
    forget_compilations()
    assert lower("gfx950").as_text() == first


def test_target_is_part_of_the_cache_key() -> None:
    assert only_call(lower("gfx942")).image != only_call(lower("gfx950")).image


@pytest.mark.parametrize(("num_warps", "threads"), [(1, 64), (2, 64), (8, 256)])
def test_wave32_block(num_warps: int, threads: int) -> None:
    """One wave of 32 threads is less than jaxlib can launch, so the smallest block is compiled with two."""
    call = only_call(lower("gfx1100", num_warps=num_warps))
    assert call.threads == threads
    assert f".max_flat_workgroup_size: {threads}\n" in call.assembly


def test_cuda_target_needs_no_device() -> None:
    x = jax.ShapeDtypeStruct((ROWS, COLUMNS), jnp.bfloat16)
    (call,) = rocm.kernel_calls(rocm.lower_for_cuda(scale, x, arch="sm_90"), platform="cuda")
    assert ".target sm_90a" in call.source
    assert call.threads == 128


def test_wrong_targets_are_refused() -> None:
    with pytest.raises(ValueError, match="such as 'gfx950' or 'sm_90', got 'mi300x'"):
        lower("mi300x")
    with pytest.raises(ValueError, match="this program is lowered for amd, not for target='sm_90'"):
        lower("sm_90")


@pytest.mark.parametrize(
    "message",
    [b"", b"\x08\x96\x01", b"\x10\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", b"\x1a\x02hi\x25\x00\x00\xc0\x3f"],
)
def test_wire_format_round_trip(message: bytes) -> None:
    """Values from the protocol buffer encoding guide: 150, int32 -1, "hi" and a float."""
    assert compat.encode(compat.decode(message)) == message
