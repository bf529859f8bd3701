"""Lowers JAX programs for AMD GPUs on a machine that has none, and takes out what would be launched.

JAX needs the ROCm plugin's ``_triton.so`` to lower a Triton kernel, and that needs HIP. Lowering calls none of HIP's
functions, so :func:`install_stub` builds a library in which each of them reports that there is no device. The plugin
comes from the environment or from ``.cache/rocm-plugin``::

    pip install --no-deps --target .cache/rocm-plugin jax-rocm7-plugin==0.12.0

``make`` installs it there, and without it the tests fail, unless ``M3OPS_NO_ROCM_PLUGIN=1`` says to skip them. It is
kept out of the environment proper, and without its dependencies, because ``jax-rocm7-pjrt`` prints a traceback
at each import of JAX where there is no AMD GPU.
"""

from __future__ import annotations

import ctypes
import dataclasses
import functools
import hashlib
import importlib
import importlib.util
import os
import struct
import subprocess
import sys
import tempfile
import types
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import jaxlib.gpu_triton
import pytest
from jax.interpreters import mlir
from jaxlib.mlir import ir

from m3ops_jax import _wire

CACHE = Path(os.environ.get("M3OPS_CACHE_DIR", Path(__file__).parent.parent / ".cache"))
PLUGINS = ("jax_rocm10_plugin", "jax_rocm7_plugin")
CUSTOM_CALL = "triton_kernel_call_ffi"

_HIP_ERROR_NO_DEVICE = 100
# What jaxlib multiplies num_warps by when it launches: a fact of the platform, not of the device.
_LAUNCHER_WARP = {"cuda": 32, "rocm": 64}


class Elf:
    """The sections of a 64-bit little-endian ELF file."""

    def __init__(self, contents: bytes) -> None:
        """Reads the section table of a file's contents."""
        if contents[:6] != b"\x7fELF\x02\x01":
            raise ValueError(f"not a 64-bit little-endian ELF file: it starts with {contents[:6]!r}")
        (table,) = struct.unpack_from("<Q", contents, 0x28)
        size, count, names_index = struct.unpack_from("<HHH", contents, 0x3A)
        headers = [struct.unpack_from("<IIQQQQIIQQ", contents, table + i * size) for i in range(count)]
        names = contents[headers[names_index][4] :]
        self.sections: dict[str, bytes] = {}
        for name, kind, _, _, offset, length, *_ in headers:
            nobits = kind == 8
            self.sections[text_at(names, name)] = b"" if nobits else contents[offset : offset + length]

    def undefined_symbols(self, library: str) -> dict[str, list[str]]:
        """Returns the undefined symbols of a library whose name starts with ``library``, by symbol version."""
        symbols, strings = self.sections[".dynsym"], self.sections[".dynstr"]
        versions = {}
        for soname, index, version in self._needed_versions():
            if soname.startswith(library):
                versions[index] = version
        found: dict[str, list[str]] = {version: [] for version in versions.values()}
        for i, (index,) in enumerate(struct.iter_unpack("<H", self.sections[".gnu.version"])):
            name, _, _, section = struct.unpack_from("<IBBH", symbols, i * 24)
            if section == 0 and index in versions:
                found[versions[index]].append(text_at(strings, name))
        return found

    def soname(self, library: str) -> str:
        """Returns the full name of a needed library whose name starts with ``library``."""
        return next(soname for soname, _, _ in self._needed_versions() if soname.startswith(library))

    def _needed_versions(self) -> Iterator[tuple[str, int, str]]:
        """Yields (library, version index, version) from the version requirements."""
        needs, strings = self.sections[".gnu.version_r"], self.sections[".dynstr"]
        entry = 0
        while True:
            _, count, soname, first, following = struct.unpack_from("<HHIII", needs, entry)
            auxiliary = entry + first
            for _ in range(count):
                _, _, index, name, step = struct.unpack_from("<IHHII", needs, auxiliary)
                yield text_at(strings, soname), index, text_at(strings, name)
                auxiliary += step
            if not following:
                return
            entry += following


