"""The one door to jax-triton, with a mend for everything m3ops needs that is broken or missing upstream.

The front end launches kernels with :func:`triton_call`, which is ``jax_triton.triton_call`` plus ``target=`` and
``in_place=``. Nothing else in m3ops imports jax_triton. The mends apply to jax-triton's own primitive, so they also
hold where the lowering happens late, such as inside the partitioning callback of ``custom_partitioning``.

A mend repairs a state, not a version: it looks at what upstream did and does nothing where that is already right.
Each has a name in :data:`MENDS` and can be switched off with :func:`without`, which is how the tests show that it is
still needed.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import hashlib
import os
import threading
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextvars import ContextVar
from types import ModuleType
from typing import Any

from jax.interpreters import mlir
from jaxlib.mlir import ir
from jaxlib.mlir.dialects import stablehlo as hlo

from m3ops.target import Target

MENDS = frozenset({"cache_dir", "num_ctas", "named_target", "wave32", "embedded_code"})

# jaxlib's HIP launcher starts num_warps * 64 threads, whatever the device (kNumThreadsPerWarp in jaxlib/gpu/vendor.h).
_HIP_LAUNCHER_WARP = 64

_switched_off: ContextVar[frozenset[str]] = ContextVar("m3ops_switched_off_mends", default=frozenset())
_load_lock = threading.Lock()


@dataclasses.dataclass(frozen=True)
class CodeObject:
    """What one compilation for an AMD GPU gave.

    Attributes:
        name: The kernel's symbol.
        arch: The architecture it was compiled for, such as ``"gfx950"``.
        threads: Threads of a workgroup, ``num_warps`` times the warp size of the architecture.
        assembly: The assembly text that Triton assembled into ``image``.
        image: The linked code object, an ELF file.
    """

    name: str
    arch: str
    threads: int
    assembly: str
    image: bytes

    @functools.cached_property
    def fingerprint(self) -> str:
        """The SHA-256 of the image, by which a lowered program refers to it."""
        return hashlib.sha256(self.image).hexdigest()


# Keyed twice: by the path that jax-triton puts into the call, and by the fingerprint that replaces it.
_code_objects: dict[str, CodeObject] = {}


def code_object(fingerprint: str) -> CodeObject:
    """Returns the compilation behind a kernel call that this process lowered for an AMD GPU.

    Args:
        fingerprint: The SHA-256 that the call carries in place of a path.
    """
    return _code_objects[fingerprint]


@contextlib.contextmanager
def without(*mends: str) -> Iterator[None]:
    """Switches mends off, for tests that show what happens then."""
    if unknown := set(mends) - MENDS:
        raise ValueError(f"unknown mends {sorted(unknown)}; there are {sorted(MENDS)}")
    token = _switched_off.set(_switched_off.get() | frozenset(mends))
    try:
        yield
    finally:
        _switched_off.reset(token)


def _on(mend: str) -> bool:
    return mend not in _switched_off.get()


def load() -> ModuleType:
    """Imports jax_triton and mends it; further calls return the same module.

    Raises:
        ImportError: if jax-triton is not installed.
    """
    with _load_lock:
        return _load()


@functools.cache
def _load() -> ModuleType:
    # Upstream: importing jax_triton deletes TRITON_CACHE_DIR from the environment. Shows as Triton, also when PyTorch
    # calls it in the same process, writing to the home directory, which may be read-only or shared.
    cache_dir = os.environ.get("TRITON_CACHE_DIR")
    import jax_triton
    from jax_triton import triton_lib

    if cache_dir is not None and _on("cache_dir"):
        os.environ.setdefault("TRITON_CACHE_DIR", cache_dir)

    triton_lib.compile_ttir_to_hsaco_inplace = functools.partial(_compile, triton_lib.compile_ttir_to_hsaco_inplace)
    primitive = triton_lib.triton_kernel_call_p
    for platform, lower in (("cuda", _lower_for_cuda), ("rocm", _lower_for_rocm)):
        mlir.register_lowering(primitive, functools.partial(_lower, functools.partial(lower, triton_lib)), platform)
    module: ModuleType = jax_triton
    return module


@dataclasses.dataclass(frozen=True)
class _Request:
    """What :func:`triton_call` asks of the lowering: an architecture by name, and which result is in which operand."""

    arch: str | None
    in_place: tuple[tuple[int, int], ...]


def triton_call(
    *args: Any,
    target: str | None = None,
    in_place: Mapping[int, int] | None = None,
    **kwargs: Any,
) -> Any:
    """Calls a Triton kernel from JAX; ``jax_triton.triton_call`` with a way to name what to compile for.

    Args:
        *args: The kernel's inputs.
        target: The architecture to compile for, such as ``"gfx950"`` or ``"sm_90"``, which then needs no device.
            ``None`` asks the device.
        in_place: From the number of an array among the inputs to that of a result of its shape and dtype which takes
            its memory. The kernel has a pointer for each, unlike with jax-triton's ``input_output_aliases``.
        **kwargs: Everything else that ``jax_triton.triton_call`` takes.

    Returns:
        The kernel's outputs, in the structure of ``out_type``.
    """
    # This parameter reaches the functions that make the target unchanged and unchecked. Unlike a context variable, it
    # is part of the equation: it counts in jit's cache key and survives until the equation is lowered.
    return load().triton_call(*args, compute_capability=_Request(target, tuple((in_place or {}).items())), **kwargs)


def _lower(lower: Callable[..., Any], ctx: Any, *operands: Any, **params: Any) -> Any:
    """A platform's lowering, with the request taken apart."""
    request = params["compute_capability"]
    if not isinstance(request, _Request):  # a call that did not come through this module
        return lower(ctx, *operands, **params)
    results = lower(ctx, *operands, **params | {"compute_capability": request.arch})
    if request.in_place:
        several = len(results) > 1
        results[0].owner.attributes["output_operand_aliases"] = ir.ArrayAttr.get(
            [
                hlo.OutputOperandAlias.get(
                    output_tuple_indices=[result] if several else [], operand_index=operand, operand_tuple_indices=[]
                )
                for operand, result in request.in_place
            ]
        )
    return results


