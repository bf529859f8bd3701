"""``m3ops_jax`` on a HIP device: runs the programs that ``jax.jit`` lowers for ``rocm``.

A lowered program is StableHLO around kernel calls. The few operations that may stand around them run here in NumPy;
any other is an error: the front end promises a kernel call and nothing else.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np
import rocm_lowering
from jax.interpreters import mlir
from jaxlib.mlir import ir
from jaxlib.mlir.dialects import stablehlo as hlo

import m3ops_jax
from m3ops.tools.run import jax_function
from rocm.launch import POISON, Execute, Launch

_DTYPES = {
    "bf16": "bfloat16", "f16": "float16", "f32": "float32", "f8E4M3FN": "float8_e4m3fn",
    "f8E4M3FNUZ": "float8_e4m3fnuz", "ui8": "uint8", "i32": "int32",
}  # fmt: skip


def run(
    arch: str, op: str, arrays: Sequence[Any], params: Mapping[str, Any], execute: Execute = Launch.run
) -> list[np.ndarray]:
    """Calls an op of ``m3ops_jax`` on an AMD GPU.

    JAX has no views and by default no 64-bit types: arrays are copied to be contiguous and cut to 32 bits first.
    """
    inputs = [a if a is None else _as_jax_has_it(a) for a in arrays]
    given = [array for array in inputs if array is not None]
    return execute_program(lower(arch, op, inputs, params), given, execute)


def _as_jax_has_it(array: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(array, jax.dtypes.canonicalize_dtype(array.dtype)).reshape(array.shape)


def lower(arch: str, op: str, avals: Sequence[Any], params: Mapping[str, Any]) -> jax.stages.Lowered:
    """Lowers ``jit`` of an op for an AMD GPU."""
    rocm_lowering.require_plugin()
    with m3ops_jax.compile_for(arch):
        traced = jax.jit(functools.partial(jax_function(op), **params)).trace(*avals)
        lowered: jax.stages.Lowered = traced.lower(lowering_platforms=("rocm",))
    return lowered


def execute_program(
    program: jax.stages.Lowered, inputs: Sequence[np.ndarray], execute: Execute = Launch.run
) -> list[np.ndarray]:
    """Runs a lowered program on NumPy arrays."""
    with mlir.make_ir_context():
        module = ir.Module.parse(program.as_text())
        functions = {f.attributes["sym_name"].value: f for f in module.body.operations}
        return _call(functions, "main", inputs, execute)


def _call(functions: dict[str, Any], name: str, inputs: Sequence[np.ndarray], execute: Execute) -> list[np.ndarray]:
    (block,) = functions[name].regions[0].blocks
    values = dict(zip(block.arguments, inputs, strict=True))
    for operation in block.operations:
        operands = [values[operand] for operand in operation.operands]
        match operation.operation.name:
            case "func.return":
                return operands
            case "func.call":
                results = _call(functions, operation.attributes["callee"].value, operands, execute)
            case "stablehlo.custom_call":
                results = _results(operation, operands)
                execute(_launch(operation, [*operands, *results]))
            case "stablehlo.bitcast_convert":
                results = [operands[0].view(_dtype(operation.result))]
            case "stablehlo.reshape" | "stablehlo.optimization_barrier":
                results = operands
            case "stablehlo.constant":
                results = [_zero(operation)]
            case "stablehlo.broadcast_in_dim" if operands[0].size == 1:
                results = [np.broadcast_to(operands[0].reshape(()), _shape(operation.result))]
            case unexpected:
                raise NotImplementedError(f"a kernel call with {unexpected} beside it")
        for value, result in zip(operation.results, results, strict=True):
            values[value] = result.reshape(_shape(value))
    raise ValueError(f"{name} does not return")


def _results(operation: Any, operands: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Memory for the results of a call. What is said to be in an operand's memory holds what that held."""
    results = [np.frombuffer(bytearray([POISON]) * _nbytes(r), _dtype(r)) for r in operation.results]
    for alias in map(hlo.OutputOperandAlias, operation.attributes.get("output_operand_aliases", ())):
        (result,) = alias.output_tuple_indices or [0]
        results[result] = operands[alias.operand_index].copy()
    return results


def _launch(operation: Any, buffers: Sequence[np.ndarray]) -> Launch:
    call = rocm_lowering.kernel_call(operation)
    args = [buffers[a.buffer] if a.kind == "array" else a.value for a in call.arguments]
    return Launch(call.assembly, call.image, call.threads, call.shared_bytes, call.grid, args)


def _zero(operation: Any) -> np.ndarray:
    """What an empty result is made of."""
    value = ir.DenseElementsAttr(operation.attributes["value"])
    if not value.is_splat or str(value.get_splat_value()).split(" : ")[0] not in ("0", "0.000000e+00"):
        raise NotImplementedError(f"a constant other than zero beside a kernel call: {value}")
    return np.zeros(_shape(operation.result), _dtype(operation.result))


def _shape(value: Any) -> tuple[int, ...]:
    return tuple(ir.RankedTensorType(value.type).shape)


def _dtype(value: Any) -> np.dtype:
    return np.dtype(_DTYPES[str(ir.RankedTensorType(value.type).element_type)])


def _nbytes(value: Any) -> int:
    return int(np.prod(_shape(value))) * _dtype(value).itemsize
