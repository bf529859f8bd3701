"""DTensor: what the axes of an op let be divided is computed where it lies; any other axis is gathered first."""

from __future__ import annotations

import dataclasses
import functools
import sys
from functools import partial
from typing import Any

from m3ops import row_count
from m3ops.axes import Axes, Operand, Shape
from m3ops.op import Op
from m3ops_torch import _operands, _private

REPLICATED, PARTIAL = "replicated", "a part of a sum"

Placement = int | str
"""The axis that is divided, or one of the above."""


def placements(axes: Axes, shapes: list[Shape], divisor: int) -> list[list[Placement]]:
    """The ways to place results and operands, in this order, over one axis of a mesh.

    A sum over rows, the gradient of a weight, has one order of addition, which no sum of partial sums is: its rows are
    not divided. What a product contracts is.

    Args:
        axes: The axes of an op.
        shapes: The shapes of its operands, ``num_rows`` last if it is among them.
        divisor: How many devices the axis of the mesh has.
    """
    inputs, results = row_count.names_of(axes, shapes)
    ways: list[list[Placement]] = [[REPLICATED] * (len(results) + len(inputs))]
    for factor in dict.fromkeys(name for names in inputs for name in names if name is not None):
        rows = factor not in _trailing(axes)
        if rows and axes.sums_rows:
            continue
        if not rows and not _divides(axes, factor, inputs, shapes, divisor):
            continue
        lacking = REPLICATED if rows else PARTIAL
        way: list[Placement] = [names.index(factor) if factor in names else lacking for names in results]
        ways.append(way + [names.index(factor) if factor in names else REPLICATED for names in inputs])
    return ways


def _trailing(axes: Axes) -> set[str]:
    return {axis.name for operand in (*axes.inputs, *axes.results) for axis in operand.axes if not axis.whole}


def _divides(axes: Axes, factor: str, inputs: Any, shapes: list[Shape], divisor: int) -> bool:
    """Whether each device gets whole steps of a trailing axis, whose parts the same op takes."""
    for operand, names, shape in zip(axes.inputs, inputs, shapes, strict=True):
        if factor in names:
            axis = _axis(operand, factor)
            if not axis.sized or shape[names.index(factor)] % (divisor * axis.multiple):
                return False
    return True


def _axis(operand: Operand, factor: str) -> Any:
    return next(axis for axis in operand.axes if axis.name == factor)


def register_if_wanted(op_type: type[Op], operator: Any) -> None:
    """Tells DTensor how an op is sharded, if the program has imported it; importing it takes a second.

    Called from fake implementations: DTensor asks them for the shapes of results before it looks for a rule.
    """
    if "torch.distributed.tensor" in sys.modules:
        _register(op_type, operator)


@functools.cache
def _register(op_type: type[Op], operator: Any) -> None:
    dtensor = _private.dtensor()
    parameters = [field.name for field in dataclasses.fields(op_type)]
    dtensor.propagator.register_op_strategy(
        operator, partial(_strategy, op_type), dtensor.RuntimeSchemaInfo(static_kwargkey=parameters)
    )


def _strategy(op_type: type[Op], schema: Any) -> Any:
    from torch.distributed.tensor import Partial, Replicate, Shard

    op, dtensor = op_type.of(**schema.kwargs_schema), _private.dtensor()
    operands = _operands.named(op, schema.args_schema)
    shapes = [tuple(argument.strategies[0].output_spec.tensor_meta.shape) for argument in operands.values()]
    mesh = schema.get_mesh_from_args()
    axes = op.axes_of(operands)
    ways = placements(axes, shapes, mesh.size())
    kinds = {REPLICATED: Replicate(), PARTIAL: Partial()}
    rules = [[kinds[place] if isinstance(place, str) else Shard(place) for place in way] for way in ways]
    strategy = dtensor.expand_to_full_mesh_op_strategy(mesh, schema, rules, input_index=len(axes.results))
    for choice in strategy.strategies:
        if isinstance(choice.output_specs, dtensor.DTensorSpec):  # of a list, even of one result
            choice.output_specs = (choice.output_specs,)
    return strategy