# Upstream: a CUDA target can be named by a number, an AMD one not at all: make_hip_target drops the request and asks
# the device. Shows as "hipGetDeviceProperties failed" where there is no device, and as code for the wrong
# architecture where there is another one.


def _requested(vendor: str, name: Any) -> str | None:
    """The architecture that :func:`triton_call` was given, if it was."""
    if not isinstance(name, str) or not _on("named_target"):
        return None
    if Target.named(name).vendor != vendor:
        raise ValueError(f"this program is lowered for {vendor}, not for target={name!r}")
    return name


def _lower_for_cuda(triton_lib: Any, ctx: Any, *operands: Any, **params: Any) -> Any:
    make_target = functools.partial(_cuda_target, triton_lib)
    return triton_lib.triton_kernel_call_lowering(make_target, ctx, *operands, **params)


def _cuda_target(triton_lib: Any, request: Any, num_ctas: int) -> Any:
    arch = _requested("nvidia", request)
    capability = int(arch.removeprefix("sm_")) if arch else request if isinstance(request, int) else None
    return triton_lib.make_cuda_target(capability, num_ctas)


def _hip_target(triton_lib: Any, request: Any, num_ctas: int) -> Any:
    if (arch := _requested("amd", request)) is None:
        return triton_lib.make_hip_target(None, num_ctas)
    triton_lib._patch_hip_backend()  # what make_hip_target does first: older Triton imports torch unconditionally
    return triton_lib.hb.GPUTarget("hip", arch, Target.named(arch).warp_size)


class _RecordingBackend:
    """Triton's AMD backend, with the metadata that it expects and a memory of what it made."""

    def __init__(self, backend: Any) -> None:
        self._backend = backend
        self.assembly = ""
        self.image = b""

    def __getattr__(self, name: str) -> Any:
        return getattr(self._backend, name)

    def make_ttir(self, module: Any, metadata: dict[str, Any], options: Any) -> Any:
        # Upstream: jax-triton starts from empty metadata, and since Triton 3.7 make_llir reads num_ctas from it, which
        # triton.compile fills in from the options. Shows as KeyError: 'num_ctas' on every ROCm lowering.
        if _on("num_ctas"):
            metadata.setdefault("num_ctas", options.num_ctas)
        return self._backend.make_ttir(module, metadata, options)

    def make_amdgcn(self, *args: Any) -> str:
        self.assembly = self._backend.make_amdgcn(*args)
        return self.assembly

    def make_hsaco(self, *args: Any) -> bytes:
        self.image = self._backend.make_hsaco(*args)
        return self.image


def _compile(upstream: Callable[..., Any], ttir: Any, backend: Any, options: Any) -> Any:
    """Compiles for an AMD GPU and keeps the code object, which upstream only writes to a temporary file."""
    recorder = _RecordingBackend(backend)
    result = upstream(ttir, recorder, options)
    if recorder.image:
        threads = options.num_warps * options.warp_size
        code = CodeObject(result.name, options.arch, threads, recorder.assembly, recorder.image)
        _code_objects[result.binary] = _code_objects[code.fingerprint] = code
    return result


