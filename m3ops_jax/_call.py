"""A call of an op as one value, and the way of every call of a public function."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.extend.core  # its settings are in jit's key: brought by a first trace, they would make a second due
import jax.numpy as jnp
import numpy as np

from m3ops import row_count
from m3ops.array import ArraySpec
from m3ops.axes import Axes
from m3ops.mxfp8 import packed
from m3ops.numerics.scale_layouts import ROW_MAJOR
from m3ops.op import Op, bind
from m3ops_jax._mxfp8 import MXFP8
from m3ops_jax.compile_for import current_targets


@dataclass(frozen=True)
class Call:
    """All of a call but its arrays: the static parameter of an op's primitive.

    Attributes:
        op: The op.
        operands: Names of the arrays in their order: the op's inputs, and ``num_rows`` where rows are counted.
        targets: Names given to ``compile_for``; none for the devices that are there.
        updates: Inputs whose memory a result takes, each with that result. In the rows that do not count, and where an
            op inserts only a part, the result keeps what the input held.
    """

    op: Op
    operands: tuple[str, ...]
    targets: tuple[str, ...] = ()
    updates: tuple[tuple[str, str], ...] = ()

    @property
    def counts_rows(self) -> bool:
        return row_count.NAME in self.operands

    @property
    def axes(self) -> Axes:
        return self.op.axes_of(self.operands)

    def named(self, arrays: Sequence[Any]) -> dict[str, Any]:
        """The arrays by name."""
        return dict(zip(self.operands, arrays, strict=True))

    def results(self, arrays: Sequence[Any]) -> dict[str, ArraySpec]:
        """What the results are like, by name."""
        return self.op.check({name: array_spec(array) for name, array in self.named(arrays).items()})

    def check_known(self, arrays: Sequence[Any], why: str) -> None:
        """Raises ValueError unless all sizes are numbers."""
        for name, array in self.named(arrays).items():
            if not all(isinstance(size, int) for size in array.shape):
                shape = ", ".join(map(str, array.shape))
                raise ValueError(
                    f"{self.op.name} needs a shape without symbolic sizes: {why}; got {name} of shape ({shape})"
                )

    def compute(self, *arrays: jax.Array) -> Sequence[jax.Array]:
        """The specification under XLA, where there is no kernel. It needs 64-bit types, whatever the user chose."""
        if not self.op.any_size:
            self.check_known(arrays, "its rows are looked up by their numbers")
        with jax.enable_x64(True), jax.numpy_rank_promotion("allow"), jax.numpy_dtype_promotion("standard"):
            results: Sequence[jax.Array] = _computed(self, *arrays)
        return results


@functools.partial(jax.jit, static_argnums=0)
def _computed(call: Call, *arrays: jax.Array) -> tuple[jax.Array, ...]:
    """A function of its own, which is traced once for arrays of one kind, whatever programs it becomes a part of."""
    results = inlining(_evaluated)(call, call.named(arrays))
    # XLA would compute a result anew for each of its uses, and takes minutes to compile some of those.
    kept: tuple[jax.Array, ...] = jax.lax.optimization_barrier(tuple(results.values()))
    return kept


def _evaluated(call: Call, named: Mapping[str, jax.Array]) -> dict[str, jax.Array]:
    results = call.op.evaluate(named)
    if call.counts_rows and not call.op.inserts:
        written = call.op.written(named, results)
        for given, result in call.updates:
            results[result] = jnp.where(written[result], results[result], named[given])
    return results


def inlining(function: Callable[..., Any]) -> Callable[..., Any]:
    """A function that becomes one with those of jax.numpy that it calls.

    Each of those is jitted, so would be a function of the program, traced, lowered and compiled apart: up to a third of
    the time to compile, by the op.
    """

    @functools.wraps(function)
    def call(*args: Any) -> Any:
        with jax.disable_jit():
            return function(*args)

    return call


def array_spec(array: Any) -> ArraySpec:
    """What the core knows of an array: shape and dtype; that of numbers in another byte order has no name there."""
    dtype = array.dtype
    return ArraySpec(tuple(array.shape), dtype.name if getattr(dtype, "isnative", True) else dtype.str)


def run(op: Op, *arrays: Any, num_rows: Any = None) -> Any:
    """Computes an op.

    Args:
        op: The op.
        arrays: Its inputs in order: arrays of JAX or NumPy, or what turns itself into one by ``__jax_array__``, as
            ``nnx.Param`` does. Those of ``op.updates`` may be a ``jax.Ref`` each, which is then updated.
        num_rows: How many rows count: an int32 array of one element, or one for each buffer; None for all.

    Returns:
        The results as the public function returns them.
    """
    from m3ops_jax._primitive import results_of

    given = {name: _unwrapped(array) for name, array in bind(op, arrays, num_rows).items()}
    refs = {name: array for name, array in given.items() if name in op.updates and isinstance(array, jax.Ref)}
    _check_apart(refs)
    given |= {name: ref[...] for name, ref in refs.items()}
    op.check({name: spec_of(name, array) for name, array in given.items()})
    if op.checked:
        _check_values(op, given)
    updates = tuple((name, result) for name, result in op.updates.items() if name in (given if op.inserts else refs))
    call = Call(op, tuple(given), current_targets(), updates)
    results = results_of(call, _operands(given))
    for name, ref in refs.items():
        ref[...] = results[op.updates[name]]
    return packed(results, MXFP8, getattr(op, "scale_layout", ROW_MAJOR))


def _check_apart(refs: Mapping[str, jax.Ref]) -> None:
    """Raises ValueError if one Ref is given twice: of two results it would have the last alone."""
    seen: dict[int, str] = {}
    for name, ref in refs.items():
        if (other := seen.setdefault(id(ref), name)) != name:
            raise ValueError(f"{name} must not be the Ref that {other} is")


def _unwrapped(array: Any) -> Any:
    if isinstance(array, jax.Array | np.ndarray | jax.Ref) or not hasattr(array, "__jax_array__"):
        return array
    return array.__jax_array__()


def _check_values(op: Op, given: Mapping[str, Any]) -> None:
    """Validates values, if those that matter are known without a device being asked."""
    known = {name: array for name, array in given.items() if name in (*op.checked, row_count.NAME)}
    if all(map(_on_host, known.values())):
        op.check_values({**given, **{name: np.asarray(array) for name, array in known.items()}})


def _on_host(array: Any) -> bool:
    """Whether the values of an array are known without a device being asked."""
    if isinstance(array, jax.core.Tracer) or not isinstance(array, jax.Array):
        return isinstance(array, np.ndarray)
    return array.is_fully_addressable and all(device.platform == "cpu" for device in array.devices())


def spec_of(name: str, array: Any) -> ArraySpec:
    """What the core knows of an argument.

    Raises:
        TypeError: It is no array.
    """
    if not isinstance(array, jax.Array | np.ndarray):
        raise TypeError(f"{name} must be an array, got {type(array).__name__}")
    return array_spec(array)


def _operands(given: Mapping[str, Any]) -> list[jax.Array]:
    """The arrays as the primitive takes them. In a shard_map, where a weight may be the same on all devices and x is
    not, they are made to vary alike, as jax.numpy does to operands.
    """
    arrays = {name: _asarray(array) for name, array in given.items()}
    if row_count.NAME in arrays and arrays[row_count.NAME].size == 1:
        arrays[row_count.NAME] = arrays[row_count.NAME].reshape(1)
    varying = [jax.typeof(array).manual_axis_type.varying for array in arrays.values()]
    every = frozenset().union(*varying)
    return [
        jax.lax.pcast(array, tuple(every - own), to="varying") if own != every else array
        for array, own in zip(arrays.values(), varying, strict=True)
    ]


def _asarray(array: Any) -> jax.Array:
    """An array of JAX, which cuts int64 to 32 bits where those are off: a number past these stays past all indices."""
    if isinstance(array, np.ndarray) and array.dtype == np.int64 and not jax.config.jax_enable_x64:
        array = array.clip(-(2**31), 2**31 - 1)
    return jnp.asarray(array)


def dtype_name(dtype: Any) -> Any:
    """The name of a dtype argument; what is no dtype keeps its own text, for the core to reject."""
    try:
        return None if dtype is None else jnp.dtype(dtype).name
    except TypeError:
        return repr(dtype)
