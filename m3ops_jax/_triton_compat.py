"""The one door to jax-triton, with a workaround for each thing that m3ops needs and that is broken or missing there.

The front end launches kernels with :func:`triton_call`, which is ``jax_triton.triton_call`` plus ``target=`` and
``in_place=``. Nothing else in m3ops imports jax_triton. The workarounds apply to jax-triton's own primitive, so they
also hold where the lowering happens late, such as inside the partitioning callback of ``custom_partitioning``.

Each workaround repairs a state, not a version: it looks at what upstream did and does nothing where that is already
right. A comment beginning with "Upstream" says what is wrong there and how it shows. The tests replace each by what
upstream does alone, to show that it is still needed.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import os
import threading
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType
from typing import Any

from jax.interpreters import mlir
from jaxlib.mlir import ir
from jaxlib.mlir.dialects import stablehlo as hlo

from m3ops.target import Target
from m3ops_jax import _private
from m3ops_jax._wire import BYTES, VARINT, Field, decode, edit, encode

_load_lock = threading.Lock()


@dataclass(frozen=True)
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

    Raises:
        ImportError: jax-triton or JAX's GPU plugin is not installed.
    """
    if missing := _private.missing_plugin():
        raise ImportError(missing)
    # This parameter reaches the functions that make the target unchanged and unchecked. Unlike a context variable, it
    # is part of the equation: it counts in jit's cache key and survives until the equation is lowered.
    return load().triton_call(*args, compute_capability=_Request(target, tuple((in_place or {}).items())), **kwargs)


def load() -> ModuleType:
    """Imports jax_triton with the workarounds; further calls return the same module.

    Raises:
        ImportError: jax-triton is not installed.
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

    if cache_dir is not None:
        os.environ.setdefault("TRITON_CACHE_DIR", cache_dir)

    _load_torch()
    triton_lib.compile_ttir_to_hsaco_inplace = functools.partial(_compile, triton_lib.compile_ttir_to_hsaco_inplace)
    primitive = triton_lib.triton_kernel_call_p
    for platform, lower in (("cuda", _lower_for_cuda), ("rocm", _lower_for_rocm)):
        mlir.register_lowering(primitive, functools.partial(_lower, functools.partial(lower, triton_lib)), platform)
    module: ModuleType = jax_triton
    return module


def _load_torch() -> None:
    """Loads torch where it is installed, as Triton does.

    Upstream: Triton does so when it first looks at a kernel's arguments, and takes the module half loaded if another
    thread is at it. Shows as "partially initialized module 'torch' has no attribute 'Tensor'" where the first lowerings
    of a process are in several threads.
    """
    with contextlib.suppress(ImportError):
        import torch  # noqa: F401


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
    if not isinstance(name, str):
        return None
    if Target.named(name).vendor != vendor:
        raise ValueError(f"this program is lowered for {vendor}, not for target={name!r}")
    return name


def _cuda_target(triton_lib: Any, request: Any, num_ctas: int) -> Any:
    arch = _requested("nvidia", request)
    capability = int(arch.removeprefix("sm_")) if arch else request if isinstance(request, int) else None
    return triton_lib.make_cuda_target(capability, num_ctas)


def _hip_target(triton_lib: Any, request: Any, num_ctas: int) -> Any:
    if (arch := _requested("amd", request)) is None:
        return triton_lib.make_hip_target(None, num_ctas)
    triton_lib._patch_hip_backend()  # what make_hip_target does first: older Triton imports torch unconditionally
    return triton_lib.hb.GPUTarget("hip", arch, Target.named(arch).warp_size)


def _lower_for_cuda(triton_lib: Any, ctx: Any, *operands: Any, **params: Any) -> Any:
    make_target = functools.partial(_cuda_target, triton_lib)
    return triton_lib.triton_kernel_call_lowering(make_target, ctx, *operands, **params)


def _lower_for_rocm(triton_lib: Any, ctx: Any, *operands: Any, **params: Any) -> Any:
    """jax-triton's lowering, with the launch record of the custom call corrected afterwards."""
    make_target = functools.partial(_hip_target, triton_lib)
    options = params["backend_options"]
    warp_size = Target.named(make_target(params["compute_capability"], options["num_ctas"]).arch).warp_size
    num_warps = max(options["num_warps"], _fewest_warps(warp_size))
    params["backend_options"] = type(options)({**options, "num_warps": num_warps})
    results = triton_lib.triton_kernel_call_lowering(make_target, ctx, *operands, **params)

    attributes = results[0].owner.attributes
    config = {named.name: named.attr for named in attributes["mhlo.backend_config"]}
    record = zlib.decompress(config["opaque"].value_bytes)
    # TritonAnyKernelCall: kernel_call.kernel, or autotuned_kernel_call.configs.kernel_call.kernel.
    for path in ((1, 1), (2, 2, 1, 1)):
        record = edit(record, path, functools.partial(_corrected, warp_size))
    config["opaque"] = ir.StringAttr.get(zlib.compress(record))
    attributes["mhlo.backend_config"] = ir.DictAttr.get(config)
    return results


