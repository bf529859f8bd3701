"""How an op of the core becomes a JAX primitive: the rules for each transformation and platform, put together."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir, xla

from m3ops import derivatives, row_count
from m3ops.numerics.exact.namespaces import COMPILERS, Compiler
from m3ops_jax import _launch, _partition, _private
from m3ops_jax._call import Call, inlining
from m3ops_jax._sharding import divided_alike, like_type, result_types, whole_along_first_axis


def _loop(loop: Callable[..., Any]) -> Callable[..., Any]:
    """A loop of a program from :meth:`Call.compute`, whose way to inline functions would unroll it."""

    @functools.wraps(loop)
    def call(*args: Any) -> Any:
        with jax.disable_jit(False):
            return loop(*(inlining(arg) if callable(arg) else arg for arg in args))

    return call


@_loop
def _fold(step: Callable[..., Any], total: Any, *terms: jax.Array) -> Any:
    if isinstance(length := terms[0].shape[0], int):
        return jax.lax.scan(lambda total, term: (step(total, *term), None), total, terms)[0]
    # A scan would count to a symbol in the type that sizes had before 64-bit types were enabled.
    at = functools.partial(jax.lax.dynamic_index_in_dim, keepdims=False, allow_negative_indices=False)
    return jax.lax.fori_loop(
        jnp.int64(0), _int64(length), lambda i, total: step(total, *(at(term, i) for term in terms)), total
    )


@_loop
def _choose(size: int, bounds: list[int], functions: list[Callable[..., Any]], *arrays: jax.Array) -> Any:
    return jax.lax.switch(sum(_int64(size) >= bound for bound in bounds), [*map(inlining, functions)], *arrays)


def _int64(size: int) -> jax.Array:
    """A size, which may be a symbol."""
    return jnp.asarray(size, jnp.int64)


@_loop
def _each(function: Callable[..., Any], *terms: jax.Array) -> Any:
    return jax.lax.map(lambda term: function(*term), terms)


@_loop
def _repeat(count: jax.Array, step: Callable[..., Any], total: jax.Array) -> Any:
    return jax.lax.fori_loop(jnp.zeros_like(count), count, step, total)


COMPILERS[jnp] = Compiler(barrier=jax.lax.optimization_barrier, fold=_fold, each=_each, repeat=_repeat, choose=_choose)


def results_of(call: Call, arrays: Sequence[jax.Array]) -> dict[str, jax.Array]:
    """The results of a call by name."""
    if not call.counts_rows and (unfolded := call.op.unfolded()):
        outer, op = unfolded
        rows = [_unfold(name, array, outer) for name, array in zip(call.operands, arrays, strict=True)]
        results = results_of(replace(call, op=op), rows)
        return {name: r.reshape(*r.shape[:-2], outer * r.shape[-1]) for name, r in results.items()}
    compute = _reverse_mode if call.op.derivative and not call.counts_rows else _bind
    return dict(zip(call.results(arrays), compute(call, *arrays), strict=True))


def _unfold(name: str, array: jax.Array, outer: int) -> jax.Array:
    """Makes the outer factor of the last axis an axis of its own, to be divided as rows are; to XLA that is a bitcast.

    Raises:
        ValueError: On an explicit mesh, the devices that divide the last axis do not divide the factor.
    """
    aval = jax.typeof(array)
    names = aval.sharding.spec[-1] or ()
    devices = math.prod(aval.sharding.mesh.shape[n] for n in ((names,) if isinstance(names, str) else names))
    if outer % devices:
        raise ValueError(
            f"groups must be a multiple of {devices}, the number of devices that divide the last axis of {name}, "
            f"got {outer} and {aval.str_short(True)}"
        )
    return array.reshape(*array.shape[:-1], outer, array.shape[-1] // outer)


def _bind(call: Call, *arrays: jax.Array) -> tuple[jax.Array, ...]:
    primitive = _primitive(call.op.name, _partition.xla_divides(arrays))
    return tuple(primitive.bind(*arrays, call=call))


def _reverse_mode(call: Call, *arrays: jax.Array) -> tuple[jax.Array, ...]:
    """A call with a derivative of the one kind that there is.

    Raises:
        TypeError: It is asked for a forward-mode derivative. In a function under jit JAX raises its own error.
    """
    try:
        results: tuple[jax.Array, ...] = _differentiable(call, *arrays)
    except TypeError as error:
        if "forward-mode" in str(error):
            raise TypeError(
                f"{call.op.name} has no forward-mode derivative (jax.jvp, jax.jacfwd, jax.linearize); there is one for "
                "reverse mode (jax.grad, jax.vjp, jax.jacrev)"
            ) from error
        raise
    return results


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _differentiable(call: Call, *arrays: jax.Array) -> tuple[jax.Array, ...]:
    return _bind(call, *arrays)


def _forward(call: Call, *arrays: jax.Array) -> tuple[Any, Any]:
    return _bind(call, *arrays), arrays


def _backward(call: Call, arrays: Sequence[jax.Array], grads: Sequence[jax.Array]) -> tuple[jax.Array | None, ...]:
    derivative = call.op.derivative
    assert derivative is not None
    named = call.named(arrays)
    given = derivative.operands(named, (grad for grad in grads if grad.dtype != jax.dtypes.float0))
    backward = Call(derivative.op, tuple(given), call.targets)
    operands = divided_alike(backward, [*given.values()])
    results = dict(zip(backward.results(operands), _bind(backward, *operands), strict=True))
    gradients = {name: results[of] for name, of in derivative.gradients.items() if name in named}
    gradients |= {name: jnp.asarray(grads[0]) for name in derivative.added}
    return tuple(
        like_type(gradients[name].astype(array.dtype), array) if name in gradients else None  # None: of zeros
        for name, array in named.items()
    )


_differentiable.defvjp(_forward, _backward)


@functools.cache
def _primitive(name: str, needs_devices: bool) -> Primitive:
    primitive = Primitive(name)
    primitive.multiple_results = True
    primitive.def_impl(functools.partial(xla.apply_primitive, primitive))
    primitive.def_abstract_eval(result_types)
    batching.primitive_batchers[primitive] = functools.partial(_batch, primitive)
    ad.primitive_jvps[primitive] = functools.partial(_no_derivative, primitive)
    mlir.register_lowering(primitive, functools.partial(_partition.lower, Call.compute))
    for platform in ("cuda", "rocm"):
        launch = functools.partial(_launch.launch, platform)
        mlir.register_lowering(primitive, functools.partial(_partition.lower, launch), platform=platform)
    if needs_devices:
        _private.give_devices(primitive)
    return primitive


def _batch(primitive: Primitive, arrays: Sequence[Any], dims: Sequence[Any], *, call: Call) -> tuple[Any, Any]:
    """Batch axes become leading axes of one call, so that the rows of all examples run in one launch."""
    axes = call.axes
    inputs = [*zip(axes.inputs, arrays, dims, strict=False)]  # all but the number of rows that count
    size = next(array.shape[dim] for array, dim in zip(arrays, dims, strict=True) if dim is not None)
    counts = _counts_of_all(arrays[-1], dims[-1], size) if call.counts_rows else None
    has_rows = all(operand.rows for operand, _, dim in inputs if dim is not None)
    countable = counts is None or (call.op.counts_buffers and row_count.can_be(counts.size))
    if axes.joins_rows or not (has_rows and countable):
        return _one_by_one(primitive, arrays, dims, call)
    leading = [array.ndim - (dim is not None) - len(operand.axes) for operand, array, dim in inputs]
    most = max(own for (operand, _, _), own in zip(inputs, leading, strict=True) if operand.rows)
    batched = []
    for (operand, array, dim), own in zip(inputs, leading, strict=True):
        # What has rows and cannot lack them is repeated, and the rest if there is a sum: over the rows of one example.
        if dim is None and operand.rows and (not operand.broadcast or axes.sums_rows):
            array, dim = jnp.broadcast_to(array, (size, *array.shape)), 0
        if dim is not None:
            array = jnp.moveaxis(array, dim, 0)
            array = jnp.expand_dims(array, range(1, 1 + most - own))
        batched.append(array)
    if counts is not None:
        batched.append(counts)
    results = list(primitive.bind(*batched, call=call))
    weight = next((own for (operand, _, _), own in zip(inputs, leading, strict=True) if operand.broadcast), 0)
    for number, result in enumerate(axes.results):
        if result.summed:
            results[number] = jnp.squeeze(results[number], range(1, 1 + most - weight))
    return results, (0,) * len(results)


def _counts_of_all(num_rows: jax.Array, dim: int | None, size: int) -> jax.Array:
    """The counts of so many examples, each with one or several buffers."""
    of_all = jnp.broadcast_to(num_rows, (size, *num_rows.shape)) if dim is None else jnp.moveaxis(num_rows, dim, 0)
    return of_all.reshape(size) if math.prod(of_all.shape[1:]) == 1 else of_all


def _one_by_one(primitive: Primitive, arrays: Sequence[Any], dims: Sequence[Any], call: Call) -> tuple[Any, Any]:
    """For what cannot be one call. A loop goes over whole axes."""
    mapped = [jnp.moveaxis(array, dim, 0) for array, dim in zip(arrays, dims, strict=True) if dim is not None]
    mapped = [whole_along_first_axis(array) for array in mapped]
    if mapped[0].shape[0] == 0:  # with jit disabled a loop needs an example to know its results
        rest = iter(jax.ShapeDtypeStruct(array.shape[1:], array.dtype) for array in mapped)
        specs = call.results([array if dim is None else next(rest) for array, dim in zip(arrays, dims, strict=True)])
        return [jnp.zeros((0, *spec.shape), spec.dtype) for spec in specs.values()], (0,) * len(specs)

    def one(examples: Sequence[Any]) -> Any:
        left = iter(examples)
        operands = (array if dim is None else next(left) for array, dim in zip(arrays, dims, strict=True))
        return primitive.bind(*operands, call=call)

    results = jax.lax.map(one, mapped)
    return results, (0,) * len(results)


def _no_derivative(primitive: Primitive, arrays: Sequence[Any], _: Any, *, call: Call) -> tuple[Any, Any]:
    """The derivative of what depends on whole numbers alone, which is zero; there is no other."""
    if any(jnp.issubdtype(array.dtype, jnp.floating) for array in arrays):
        raise derivatives.missing(call.op, "jax.lax.stop_gradient", "jax.custom_vjp", counted=call.counts_rows)
    results = primitive.bind(*arrays, call=call)
    return results, [ad.Zero(jax.typeof(result).to_tangent_aval()) for result in results]
