"""Programs that leave the process that traced them: jax.export, and JAX's persistent compilation cache.

Exports are made for platforms that this machine need not have. An artifact then holds the machine code itself, and its
CPU part runs, with the same bytes, in a process that has never seen the op's Python function called.
"""

from __future__ import annotations

import functools
import hashlib
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import chex
import jax
import numpy as np
import pytest
import rocm_lowering as rocm
from compare import assert_same_bytes
from inputs import call_of, jax_function
from jax.sharding import AbstractMesh, AxisType, NamedSharding
from jax.sharding import PartitionSpec as P
from specification import reference
from test_jax import ARGUMENTS, every_op, every_op_of_rows

import m3ops_jax
from m3ops.ops import OPS
from m3ops.testing.arrays import normal

UNCHECKED = [jax.export.DisabledSafetyCheck.custom_call(rocm.CUSTOM_CALL)]
ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module", autouse=True)
def _plugin() -> None:
    rocm.require_plugin()


def export(name: str, *avals: Any, platforms: list[str], archs: tuple[str, ...]) -> bytearray:
    with m3ops_jax.compile_for(*archs):
        program = jax.jit(jax_function(name))
        exported = jax.export.export(program, platforms=platforms, disabled_checks=UNCHECKED)(*avals)
    return exported.serialize()


