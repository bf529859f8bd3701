"""DTensor: what is sharded by rows is computed where it lies; an axis that belongs to a row is gathered first."""

from __future__ import annotations

import functools
import sys
from functools import partial
from typing import Any

import torch

from m3ops.op import ArraySpec, Op
from m3ops.ops import COUNTED, EVERY_OP


def register_if_wanted() -> None:
    """Tells DTensor how the ops are sharded, if the program has imported it; importing it takes a second.

    Called from fake implementations: DTensor asks them for the shapes of results before it looks for a rule.
    """
    if "torch.distributed.tensor" in sys.modules:
        _register()


@functools.cache
def _register() -> None:
    # What torch.distributed.tensor.experimental.register_sharding does, which itself cannot be used: it has no rules
    # for operators that return lists, and keeps a decision for later calls whatever their string and bool parameters.
    from torch.distributed.tensor import DTensor
    from torch.distributed.tensor._op_schema import RuntimeSchemaInfo

    for op in (*EVERY_OP.values(), *COUNTED.values()):
        operator = getattr(torch.ops.m3ops, op.name).default
        info = RuntimeSchemaInfo(static_kwargkey=list(op.params))
        DTensor._op_dispatcher.sharding_propagator.register_op_strategy(operator, partial(_strategy, op), info)


def _strategy(op: Op, schema: Any) -> Any:
    """The ways to shard a call over one axis of a mesh: by an axis of rows, or not at all; and over all its axes."""
    from torch.distributed.tensor import Replicate, Shard
    from torch.distributed.tensor._dtensor_spec import DTensorSpec
    from torch.distributed.tensor._ops.utils import expand_to_full_mesh_op_strategy

    given = [argument.strategies[0].output_spec.tensor_meta for argument in schema.args_schema]
    inputs = [ArraySpec(tuple(meta.shape), str(meta.dtype).removeprefix("torch.")) for meta in given]
    outputs = op.infer(*inputs, **schema.kwargs_schema)
    shape = inputs[0].shape
    rules: list[list[Any]] = [[Replicate()] * (len(outputs) + len(inputs))]
    # A sum over rows, the gradient of a weight, has one order of addition, which no sum of partial sums is.
    row_axes = 0 if op.row_sums else len(shape) - op.core_rank(schema.kwargs_schema)
    for axis in range(row_axes):
        rule: list[Any] = [Shard(axis)] * len(outputs)
        for spec in inputs:
            own = axis + len(spec.shape) - len(shape)  # axes align at the right
            rule.append(Shard(own) if own >= 0 and spec.shape[own] == shape[axis] else Replicate())
        rules.append(rule)
    strategy = expand_to_full_mesh_op_strategy(schema.get_mesh_from_args(), schema, rules, input_index=len(outputs))
    for choice in strategy.strategies:
        if isinstance(choice.output_specs, DTensorSpec):  # of a list, even of one result
            choice.output_specs = (choice.output_specs,)
    return strategy