def _lower_for_rocm(triton_lib: Any, ctx: Any, *operands: Any, **params: Any) -> Any:
    """jax-triton's lowering, with the launch record of the custom call corrected afterwards."""
    make_target = functools.partial(_hip_target, triton_lib)
    options = params["backend_options"]
    target = make_target(params["compute_capability"], options["num_ctas"])
    if _on("wave32") and options["num_warps"] * Target.named(target.arch).warp_size < _HIP_LAUNCHER_WARP:
        # One wave of 32 cannot be launched (see _correct): the smallest block that can be has two of them.
        params["backend_options"] = type(options)({**options, "num_warps": 2})
    results = triton_lib.triton_kernel_call_lowering(make_target, ctx, *operands, **params)

    attributes = results[0].owner.attributes
    config = {named.name: named.attr for named in attributes["mhlo.backend_config"]}
    record = zlib.decompress(config["opaque"].value_bytes)
    # TritonAnyKernelCall: kernel_call.kernel, or autotuned_kernel_call.configs.kernel_call.kernel.
    record = _edit(record, (1, 1), _correct)
    record = _edit(record, (2, 2, 1, 1), _correct)
    config["opaque"] = ir.StringAttr.get(zlib.compress(record))
    attributes["mhlo.backend_config"] = ir.DictAttr.get(config)
    return results


# Fields of jaxlib/gpu/triton.proto, messages TritonKernel and ModuleImageProto.
_KERNEL_NAME, _NUM_WARPS, _SHARED_MEM_BYTES, _PTX, _MODULE_IMAGE = 1, 2, 3, 4, 11
_IMAGE_OBJECT_FILE, _IMAGE_KERNEL_NAME, _IMAGE_SHARED_MEM_BYTES = 1, 2, 3


def _correct(kernel: bytes) -> bytes:
    """Corrects one serialized TritonKernel."""
    fields = decode(kernel)
    value = {number: payload for number, _, payload in fields}
    code = _code_objects.get(value[_PTX].decode())
    if code is None:  # not a path of ours: upstream has found another way to hand over the code
        return kernel

    # Upstream: Triton compiles num_warps * 32 threads for RDNA, jaxlib launches num_warps * 64. Shows as a launch that
    # HIP refuses (the code object's max_flat_workgroup_size is smaller), or every element written by two threads.
    if _on("wave32"):
        warps, rest = divmod(code.threads, _HIP_LAUNCHER_WARP)
        if rest:
            raise ValueError(f"kernel {code.name} has {code.threads} threads on {code.arch}: use num_warps >= 2")
        fields = [(n, wire, warps if n == _NUM_WARPS else payload) for n, wire, payload in fields]

    # Upstream: the call holds the path of a temporary hsaco file, which the runtime reads and then deletes. Shows as
    # "file not found" from an exported or cached program in another process, and the random path makes every
    # compilation miss JAX's persistent cache. The runtime prefers module_image, and knows it by the ptx field, which
    # therefore has to differ for different code.
    if _on("embedded_code") and _MODULE_IMAGE not in value:
        image = [
            (_IMAGE_OBJECT_FILE, 2, code.image),
            (_IMAGE_KERNEL_NAME, 2, value[_KERNEL_NAME]),
            (_IMAGE_SHARED_MEM_BYTES, 0, value.get(_SHARED_MEM_BYTES, 0)),
        ]
        fields = [(n, wire, code.fingerprint.encode() if n == _PTX else payload) for n, wire, payload in fields]
        fields.append((_MODULE_IMAGE, 2, encode(image)))
    return encode(fields)


# The protocol buffer wire format: enough to change a field and leave the others as they are, known or not.

Field = tuple[int, int, Any]


def decode(message: bytes) -> list[Field]:
    """Splits a serialized message into (field number, wire type, value), the value an int or the bytes as they are."""
    fields: list[Field] = []
    position = 0

    def varint() -> int:
        nonlocal position
        result = shift = 0
        while True:
            byte = message[position]
            position += 1
            result |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                return result

    while position < len(message):
        number, wire = divmod(varint(), 8)
        if wire == 0:
            fields.append((number, wire, varint()))
            continue
        size = {1: 8, 5: 4}[wire] if wire != 2 else varint()
        fields.append((number, wire, message[position : position + size]))
        position += size
    return fields


def encode(fields: Sequence[Field]) -> bytes:
    """Serializes the fields that :func:`decode` gave."""
    message = bytearray()

    def varint(number: int) -> None:
        while number >= 0x80:
            message.append(number & 0x7F | 0x80)
            number >>= 7
        message.append(number)

    for number, wire, value in fields:
        varint(number << 3 | wire)
        if wire == 0:
            varint(value)
            continue
        if wire == 2:
            varint(len(value))
        message.extend(value)
    return bytes(message)


def _edit(message: bytes, path: tuple[int, ...], edit: Callable[[bytes], bytes]) -> bytes:
    """Applies ``edit`` to each submessage at a path of field numbers."""
    if not path:
        return edit(message)
    first, rest = path[0], path[1:]
    fields = decode(message)
    return encode([(n, wire, _edit(payload, rest, edit) if n == first else payload) for n, wire, payload in fields])