def python(code: str, *arguments: object, **environment: str) -> str:
    """Runs code in a new process with one CPU device and returns what it printed."""
    command = [sys.executable, "-W", "ignore", "-c", code, *map(str, arguments)]
    env = os.environ | {"JAX_PLATFORMS": "cpu", "PYTHONPATH": str(ROOT)} | environment
    done = subprocess.run(command, env=env, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def calls_of(name: str, artifact: bytearray, platform: str = "rocm") -> list[rocm.KernelCall]:
    """The kernel calls of a program of one op, of most only one."""
    calls = rocm.kernel_calls(jax.export.deserialize(artifact), platform)
    several = {"swiglu_oai_fake_quant": 2, "mxfp8_matmul": 2, "mxfp8_grouped_matmul": 2, "mxfp8_k_grouped_matmul": 2}
    several["moe_scatter_quantize"] = 3
    assert len(calls) == several.get(name, 1)
    return calls


MACHINES = {"gfx942": 0x4C, "gfx950": 0x4F}
"""In the flags of an ELF header: EF_AMDGPU_MACH of LLVM's AMDGPUUsage."""


@every_op
@pytest.mark.parametrize("arch", MACHINES)
def test_for_rocm(name: str, arch: str) -> None:
    artifact = export(name, *ARGUMENTS[name], platforms=["rocm"], archs=(arch,))
    for call in calls_of(name, artifact):
        assert call.image[0x30] == MACHINES[arch]
        assert rocm.is_assembled_from(call.image, call.assembly, arch)


@every_op
def test_for_cuda(name: str) -> None:
    artifact = export(name, *ARGUMENTS[name], platforms=["cuda"], archs=("sm_90",))
    for call in calls_of(name, artifact, "cuda"):
        assert ".target sm_90a" in call.source
        assert f".entry {call.name}(" in call.source
        # Nothing is left for ptxas to contract: it may where no rounding is named.
        assert not re.findall(r"\b(?:add|sub|mul)\.f32.*", call.source)


def symbolic(name: str) -> list[jax.ShapeDtypeStruct]:
    """Arguments with a number of rows that only the caller of a program knows."""
    (rows,) = jax.export.symbolic_shape("rows")
    return [jax.ShapeDtypeStruct((rows, a.shape[-1]) if a.ndim == 3 else a.shape, a.dtype) for a in ARGUMENTS[name]]


@every_op_of_rows
def test_a_symbolic_number_of_rows(name: str) -> None:
    program = jax.export.export(jax.jit(jax_function(name)), platforms=["cpu"])(*symbolic(name))
    arrays = [a[0] if a.ndim == 3 else a for a in ARGUMENTS[name]]
    chex.assert_trees_all_equal(program.call(*arrays), jax_function(name)(*arrays))
    if OPS[name].differentiable and not call_of(name).derivative:
        return
    if OPS[name].differentiable:
        loaded = jax.export.deserialize(program.serialize(vjp_order=1))
        results, pull = jax.vjp(loaded.call, *arrays)
        grads = jax.tree.map(lambda r: r if "float" in r.dtype.name else np.zeros(r.shape, jax.dtypes.float0), results)
        chex.assert_trees_all_equal(pull(grads), jax.vjp(jax_function(name), *arrays)[1](grads))


def test_gradients_of_a_symbolic_number_of_rows() -> None:
    """Which order a sum over rows has follows from their number: there are 32, 64 and 2048 partial sums here."""

    def gradients(x: jax.Array, weight: jax.Array, grad: jax.Array) -> tuple[jax.Array, ...]:
        return jax.vjp(m3ops_jax.gemma_rmsnorm, x, weight)[1](grad)

    (rows,) = jax.export.symbolic_shape("rows")
    avals = [jax.ShapeDtypeStruct(shape, np.float32) for shape in ((rows, 20), (20,), (rows, 20))]
    program = jax.export.export(jax.jit(gradients), platforms=["cpu"])(*avals)
    for number in (1, 257, 8200):
        x, weight = normal((number, 20), "float32"), normal((20,), "float32")
        got = program.call(x, weight, x[::-1])
        assert_same_bytes([*map(np.asarray, got)], reference("gemma_rmsnorm_backward", x, weight, x[::-1]))


def test_gradients_of_the_router_for_a_symbolic_number_of_rows() -> None:
    """Chains that end at -0 too: the program adds what a number of rows would not."""

    def gradients(x: jax.Array, w: jax.Array, grad: jax.Array) -> tuple[jax.Array, ...]:
        return jax.vjp(m3ops_jax.moe_logits, x, w)[1](grad)

    (rows,) = jax.export.symbolic_shape("rows")
    avals = [jax.ShapeDtypeStruct(shape, np.float32) for shape in ((rows, 20), (12, 20), (rows, 12))]
    program = jax.export.export(jax.jit(gradients), platforms=["cpu"])(*avals)
    for number in (1, 127, 128, 129, 256, 300):
        x, w, grad = normal((number, 20), "float32"), normal((12, 20), "float32"), normal((number, 12), "float32")
        x[:, :5], grad[:, :6] = 1e-30, -1e-30
        assert_same_bytes([*map(np.asarray, program.call(x, w, grad))], reference("moe_logits_backward", x, w, grad))


@pytest.mark.parametrize(("platform", "arch"), [("cuda", "sm_90"), ("rocm", "gfx950")])
def test_a_kernel_needs_a_number_of_rows(platform: str, arch: str) -> None:
    with pytest.raises(ValueError, match="needs a shape without symbolic sizes: a kernel is launched for a number"):
        export("swiglu_oai", *symbolic("swiglu_oai"), platforms=[platform], archs=(arch,))


OF_KNOWN_SIZE = {
    "mxfp8_grouped_matmul": ("x_values", "x_scales"),
    "gemma_rmsnorm_rope_kv_insert": ("qkv", "slot_mapping", "index_slot_mapping"),
}
"""Which arguments of these have a row each."""


@pytest.mark.parametrize("name", [name for name, op in OPS.items() if not op.any_size])
def test_rows_that_are_looked_up_need_a_number(name: str) -> None:
    (rows,) = jax.export.symbolic_shape("rows")
    avals = [
        jax.ShapeDtypeStruct((rows, *a.shape[1:]) if given in OF_KNOWN_SIZE[name] else a.shape, a.dtype)
        for given, a in zip(OPS[name].inputs, ARGUMENTS[name], strict=False)
    ]
    with pytest.raises(ValueError, match="needs a shape without symbolic sizes: its rows are looked up by their"):
        jax.export.export(jax.jit(jax_function(name)), platforms=["cpu"])(*avals)


def test_one_program_for_both_vendors() -> None:
    with m3ops_jax.compile_for("sm_90", "gfx950"):
        traced = jax.jit(m3ops_jax.swiglu_oai).trace(*ARGUMENTS["swiglu_oai"])
        lowered = traced.lower(lowering_platforms=("cuda", "rocm"))
    assert sorted(bool(call.image) for call in rocm.kernel_calls(lowered)) == [False, True]


def test_wrong_architectures_are_refused() -> None:
    with pytest.raises(ValueError, match="such as 'gfx950' or 'sm_90', got 'mi300x'"):
        m3ops_jax.compile_for("mi300x")
    with pytest.raises(ValueError, match="at most one GPU of each vendor, got gfx942, gfx950"):
        m3ops_jax.compile_for("gfx942", "gfx950")
    with m3ops_jax.compile_for("sm_90"):
        traced = jax.jit(m3ops_jax.swiglu_oai).trace(*ARGUMENTS["swiglu_oai"])
    with pytest.raises(ValueError, match=r"lowering for rocm, but compile_for\(\) names only sm_90"):
        traced.lower(lowering_platforms=("rocm",))


# Prints ELF's machine, AMD's number of the GPU and the digest of the code object in each program, knowing only JAX.
READ = """
import hashlib, pathlib, struct, sys, zlib
import jax
from jax.interpreters import mlir
from jaxlib.mlir import ir

def read(operation):
    if operation.name == "stablehlo.custom_call":
        record = zlib.decompress(operation.attributes["mhlo.backend_config"]["opaque"].value_bytes)
        elf = record[record.index(b"\\x7fELF"):]
        (machine,), (flags,) = struct.unpack_from("<H", elf, 0x12), struct.unpack_from("<I", elf, 0x30)
        (table,), (size, count) = struct.unpack_from("<Q", elf, 0x28), struct.unpack_from("<HH", elf, 0x3A)
        print(machine, flags & 0xFF, hashlib.sha256(elf[:table + size * count]).hexdigest())
    return ir.WalkResult.ADVANCE

for path in map(pathlib.Path, sys.argv[1:]):
    program = jax.export.deserialize(bytearray(path.read_bytes()))
    with mlir.make_ir_context():
        ir.Module.parse(program.mlir_module()).operation.walk(read)
assert not [name for name in sys.modules if name.startswith("m3ops")]
"""


def test_the_code_object_is_found_without_m3ops(tmp_path: Path) -> None:
    digests = []
    for arch in MACHINES:
        artifact = export("swiglu_oai", *ARGUMENTS["swiglu_oai"], platforms=["rocm"], archs=(arch,))
        (tmp_path / arch).write_bytes(artifact)
        (call,) = rocm.kernel_calls(jax.export.deserialize(artifact))
        digests.append(hashlib.sha256(call.image).hexdigest())
    said = python(READ, *(tmp_path / arch for arch in MACHINES)).splitlines()
    assert said == [f"224 {number} {digest}" for number, digest in zip(MACHINES.values(), digests, strict=True)]


LOAD = """
import pathlib, sys
import jax, numpy as np
import m3ops_jax  # for the name of MXFP8
for folder in map(pathlib.Path, sys.argv[1:]):
    program = jax.export.deserialize(bytearray((folder / "program").read_bytes()))
    inputs = [jax.numpy.asarray(np.load(p).view(a.dtype)) for p, a in zip(sorted(folder.glob("in*")), program.in_avals)]
    for i, result in enumerate(jax.tree.leaves(program.call(*inputs))):
        np.save(folder / f"out{i}.npy", np.asarray(result).view(np.uint8))
    print(folder.name, *program.platforms, type(program.call(*inputs)).__name__)
"""


def test_for_every_platform_and_called_elsewhere(tmp_path: Path) -> None:
    for name in OPS:
        folder = tmp_path / name
        folder.mkdir()
        artifact = export(name, *ARGUMENTS[name], platforms=["cpu", "cuda", "rocm"], archs=("sm_90", "gfx950"))
        (folder / "program").write_bytes(artifact)
        for i, array in enumerate(ARGUMENTS[name]):
            np.save(folder / f"in{i:02}.npy", array.view(f"uint{8 * array.itemsize}"))
    said = python(LOAD, *(tmp_path / name for name in OPS)).splitlines()
    for name, line in zip(OPS, said, strict=True):
        expected = jax_function(name)(*ARGUMENTS[name])
        assert line.split() == [name, "cpu", "cuda", "rocm", type(expected).__name__]
        expected = [np.asarray(leaf).view(np.uint8) for leaf in jax.tree.leaves(expected)]
        assert_same_bytes([np.load(tmp_path / name / f"out{i}.npy") for i in range(len(expected))], expected)


def test_the_cpu_needs_no_disabled_check() -> None:
    jitted = jax.jit(m3ops_jax.swiglu_oai_quantize)
    (x,) = ARGUMENTS["swiglu_oai_quantize"]
    assert jax.export.export(jitted, platforms=["cpu"])(x).serialize()
    with m3ops_jax.compile_for("sm_90"), pytest.raises(ValueError, match=rocm.CUSTOM_CALL):
        jax.export.export(jitted, platforms=["cuda"])(x)


@pytest.mark.parametrize(("platform", "arch"), [("cuda", "sm_90"), ("rocm", "gfx950")])
def test_for_more_devices_than_there_are(platform: str, arch: str) -> None:
    """On an explicit mesh, which may be abstract, each device launches the kernel for the rows that it holds."""
    mesh = AbstractMesh((4, 2), ("a", "b"), axis_types=(AxisType.Explicit, AxisType.Explicit))
    x = jax.ShapeDtypeStruct((64, 32, 128), np.dtype("bfloat16"), sharding=NamedSharding(mesh, P("a", "b")))
    program = jax.export.deserialize(export("swiglu_oai_quantize", x, platforms=[platform], archs=(arch,)))
    (call,) = rocm.kernel_calls(program, platform)
    assert program.nr_devices == 8
    assert rocm.Argument("i32", 64 * 32 // 8) in call.arguments


@pytest.mark.parametrize(("platform", "arch"), [("cuda", "sm_90"), ("rocm", "gfx950")])
def test_on_an_automatic_mesh_the_kernel_waits_until_xla_has_divided(platform: str, arch: str) -> None:
    """There the program first holds a request to divide by rows, the same for the kernel as for the specification."""
    devices = jax.devices("cpu")
    mesh = jax.make_mesh((len(devices),), ("a",), axis_types=(AxisType.Auto,), devices=devices)
    x = jax.ShapeDtypeStruct((64, 128), np.dtype("bfloat16"), sharding=NamedSharding(mesh, P("a")))
    with m3ops_jax.compile_for(arch):
        traced = jax.jit(m3ops_jax.swiglu_oai_quantize).trace(x)
    kernel, specification = (
        re.sub(r'backend_config = "\d+"', "", traced.lower(lowering_platforms=(name,)).as_text())
        for name in (platform, "cpu")
    )
    assert "@CustomSPMDPartitioning" in kernel
    assert kernel == specification


def test_a_program_for_an_automatic_mesh_is_not_exported() -> None:
    """Its custom_partitioning is a function of this process; a shard_map over all axes has none."""
    mesh = jax.make_mesh((2, 2), ("a", "b"), axis_types=(AxisType.Auto,) * 2, devices=jax.devices("cpu")[:4])
    x = jax.ShapeDtypeStruct((64, 128), np.dtype("bfloat16"), sharding=NamedSharding(mesh, P("a")))

    def mapped(*names: str) -> Any:
        rows = P(names)
        return jax.shard_map(
            m3ops_jax.swiglu_oai_quantize, mesh=mesh, in_specs=rows, out_specs=rows, axis_names={*names}
        )

    message = "swiglu_oai_quantize: a program whose sharding .* cannot be exported; .*Explicit, or .*shard_map"
    for op in (m3ops_jax.swiglu_oai_quantize, mapped("a")):
        with pytest.raises(NotImplementedError, match=message):
            jax.export.export(jax.jit(op), platforms=["cpu"])(x)
    assert jax.export.export(jax.jit(mapped("a", "b")), platforms=["cpu"])(x).nr_devices == 4


# Prints how often compilations of ops were not found in the cache and were: first of two ops alone and on an explicit
# mesh of 8 devices, then of one on an automatic mesh, left to XLA and in a shard_map.
COMPILE = """
import jax, numpy as np
from jax.sharding import AxisType, NamedSharding, PartitionSpec
import m3ops_jax
jax.config.update("jax_num_cpu_devices", 8)
events = []
jax.monitoring.register_event_listener(lambda event, **_: events.append(event))
x = jax.ShapeDtypeStruct((8, 128), np.dtype("bfloat16"))
meshes = [jax.make_mesh((8,), ("a",), axis_types=(kind,)) for kind in (AxisType.Explicit, AxisType.Auto)]
rows = PartitionSpec("a")
explicit, automatic = (x.update(sharding=NamedSharding(mesh, rows)) for mesh in meshes)
weight = jax.ShapeDtypeStruct((128,), np.dtype("float32"))
for aval in (x, explicit):
    jax.jit(m3ops_jax.swiglu_oai_quantize).lower(aval).compile()
    jax.jit(m3ops_jax.gemma_fused_add_rmsnorm).lower(aval, aval, weight).compile()
print(*(sum(event.endswith(kind) for event in events) for kind in ("cache_misses", "cache_hits")))
events.clear()
jax.jit(m3ops_jax.swiglu_oai_quantize).lower(automatic).compile()
divided = jax.shard_map(m3ops_jax.swiglu_oai_quantize, mesh=meshes[1], in_specs=rows, out_specs=rows)
jax.jit(divided).lower(automatic).compile()
print(*(sum(event.endswith(kind) for event in events) for kind in ("cache_misses", "cache_hits")))
"""


@pytest.mark.parametrize("address", [True, False], ids=["by address", "without"])
def test_the_compilation_cache_is_hit(tmp_path: Path, address: bool) -> None:
    """By default JAX's key has the address that a ``custom_partitioning`` is named by, another in each process."""
    cache = {"JAX_COMPILATION_CACHE_DIR": str(tmp_path), "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0"}
    cache["JAX_REMOVE_CUSTOM_PARTITIONING_PTR_FROM_CACHE_KEY"] = str(not address)
    assert python(COMPILE, **cache).splitlines() == ["4 0", "2 0"]
    assert python(COMPILE, **cache).splitlines() == ["0 4", "1 1" if address else "0 2"]


def test_programs_that_xla_divides_tell_what_they_compute() -> None:
    """An address may be another function's in the next process: the cache must not go by that alone."""
    mesh = jax.make_mesh((2,), ("a",), axis_types=(AxisType.Auto,), devices=jax.devices("cpu")[:2])
    x = jax.ShapeDtypeStruct((8, 128), np.dtype("bfloat16"), sharding=NamedSharding(mesh, P("a")))
    texts = []
    for alpha in (1.5, 2.0):
        lowered = jax.jit(functools.partial(m3ops_jax.swiglu_oai, alpha=alpha)).lower(x).as_text()
        without, addresses = re.subn(r'backend_config = "\d+"', "", lowered)
        assert addresses == 1
        texts.append(without)
    assert texts[0] != texts[1]


# What the cache goes by on a GPU: the lowered program, which holds the kernel's machine code.
LOWER = """
import hashlib, sys
import jax, numpy as np
sys.path.append("tests")
import rocm_lowering
import m3ops_jax
rocm_lowering.install_stub()
x = jax.ShapeDtypeStruct((8, 128), np.dtype("bfloat16"))
with m3ops_jax.compile_for("sm_90", "gfx950"):
    for platform in ("cuda", "rocm"):
        lowered = jax.jit(m3ops_jax.swiglu_oai_quantize).trace(x).lower(lowering_platforms=(platform,))
        print(hashlib.sha256(lowered.as_text().encode()).hexdigest())
"""


def test_two_processes_lower_to_the_same_program() -> None:
    first, second = python(LOWER), python(LOWER)
    assert len(set(first.split())) == 2
    assert first == second
