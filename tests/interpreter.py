"""Runs a plan's Triton kernels on NumPy arrays, in a process that also compiles kernels for GPUs.

Triton's own interpreter does the work, corrected so that each operation gives what IEEE 754 and the GPUs give, or
raises. As shipped it loses the carry of rounding casts, truncates fp32 to bf16, rounds ``tl.fma`` twice, computes on
bf16 as if on integers, and reads and writes at whatever address a kernel computes.

While a kernel runs, ``triton.language`` is patched for the whole process. A lock keeps launches apart and the patches
are taken back after each; but no other thread may compile a kernel meanwhile.
"""

from __future__ import annotations

import ast
import contextlib
import functools
import inspect
import textwrap
import threading
import types
from collections.abc import Callable, Iterator, Mapping
from types import SimpleNamespace
from typing import Any

import ml_dtypes
import numpy as np
import triton.language as tl
from triton.language.semantic import TritonSemantic
from triton.runtime import interpreter as stock
from triton.runtime.interpreter import TensorHandle
from triton.runtime.jit import JITFunction

from m3ops.array import ArraySpec
from m3ops.plan import Launch, Plan

_FLOATS = {
    tl.float32: np.float32,
    tl.float16: np.float16,
    tl.bfloat16: ml_dtypes.bfloat16,
    tl.float8e4nv: ml_dtypes.float8_e4m3fn,
    tl.float8e4b8: ml_dtypes.float8_e4m3fnuz,
}
_ELEMENTS = {np.dtype(dtype).name: element for element, dtype in _FLOATS.items()}
_ELEMENTS |= {name: getattr(tl, name) for name in ("int16", "int32", "int64", "uint16", "uint32", "uint64")}
# Operations on which GPUs differ from each other or from NumPy, in the order of a sum if nothing else.
_REJECTED = (
    "fdiv frem sqrt rsqrt exp exp2 log log2 sin cos erf fp_to_si fp_to_ui clampf dot_scaled atomic_rmw atomic_cas"
)
_OPERATORS = "add sub mul truediv floordiv mod and or xor lshift rshift lt le gt ge eq ne"
_LOCK = threading.RLock()


def run(
    plan: Plan,
    operands: Mapping[str, np.ndarray],
    results: Mapping[str, np.ndarray],
    kept: Mapping[str, np.ndarray] | None = None,
) -> None:
    """Runs the launches of a plan.

    Args:
        plan: The plan.
        operands: Arrays of the shapes, dtypes and strides of the plan. 8-bit floats reach kernels as uint8.
        results: Arrays to write, likewise. What they held before does not matter.
        kept: Masks of the elements that have to stay as they are, by result; none unless given.

    Raises:
        IndexError: if a kernel loads or stores at an address that is no element of the array whose pointer it was
            computed from, loads from an array that its launch writes or an element that no launch has written, stores
            to an array that its launch does not write, or if in the end an element of a result is not written that
            should be, or written that should not.
        NotImplementedError: if it does what GPUs do not agree on.
    """
    scratch = {name: poisoned(spec) for name, spec in plan.scratch.items()}
    pointers = {name: _Pointer(array, written=True) for name, array in operands.items()}
    pointers |= {name: _Pointer(array, written=False) for name, array in {**results, **scratch}.items()}
    for one in plan.launches:
        _launch(one, pointers)
    for name, array in results.items():
        stays = np.broadcast_to((kept or {}).get(name, False), array.shape)
        written = pointers[name].written[pointers[name].elements(_addresses(array))]
        if (missing := ~(written | stays)).any():
            raise IndexError(f"{name}: {missing.sum()} of {array.size} elements not written")
        if (wrong := written & stays).any():
            raise IndexError(f"{name}: {wrong.sum()} of {array.size} elements written that have to stay as they are")


def _launch(one: Launch, pointers: Mapping[str, _Pointer]) -> None:
    """Runs ``one.kernel[one.grid](**one.bound(pointers), **one.constants)``."""
    if not isinstance(one.kernel, JITFunction):
        raise TypeError(f"the kernel must be a JITFunction, got {type(one.kernel).__name__}: is TRITON_INTERPRET set?")
    for name, pointer in pointers.items():
        pointer.stored = name in one.writes
    arguments = {name: _argument(value) for name, value in one.bound(pointers).items()}
    with _interpreting():
        _BUILDER.set_grid_dim(*one.grid, *[1] * (3 - len(one.grid)))
        for program in np.ndindex(one.grid):
            _BUILDER.set_grid_idx(*program, *[0] * (3 - len(program)))
            one.kernel(**arguments, **one.constants)