def text_at(strings: bytes, offset: int) -> str:
    """Reads a zero-terminated string."""
    return strings[offset : strings.index(b"\0", offset)].decode()


def require_plugin() -> None:
    """Prepares this process for lowering, or skips the test that asks where the environment says there is no plugin."""
    if os.environ.get("M3OPS_NO_ROCM_PLUGIN") == "1":
        pytest.skip("M3OPS_NO_ROCM_PLUGIN=1: without the plugin JAX cannot be lowered for AMD GPUs")
    install_stub()


@functools.cache
def install_stub() -> None:
    """Makes JAX able to lower Triton kernels for ROCm in this process; does nothing where it already is.

    Raises:
        ModuleNotFoundError: if the ROCm plugin is not installed.
        OSError: if the C compiler cannot be run or fails.
    """
    _record_assembly()
    if hasattr(jaxlib.gpu_triton, "TritonKernel"):
        return  # a plugin of either vendor is loaded: both write the same launch records
    if (CACHE / "rocm-plugin").is_dir():
        sys.path.append(str(CACHE / "rocm-plugin"))
    plugin = next((name for name in PLUGINS if importlib.util.find_spec(name)), None)
    if plugin is None:
        raise ModuleNotFoundError(
            f"no ROCm plugin of JAX: {PLUGINS[-1]} is neither installed nor in {CACHE}/rocm-plugin"
        )
    try:
        triton = importlib.import_module(f"{plugin}._triton")
    except ImportError:  # there is no libamdhip64; the loader takes one of the same name that is already in the process
        (directory,) = importlib.util.find_spec(plugin).submodule_search_locations  # type: ignore[union-attr, misc]
        ctypes.CDLL(str(_build_stub(Path(directory) / "_triton.so")), mode=ctypes.RTLD_GLOBAL)
        triton = importlib.import_module(f"{plugin}._triton")
    # jaxlib took what it could find when JAX was imported; this is what it does when it finds the plugin.
    for name in ("TritonKernelCall", "TritonAutotunedKernelCall", "TritonKernel", "create_array_parameter"):
        setattr(jaxlib.gpu_triton, name, getattr(triton, name))
    for name in ("create_scalar_parameter", "get_compute_capability", "get_arch_details"):
        setattr(jaxlib.gpu_triton, name, getattr(triton, name))


_assemblies: dict[str, str] = {}
"""The assembly text of each code object that this process has made, by the code object's SHA-256."""


def _record_assembly() -> None:
    """Makes Triton remember what it assembles: a lowered program holds the code object alone."""
    from triton.backends.amd.compiler import HIPBackend

    make = HIPBackend.make_hsaco

    def make_hsaco(assembly: str, *args: Any) -> bytes:
        image = bytes(make(assembly, *args))
        _assemblies[hashlib.sha256(image).hexdigest()] = assembly
        return image

    HIPBackend.make_hsaco = staticmethod(make_hsaco)


def _build_stub(plugin: Path) -> Path:
    """Compiles a HIP library without a device for the symbols that the plugin needs, and returns its path."""
    elf = Elf(plugin.read_bytes())
    soname, symbols = elf.soname("libamdhip64"), elf.undefined_symbols("libamdhip64")
    source = 'const char *hipGetErrorString(int error) { return "no ROCm device (stub)"; }\n'
    for name in sorted({name for names in symbols.values() for name in names} - {"hipGetErrorString"}):
        source += f"int {name}(void) {{ return {_HIP_ERROR_NO_DEVICE}; }}\n"
    # Versioned like the real library, or the loader warns about each symbol on stderr.
    script = "".join(f"{version} {{ global: {'; '.join(sorted(names))}; }};\n" for version, names in symbols.items())

    key = hashlib.sha256((soname + source + script).encode()).hexdigest()[:16]
    library = CACHE / "rocm-stub" / key / soname
    if not library.exists():
        library.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=library.parent) as scratch:
            code, versions, built = (Path(scratch) / name for name in ("stub.c", "stub.map", soname))
            code.write_text(source)
            versions.write_text(script)
            options = ["-w", "-shared", "-fPIC", f"-Wl,-soname,{soname}", f"-Wl,--version-script={versions}"]
            command = [os.environ.get("CC", "cc"), *options, "-o", str(built), str(code)]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if done.returncode:
                raise OSError(f"{' '.join(command)} failed:\n{done.stderr}")
            built.rename(library)  # atomic: another test process may be building the same
    return library