# Fields of jaxlib/gpu/triton.proto, messages TritonKernel and ModuleImageProto.
_KERNEL_NAME, _NUM_WARPS, _SHARED_MEM_BYTES, _PTX, _MODULE_IMAGE = 1, 2, 3, 4, 11
_IMAGE_OBJECT_FILE, _IMAGE_KERNEL_NAME, _IMAGE_SHARED_MEM_BYTES = 1, 2, 3


def _corrected(warp_size: int, kernel: bytes) -> bytes:
    """One serialized TritonKernel, corrected."""
    return encode(_with_embedded_code(_with_launchers_warps(warp_size, decode(kernel))))


# Upstream: Triton compiles num_warps * 32 threads for gfx1250 and RDNA, jaxlib's HIP launcher starts num_warps * 64,
# whatever the device (kNumThreadsPerWarp in jaxlib/gpu/vendor.h). Shows as a launch that HIP refuses (the code object's
# max_flat_workgroup_size is smaller), or every element written by two threads.
_HIP_LAUNCHER_WARP = 64


def _fewest_warps(warp_size: int) -> int:
    """How many warps the smallest block that can be launched has."""
    return _HIP_LAUNCHER_WARP // warp_size


def _with_launchers_warps(warp_size: int, fields: list[Field]) -> list[Field]:
    """The launch in warps of the launcher's size. Numbers of warps are powers of two."""
    return [(n, wire, v * warp_size // _HIP_LAUNCHER_WARP if n == _NUM_WARPS else v) for n, wire, v in fields]


def _with_embedded_code(fields: list[Field]) -> list[Field]:
    """The launch with the code object itself.

    Upstream: the call holds the path of a temporary hsaco file, which the runtime reads and then deletes. Shows as
    "file not found" from an exported or cached program in another process, and the random path makes every compilation
    miss JAX's persistent cache. The runtime prefers module_image, and knows it by the ptx field, which therefore has to
    differ for different code.
    """
    value = {number: payload for number, _, payload in fields}
    code = _code_objects.get(value[_PTX].decode())
    if _MODULE_IMAGE in value or code is None:  # upstream has found another way to hand over the code
        return fields
    image = [
        (_IMAGE_OBJECT_FILE, BYTES, code),
        (_IMAGE_KERNEL_NAME, BYTES, value[_KERNEL_NAME]),
        (_IMAGE_SHARED_MEM_BYTES, VARINT, value.get(_SHARED_MEM_BYTES, 0)),
    ]
    return [*fields, (_MODULE_IMAGE, BYTES, encode(image))]


_code_objects: dict[str, bytes] = {}
"""Code objects by their SHA-256, which stands in the place of a path."""


class _WithNumCtas:
    """Triton's AMD backend, with the metadata that it expects.

    Upstream: jax-triton starts from empty metadata, and since Triton 3.7 make_llir reads num_ctas from it, which
    triton.compile fills in from the options. Shows as KeyError: 'num_ctas' on every ROCm lowering.
    """

    def __init__(self, backend: Any) -> None:
        self._backend = backend

    def __getattr__(self, name: str) -> Any:
        return getattr(self._backend, name)

    def make_ttir(self, module: Any, metadata: dict[str, Any], options: Any) -> Any:
        metadata.setdefault("num_ctas", options.num_ctas)
        return self._backend.make_ttir(module, metadata, options)


def _compile(upstream: Callable[..., Any], ttir: Any, backend: Any, options: Any) -> Any:
    """jax-triton's compilation for an AMD GPU."""
    return _kept(upstream(ttir, _WithNumCtas(backend), options))


def _kept(compiled: Any) -> Any:
    """What was compiled, with the code object by its fingerprint: its file may be gone before the next lowering."""
    code = Path(compiled.binary).read_bytes()
    fingerprint = hashlib.sha256(code).hexdigest()
    _code_objects[fingerprint] = code
    return replace(compiled, binary=fingerprint)