def poisoned(spec: ArraySpec) -> np.ndarray:
    """Memory that no kernel has written: bytes that show."""
    return np.full(spec.nbytes, 0xA5, np.uint8).view(np.dtype(spec.dtype)).reshape(spec.shape)


def _addresses(array: np.ndarray) -> np.ndarray:
    """The address of each element."""
    offsets = [np.arange(size) * stride for size, stride in zip(array.shape, array.strides, strict=True)]
    return functools.reduce(np.add.outer, offsets, np.int64(array.ctypes.data)).astype(np.uint64)


class _Pointer(tl.pointer_type):
    """The type of a pointer into one array. A pointer computed from another keeps the type object, hence the array.

    Attributes:
        stored: Whether the launch that runs writes the array; it then may not read it.
    """

    def __init__(self, array: np.ndarray, *, written: bool) -> None:
        super().__init__(tl.uint8 if array.itemsize == 1 else _ELEMENTS[array.dtype.name])
        self.base: int = array.ctypes.data
        self.addresses = np.unique(_addresses(array))
        self.written = np.full(self.addresses.size, written)
        self.stored = False

    def elements(self, addresses: np.ndarray) -> np.ndarray:
        """Which elements are at these addresses."""
        index = np.searchsorted(self.addresses, addresses)
        wrong = np.append(self.addresses, np.uint64(0))[index] != addresses
        if wrong.any():
            offset = int(addresses[wrong][0]) - self.base
            raise IndexError(f"{wrong.sum()} addresses are no element of the array, the first at byte {offset} of it")
        return index


