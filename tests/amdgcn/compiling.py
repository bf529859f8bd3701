"""Compiles the sample kernels for AMD targets, without an AMD GPU, and runs the elementwise ones on arrays."""

import functools
from collections.abc import Sequence
from typing import Any

import ml_dtypes
import numpy as np
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from .machine import launch
from .parser import Kernel

WAVE_SIZE = {"gfx90a": 64, "gfx942": 64, "gfx950": 64, "gfx1100": 32, "gfx1201": 32, "gfx1250": 32}
ARCHS = tuple(WAVE_SIZE)


def compile_kernel(
    fn: Any,
    arch: str,
    signature: dict[str, str],
    constexprs: dict[str, Any],
    *,
    num_warps: int = 4,
    aligned: bool = True,
    **options: Any,
) -> Kernel:
    """`fn` for `arch`. `aligned`: pointers and strides are declared divisible by 16, as front ends declare them."""
    signature = signature | dict.fromkeys(constexprs, "constexpr")
    divisible = [i for i, name in enumerate(fn.arg_names) if signature[name].startswith("*") or name == "stride"]
    attrs = {(i,): [["tt.divisibility", 16]] for i in divisible} if aligned else {}
    source = ASTSource(fn=fn, signature=signature, constexprs=constexprs, attrs=attrs)
    target = GPUTarget("hip", arch, WAVE_SIZE[arch])
    compiled = triton.compile(source, target=target, options={"num_warps": num_warps, **options})
    return Kernel(compiled.asm["amdgcn"], compiled.metadata.shared)


@functools.cache
def _cached(fn: Any, arch: str, signature: tuple, constexprs: tuple, options: tuple) -> Kernel:
    return compile_kernel(fn, arch, dict(signature), dict(constexprs), **dict(options))


def compile_sample(fn: Any, arch: str, signature: dict[str, str], constexprs: dict[str, Any], **options: Any) -> Kernel:
    """`compile_kernel`, at most once a process."""
    return _cached(fn, arch, *(tuple(d.items()) for d in (signature, constexprs, options)))


TRITON_TYPE = {
    np.dtype(np.float32): "fp32", np.dtype(np.float16): "fp16", np.dtype(ml_dtypes.bfloat16): "bf16",
    np.dtype(ml_dtypes.float8_e4m3fn): "fp8e4nv", np.dtype(ml_dtypes.float8_e4m3fnuz): "fp8e4b8",
    np.dtype(np.int8): "i8", np.dtype(np.uint8): "u8", np.dtype(np.int16): "i16", np.dtype(np.int32): "i32",
    np.dtype(np.uint32): "u32", np.dtype(np.int64): "i64",
}  # fmt: skip


def run_elementwise(
    fn: Any,
    arch: str,
    inputs: Sequence[np.ndarray],
    out: Any,
    *,
    jitter: bool = False,
    block: int = 2048,
    **constexprs: Any,
) -> np.ndarray:
    """Runs one of the kernels above that take arrays of one length, `o_ptr` and `n`."""
    arrays = [np.ascontiguousarray(array) for array in inputs]
    result = np.zeros(arrays[0].size, out)
    pointers = [name for name in fn.arg_names if name.endswith("_ptr")]
    types = ["*" + TRITON_TYPE[array.dtype] for array in (*arrays, result)]
    signature = dict(zip(pointers, types, strict=True)) | {"n": "i32"}
    kernel = compile_sample(fn, arch, signature, constexprs | {"BLOCK": block})
    grid = (-(-result.size // block),)
    launch(kernel, grid, [*arrays, result, result.size], ulp_jitter=np.random.default_rng(1) if jitter else None)
    return result