def lower_for_rocm(fn: Callable[..., Any], *avals: Any, arch: str) -> jax.stages.Lowered:
    """Lowers ``jit(fn)`` for an AMD GPU without having one.

    Args:
        fn: A function of arrays that takes ``target=`` and hands it to the ops in it.
        *avals: Arrays or ``jax.ShapeDtypeStruct``.
        arch: The architecture, such as ``"gfx950"``.
    """
    return _lower(fn, avals, "rocm", arch)


def lower_for_cuda(fn: Callable[..., Any], *avals: Any, arch: str) -> jax.stages.Lowered:
    """The same for NVIDIA: ``arch`` is such as ``"sm_90"``."""
    return _lower(fn, avals, "cuda", arch)


def _lower(fn: Callable[..., Any], avals: tuple[Any, ...], platform: str, arch: str) -> jax.stages.Lowered:
    install_stub()
    traced = jax.jit(functools.partial(fn, target=arch)).trace(*avals)
    lowered: jax.stages.Lowered = traced.lower(lowering_platforms=(platform,))
    return lowered


@dataclasses.dataclass(frozen=True)
class Argument:
    """One kernel argument, in the order of the kernel's parameters that are not constexpr.

    Attributes:
        kind: ``"array"``, or the type of a scalar: ``"i32"``, ``"f32"``, ...
        value: The value of a scalar; None for an array.
        buffer: For an array, its place among the operands followed by the results of the custom call.
        divisibility: For an array, the alignment in bytes that the code relies on.
    """

    kind: str
    value: bool | int | float | None = None
    buffer: int | None = None
    divisibility: int = 0


@dataclasses.dataclass(frozen=True)
class KernelCall:
    """One launch, as the custom call in a lowered program describes it to jaxlib.

    Attributes:
        name: The kernel's symbol.
        grid: Programs along x, y and z.
        num_warps: What jaxlib multiplies by its warp size, which is not always the ``num_warps`` of the compilation.
        threads: Threads of a workgroup as jaxlib launches them.
        shared_bytes: Dynamic shared memory.
        arguments: The arguments; two pointers to scratch memory that jaxlib appends are not among them.
        image: The code object, empty if the call holds none.
        source: The ``ptx`` field: PTX, or what stands in for a path on ROCm.
        ttir: The Triton IR.
    """

    name: str
    grid: tuple[int, int, int]
    num_warps: int
    threads: int
    shared_bytes: int
    arguments: tuple[Argument, ...]
    image: bytes
    source: str
    ttir: str

    @property
    def assembly(self) -> str:
        """The assembly text of the code object, if this process compiled it for an AMD GPU."""
        return _assemblies[hashlib.sha256(self.image).hexdigest()]


def kernel_calls(program: jax.stages.Lowered | jax.export.Exported, platform: str = "rocm") -> list[KernelCall]:
    """Extracts every Triton kernel call of a lowered or exported program, in program order."""
    with mlir.make_ir_context():
        text = program.mlir_module() if isinstance(program, jax.export.Exported) else program.as_text()
        return [kernel_call(op, platform) for op in custom_calls(ir.Module.parse(text).operation)]


def kernel_call(operation: Any, platform: str = "rocm") -> KernelCall:
    """Reads the launch record of one custom call.

    Raises:
        ValueError: if it calls something else than a kernel, or with operands that are not plain row-major buffers.
    """
    attributes = operation.attributes
    if (callee := attributes["call_target_name"].value) != CUSTOM_CALL:
        raise ValueError(f"a custom call of {callee}, not of {CUSTOM_CALL}")
    for layouts, values in (("operand_layouts", operation.operands), ("result_layouts", operation.results)):
        for layout, value in zip(attributes[layouts], values, strict=True):
            if list(ir.DenseIntElementsAttr(layout)) != list(range(ir.RankedTensorType(value.type).rank))[::-1]:
                raise ValueError(f"{layouts} of the kernel call are not row-major: {attributes[layouts]}")
    return _read(zlib.decompress(attributes["mhlo.backend_config"]["opaque"].value_bytes), platform)