class _Builder(stock.InterpreterBuilder):
    """Triton's builder of NumPy results, corrected."""

    def __init__(self) -> None:
        super().__init__()
        self.options = stock.InterpreterOptions(sanitize_overflow=False)  # integers wrap; no time goes into a check

    def create_masked_load(self, ptrs: TensorHandle, mask: TensorHandle, other: TensorHandle | None, *_: Any) -> Any:
        pointer = _array_of(ptrs, stored=False)
        if not (written := pointer.written[pointer.elements(ptrs.data[mask.data])]).all():
            raise IndexError(f"load of {(~written).sum()} elements that no launch has written")
        if other is None:  # then masked lanes are undefined on a GPU: NaN or -1 here, lest a kernel rely on zeros
            storage = stock._get_np_dtype(ptrs.get_element_ty())
            ones = np.full((*ptrs.data.shape, storage.itemsize), 0xFF, np.uint8)
            other = TensorHandle(ones.view(storage)[..., 0], ptrs.get_element_ty())
        return super().create_masked_load(ptrs, mask, other, None, None, False)

    def create_masked_store(self, ptrs: TensorHandle, value: TensorHandle, mask: TensorHandle, *_: Any) -> None:
        pointer = _array_of(ptrs, stored=True)
        pointer.written[pointer.elements(ptrs.data[mask.data])] = True
        super().create_masked_store(ptrs, value, mask, None, None)

    def create_fp_to_fp(self, src: TensorHandle, dst_type: tl.dtype, rounding: Any = None) -> TensorHandle:
        """Rounds to nearest, ties to even. E4M3 as NVIDIA's ``cvt.rn.satfinite``: saturates, and any NaN is 0x7F."""
        source, target = src.dtype.scalar, dst_type.scalar
        if rounding not in (None, stock._ir.ROUNDING_MODE.RTNE) or not {source, target} <= _FLOATS.keys():
            raise NotImplementedError(f"cast of {source} to {target}, rounding {rounding}")
        x = src.data.view(_FLOATS[source])
        if target.is_fp8():
            largest = float(ml_dtypes.finfo(_FLOATS[target]).max)
            x = np.where(np.isnan(x), np.float32(np.nan), np.clip(x.astype(np.float32), -largest, largest))
        return TensorHandle(x.astype(_FLOATS[target]).view(stock._get_np_dtype(target)), target)

    def cast_impl(self, src: TensorHandle, dst_type: tl.dtype) -> TensorHandle:
        source, target = src.dtype.scalar, dst_type.scalar
        if source.is_floating():
            return self.create_fp_to_fp(src, dst_type)
        if not target.is_floating():
            return super().cast_impl(src, dst_type)
        number = TensorHandle(src.data.astype(np.float32), tl.float32)  # rounded once
        if target != tl.float32 and (np.abs(number.data) >= 2**24).any():
            raise NotImplementedError(f"cast of {source} to {target}: by way of fp32 it would round twice")
        return self.create_fp_to_fp(number, dst_type)

    def create_fma(self, x: TensorHandle, y: TensorHandle, z: TensorHandle) -> TensorHandle:
        """Fused multiply-add of fp32.

        The product of two 24-bit significands is exact in float64. Of the sum, TwoSum gives what rounding left off;
        where that is not zero, the last bit is made odd: "there is more". As 53 >= 24 + 2 and float64 has exponents to
        spare, rounding that to fp32 rounds the exact sum correctly (Boldo and Melquiond, "Emulation of a FMA and
        Correctly Rounded Sums: Proved Algorithms Using Rounding to Odd", 2008).
        """
        if {x.dtype.scalar, y.dtype.scalar, z.dtype.scalar} != {tl.float32}:
            raise NotImplementedError(f"fma of {x.dtype}, {y.dtype}, {z.dtype}")
        product, addend = x.data.astype(np.float64) * y.data, z.data.astype(np.float64)
        total = product + addend
        kept = total - product
        lost = (product - (total - kept)) + (addend - kept)
        # An even sum's neighbour on the side of the exact sum is odd. That of infinity is too large for fp32 as well.
        even = (total.view(np.int64) & 1) == 0
        total = np.where((lost != 0) & even, np.nextafter(total, np.copysign(np.inf, lost)), total)
        return TensorHandle(total.astype(np.float32), tl.float32)

    def create_dot(self, a: TensorHandle, b: TensorHandle, d: TensorHandle, *_: Any) -> TensorHandle:
        """A product of 16-bit floats whose sums fit into fp32 whatever their order, so that no tensor core rounds."""
        kind = a.dtype.scalar
        if kind not in (tl.float16, tl.bfloat16) or b.dtype.scalar != kind or d.dtype.scalar != tl.float32:
            raise NotImplementedError(f"dot of {a.dtype} and {b.dtype} to {d.dtype}")
        x, y = (handle.data.view(_FLOATS[kind]).astype(np.float64) for handle in (a, b))
        addend = d.data.astype(np.float64)
        total = x @ y + addend
        magnitude = np.abs(x) @ np.abs(y) + np.abs(addend)
        unit = np.minimum(_unit(x).min(-1)[:, None] * _unit(y).min(0)[None, :], _unit(addend))
        if (np.isfinite(magnitude) & (magnitude > 2**24 * unit)).any():
            raise NotImplementedError("dot: partial sums need more than 24 bits")
        return TensorHandle(total.astype(np.float32), tl.float32)

    def create_inline_asm(self, asm: str, constraints: str, values: list[TensorHandle], *_: Any) -> Any:
        """The empty instruction, which returns its argument: it only keeps a compiler from looking through it."""
        if asm or not constraints.endswith(",0") or len(values) != 1:
            raise NotImplementedError(f"inline assembly {asm!r} with {constraints!r}")
        return SimpleNamespace(get_result=values.__getitem__)

    def create_fmul(self, lhs: TensorHandle, rhs: TensorHandle) -> TensorHandle:
        """Products of bf16 too: fp32 holds each, unless it is too small to change how it rounds to bf16."""
        if lhs.dtype.scalar != tl.bfloat16:
            return self.binary_op(lhs, rhs, np.multiply)
        x, y = (handle.data.view(ml_dtypes.bfloat16).astype(np.float32) for handle in (lhs, rhs))
        return TensorHandle((x * y).astype(ml_dtypes.bfloat16).view(lhs.data.dtype), tl.bfloat16)

    def binary_op(self, lhs: TensorHandle, rhs: TensorHandle, op: Callable[..., np.ndarray]) -> TensorHandle:
        handle = super().binary_op(_numeric(lhs), _numeric(rhs), op)
        if handle.data.dtype == np.bool_:  # a comparison, to which the stock builder gives the type of the operands
            handle.dtype = tl.int1
        return handle

    def unary_op(self, arg: TensorHandle, op: Callable[..., np.ndarray]) -> TensorHandle:
        return super().unary_op(_numeric(arg), op)


def _array_of(ptrs: TensorHandle, *, stored: bool) -> _Pointer:
    pointer = ptrs.dtype.scalar
    if not isinstance(pointer, _Pointer) or pointer.stored != stored:
        what = "store to an array that the launch does not write" if stored else "load from an array that it writes"
        raise IndexError(what)
    return pointer


def _numeric(handle: TensorHandle) -> TensorHandle:
    if handle.dtype.scalar.is_floating() and handle.data.dtype.kind == "u":  # bf16 and E4M3 are held as their bits
        raise NotImplementedError(f"arithmetic in {handle.dtype}")
    return handle


