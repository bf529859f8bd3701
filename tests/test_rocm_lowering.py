"""JAX programs lowered for AMD GPUs carry the right machine code, on a machine without one.

Each workaround for jax-triton has a check, run twice: with the workaround it passes, with upstream's own way in its
place it fails as the workaround's comment describes. If the second run fails, upstream has repaired the defect: remove
the workaround.
"""

from __future__ import annotations

import functools
import importlib.util
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import jaxlib.gpu_triton
import pytest
import rocm_lowering as rocm
import triton
import triton.language as tl
from jax.extend.core import Primitive
from jax.interpreters import mlir

from m3ops_jax import _triton_compat as compat
from m3ops_jax._wire import decode, encode

WAVE = {"gfx942": 64, "gfx950": 64, "gfx1100": 32, "gfx1201": 32, "gfx1250": 32}
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


# What each workaround is for: with it its check passes, and with upstream's own way in its place it fails.


def check_num_ctas() -> None:
    lower()


def check_named_target() -> None:
    for arch in ("gfx942", "gfx950"):  # two of them: a machine may have one
        assert f'--{arch}"' in only_call(lower(arch)).assembly


def check_waves_of_32() -> None:
    for arch in ("gfx1100", "gfx1250"):
        call = only_call(lower(arch))
        assert f".max_flat_workgroup_size: {call.threads}\n" in call.assembly


def check_embedded_code() -> None:
    call = only_call(lower())
    assert call.image.startswith(b"\x7fELF"), call.source
    assert not Path(call.source).exists()


def upstreams_target(triton_lib: Any, request: Any, num_ctas: int) -> Any:
    return triton_lib.make_hip_target(request, num_ctas)


# The check, what takes the place of a name in m3ops_jax._triton_compat, and how the check then fails.
WORKAROUNDS: dict[str, tuple[Callable[[], None], Callable[..., Any], type[Exception], str]] = {
    "_WithNumCtas": (check_num_ctas, lambda backend: backend, KeyError, "num_ctas"),
    "_hip_target": (check_named_target, upstreams_target, Exception, "."),  # there is no device, or another one
    "_with_launchers_warps": (check_waves_of_32, lambda warp, fields: fields, AssertionError, "size: 256"),
    "_with_embedded_code": (check_embedded_code, lambda fields: fields, AssertionError, "[0-9a-f]{64}"),
    "_kept": (check_embedded_code, lambda compiled: compiled, AssertionError, "tmp"),
}


@pytest.mark.parametrize("name", WORKAROUNDS)
def test_worked_around(name: str) -> None:
    check, *_ = WORKAROUNDS[name]
    check()


@pytest.mark.parametrize("name", WORKAROUNDS)
def test_is_still_needed(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    check, upstreams, error, message = WORKAROUNDS[name]
    monkeypatch.setattr(compat, name, upstreams)
    with pytest.raises(error, match=message):
        check()


def python(code: str, *arguments: str, **environment: str) -> str:
    """What code prints in a new process."""
    env = os.environ | {"JAX_PLATFORMS": "cpu"} | environment
    root = Path(compat.__file__).parent.parent
    command = [sys.executable, "-c", code, *arguments]
    done = subprocess.run(command, env=env, cwd=root, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.mark.parametrize(
    ("statement", "kept"), [("from m3ops_jax import _triton_compat as c; c.load()", True), ("import jax_triton", False)]
)
def test_the_cache_folder_is_kept_which_upstream_forgets(statement: str, kept: bool, tmp_path: Path) -> None:
    code = f"import os; {statement}; print(os.environ.get('TRITON_CACHE_DIR'))"
    assert python(code, TRITON_CACHE_DIR=str(tmp_path)) == str(tmp_path if kept else None)


# Lowers an op in four threads, the first time that anything of Triton is asked for, and prints how many could; with an
# argument in upstream's way.
THREADS = """
import sys, threading
sys.path.append("tests")
import jax
import rocm_lowering
import m3ops_jax
from m3ops_jax import _triton_compat
rocm_lowering.install_stub()
assert "torch" not in sys.modules
if sys.argv[1:]:
    _triton_compat._load_torch = lambda: None

def lower():
    x = jax.ShapeDtypeStruct((8, 64), "float32")
    with m3ops_jax.compile_for("gfx950"):
        jax.jit(lambda x: m3ops_jax.mxfp8_quantize(x)).trace(x).lower(lowering_platforms=("rocm",))
    done.append(True)

done = []
threading.excepthook = lambda args: None
threads = [threading.Thread(target=lower) for _ in range(4)]
for thread in threads: thread.start()
for thread in threads: thread.join()
print(len(done))
"""


@pytest.mark.skipif(not importlib.util.find_spec("torch"), reason="needs torch")
def test_the_first_lowerings_may_be_in_several_threads() -> None:
    assert python(THREADS) == "4"
    assert int(python(THREADS, "upstream")) < 4


def test_without_a_plugin_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(jaxlib.gpu_triton, "TritonKernel")
    with pytest.raises(ImportError, match=r"needs JAX's GPU plugin.*: pip install --no-deps jax-cuda13-plugin==\d"):
        lower()


# Properties of what is lowered.


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


def test_code_outlives_the_temporary_file_of_jax_triton() -> None:
    """jax-triton keeps the path of what it has compiled; what cleans temporary folders may come before it is used."""
    from jax_triton import triton_lib

    first = only_call(lower("gfx950"))
    for path in Path(triton_lib._HSACO_TMPDIR.name).iterdir():
        path.unlink()
    jax.clear_caches()
    assert only_call(lower("gfx950")).image == first.image != b""


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
    assert encode(decode(message)) == message