def custom_calls(operation: Any) -> Iterator[Any]:
    """Yields each custom call of a kernel inside an operation."""
    if operation.name == "stablehlo.custom_call" and operation.attributes["call_target_name"].value == CUSTOM_CALL:
        yield operation
    for region in operation.regions:
        for block in region.blocks:
            for inner in block.operations:
                yield from custom_calls(inner.operation)


_SCALARS: dict[int, tuple[str, Callable[[Any], bool | int | float]]] = {
    2: ("i1", bool),
    3: ("i32", lambda raw: raw - 2**64 if raw >= 2**63 else raw),
    4: ("u32", int),
    5: ("i64", lambda raw: raw - 2**64 if raw >= 2**63 else raw),
    6: ("u64", int),
    7: ("f32", lambda raw: struct.unpack("<f", raw)[0]),
    8: ("f64", lambda raw: struct.unpack("<d", raw)[0]),
}


def _read(record: bytes, platform: str) -> KernelCall:
    """Reads a TritonAnyKernelCall; the field numbers are those of jaxlib/gpu/triton.proto."""
    (call,) = [value for number, _, value in _wire.decode(record) if number == 1]
    fields = _wire.decode(call)
    launch = {number: value for number, _, value in fields}
    kernel = {number: value for number, _, value in _wire.decode(launch[1])}
    image = {number: value for number, _, value in _wire.decode(kernel.get(11, b""))}
    arguments, buffers = [], 0
    for parameter in (value for number, _, value in fields if number == 5):
        ((number, _, value),) = _wire.decode(parameter)
        if number == 1:
            array = {field: payload for field, _, payload in _wire.decode(value)}
            arguments.append(Argument("array", buffer=buffers, divisibility=array.get(2, 0)))
            buffers += 1
        else:
            kind, convert = _SCALARS[number]
            arguments.append(Argument(kind, convert(value)))
    if image and (image[2], image.get(3, 0)) != (kernel[1], kernel.get(3, 0)):
        raise ValueError(f"the image is of {image[2]!r}, the call of {kernel[1]!r}, or their shared memory differs")
    return KernelCall(
        name=kernel[1].decode(),
        grid=(launch.get(2, 0), launch.get(3, 0), launch.get(4, 0)),
        num_warps=kernel[2],
        threads=kernel[2] * _LAUNCHER_WARP[platform],
        shared_bytes=kernel.get(3, 0),
        arguments=tuple(arguments),
        image=image.get(1, b""),
        source=kernel[4].decode(),
        ttir=kernel[5].decode(),
    )


def assemble(assembly: str, arch: str) -> bytes:
    """Assembles and links AMD assembly text with Triton's LLVM and lld, as Triton itself does."""
    from triton._C.libtriton import llvm
    from triton.backends.amd.compiler import HIPBackend

    llvm.init_targets()  # compiling does this, but a compiled kernel may have come from Triton's cache
    return bytes(HIPBackend.make_hsaco(assembly, {}, types.SimpleNamespace(arch=arch)))


def machine_code(image: bytes) -> dict[str, bytes]:
    """Returns the parts of a code object that decide what the GPU does.

    ``.text`` is the instructions, ``.rodata`` the kernel descriptor (registers, shared memory, what the first
    registers hold at the start) and ``.note`` the metadata by which the arguments are laid out.
    """
    sections = Elf(image).sections
    return {name: sections[name] for name in (".text", ".rodata", ".note")}


def is_assembled_from(image: bytes, assembly: str, arch: str) -> bool:
    """Whether a code object is the machine code of an assembly text."""
    return machine_code(image) == machine_code(assemble(assembly, arch))