def _unit(x: np.ndarray) -> np.ndarray:
    """The largest power of two of which each number is a multiple; infinity for zero, which is one of any."""
    with np.errstate(all="ignore"):
        mantissa, exponent = np.frexp(x)
        digits = np.where(np.isfinite(mantissa), mantissa * 2.0**53, 0).astype(np.int64)
        unit = np.ldexp((digits & -digits).astype(np.float64), exponent - 53)
    return np.where(digits == 0, np.inf, unit)


def _rejected(name: str, *_: Any, **__: Any) -> Any:
    raise NotImplementedError(f"{name}: GPUs differ from each other or from NumPy")


def _extremum(op: np.ufunc, least: bool, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """-0.0 is less than +0.0 (IEEE 754-2019, section 9.6); NumPy returns either."""
    return np.where(x == y, np.where(np.signbit(x) == least, x, y), op(x, y))


for _name in _REJECTED.split():
    setattr(_Builder, f"create_{_name}", functools.partial(_rejected, _name))
for _name, _op in {"minimumf": np.minimum, "maximumf": np.maximum, "minnumf": np.fmin, "maxnumf": np.fmax}.items():
    _extreme = functools.partial(_extremum, _op, _name.startswith("min"))
    setattr(_Builder, f"create_{_name}", functools.partialmethod(_Builder.binary_op, op=_extreme))
_BUILDER = _Builder()
_SEMANTIC = TritonSemantic(_BUILDER)


def _argument(value: _Pointer | int | None) -> tl.tensor | None:
    """The argument of a kernel for an array, a number, or nothing."""
    if value is None:
        return None
    if isinstance(value, _Pointer):
        return _scalar(value.base, value, np.uint64)
    return _scalar(value, *((tl.int32, np.int32) if value < 2**31 else (tl.int64, np.int64)))


def _scalar(value: int, dtype: tl.dtype, storage: type) -> tl.tensor:
    return tl.tensor(TensorHandle(np.array([value], storage), dtype), dtype)


def _reduce(tensor: tl.tensor, axis: int | None, combine_fn: Any, keep_dims: bool = False) -> tl.tensor:
    if tensor.dtype.is_floating():
        _rejected("reduction of floats")
    reduction = stock.ReduceOps(axis, combine_fn, keep_dims)
    if combine_fn is not tl.standard._sum_combine:
        return reduction.apply(tensor)
    data = tensor.handle.data  # summed in its own type, lest a sum that should wrap fail
    return reduction.to_tensor(np.sum(data, axis=axis, dtype=data.dtype, keepdims=keep_dims), tensor.dtype)


def _deferring(operator: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
    """A constexpr's operator that leaves tensors to theirs; as it is, it wraps a tensor as a constexpr."""
    return lambda self, other: NotImplemented if isinstance(other, tl.tensor) else operator(self, other)


@functools.cache
def _interpretable(function: Callable[..., Any]) -> Callable[..., Any]:
    """The body of a ``@triton.jit`` function with assignments that make tensors of numbers.

    Triton does the same but leaves its own globals in the function's module. Here the one new name is a closure's.
    """
    tree = ast.parse("def factory(interpreter_semantic): ...")
    factory: Any = tree.body[0]
    kernel: Any = ast.parse(textwrap.dedent(inspect.getsource(function))).body[0]
    kernel.decorator_list = []
    ast.increment_lineno(kernel, function.__code__.co_firstlineno - 1)
    factory.body = [stock.ASTTransformer().visit(kernel), ast.Return(ast.Name(kernel.name, ast.Load()))]
    code = compile(ast.fix_missing_locations(tree), function.__code__.co_filename, "exec")
    namespace: dict[str, Any] = {}
    exec(code, function.__globals__, namespace)
    return namespace["factory"](_SEMANTIC)


@contextlib.contextmanager
def _interpreting() -> Iterator[None]:
    """Makes ``@triton.jit`` functions callable, on tensors that hold NumPy arrays."""
    with _LOCK, np.errstate(all="ignore"):
        # It patches the modules that it finds among the names a kernel sees.
        scope = stock._patch_lang(types.SimpleNamespace(__globals__={"tl": tl, "core": tl.core}))
        try:
            scope.set_attr(stock, "interpreter_semantic", _SEMANTIC)  # where the patched modules look for it
            scope.set_attr(JITFunction, "__call__", lambda self, *a, **k: _interpretable(self.fn)(*a, **k))
            for module in (tl, tl.core):
                scope.set_attr(module, "reduce", _reduce)
            for name in _OPERATORS.split():
                scope.set_attr(tl.constexpr, f"__{name}__", _deferring(getattr(tl.constexpr, f"__{name}__")))
            yield
        finally:
            scope.restore()
