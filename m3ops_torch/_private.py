"""The one door to what PyTorch does not document: each name, and why it is needed.

``tests/test_torch_private.py`` imports them all, so that a release that renames one is an error with its name.
"""

from __future__ import annotations

from typing import Any

from torch._C import _after_autograd_keyset as after_autograd
from torch._C import _AutoDispatchBelowAutograd as below_autograd
from torch._C import _dispatch_keys as dispatch_keys
from torch._C import _dispatch_tls_local_include_set as included_keys
from torch._C import _is_fwd_grad_enabled as is_forward_mode_enabled
from torch._C import _len_torch_function_stack as number_of_function_modes
from torch._C._autograd import _profiler_enabled as is_profiling
from torch._C._functorch import is_batchedtensor
from torch._functorch.utils import enable_single_level_autograd_function as single_level
from torch.autograd import forward_ad
from torch.autograd.forward_ad import _set_fwd_grad_enabled as set_forward_mode_enabled
from torch.autograd.function import _SingleLevelFunction as SingleLevelFunction
from torch.utils._pytree import GetAttrKey, register_pytree_node

__all__ = [
    "GetAttrKey",
    "SingleLevelFunction",
    "after_autograd",
    "below_autograd",
    "constant_while_traced",
    "dispatch_keys",
    "dtensor",
    "in_forward_mode",
    "included_keys",
    "is_batchedtensor",
    "is_forward_mode_enabled",
    "is_profiling",
    "number_of_function_modes",
    "register_pytree_node",
    "set_forward_mode_enabled",
    "single_level",
    "trace_instead",
]

# Direct calls (_direct.py) ask whether the dispatcher would do anything but call the implementation for a GPU:
#   dispatch_keys, included_keys   for what a tensor is, and for what is at work in this thread
#   number_of_function_modes       for a TorchFunctionMode, which comes before the dispatcher
#   is_profiling                   for the profiler, which is none of its keys
#   in_forward_mode                for forward mode, likewise
#
# Derivatives (_autograd.py) are those of one level of torch.func, whatever transforms are around it. What is public,
# torch.library.register_autograd and torch.autograd.Function, fails in torch.func.grad and under torch.compile of it:
#   SingleLevelFunction, single_level           the Function of one level
#   below_autograd, after_autograd              call what comes after autograd (with OpOverload.redispatch)
#   _compiled_autograd_key, _autograd_function_id       a Function tells compiled autograd which it is
#   is_forward_mode_enabled, set_forward_mode_enabled   a Function turns forward mode off for the levels below it
#
# out= (_out.py): is_batchedtensor   a vmap would have to look into the call
#
# MXFP8 (_mxfp8.py): register_pytree_node, GetAttrKey   torch.export saves containers that it knows by name; its public
#   register_dataclass makes a leaf of every field, and the layout is none.

#
# torch.compile (_call.py, _operators.py): trace_instead, constant_while_traced   torch.compiler.substitute_in_graph and
#   assume_constant_result do the same, but import torch._dynamo, which takes seconds


def trace_instead(function: Any, other: Any) -> None:
    """Has ``torch.compile`` trace another function in the place of one."""
    function._torchdynamo_inline = other


def constant_while_traced[F](function: F) -> F:
    """Has ``torch.compile`` call a function while it traces, and take the result for a constant."""
    function._dynamo_marked_constant = True  # type: ignore[attr-defined]
    return function


def in_forward_mode() -> bool:
    """Whether a level of forward mode is open."""
    return forward_ad._current_level >= 0


def dtensor() -> Any:
    """What ``torch.distributed.tensor.experimental.register_sharding`` is made of, by name.

    That itself cannot be used: it has no rules for operators that return lists, and keeps a decision for later calls
    whatever their string and bool parameters. Not imported before somebody asks, which takes a second.
    """
    from types import SimpleNamespace

    from torch.distributed.tensor import DTensor
    from torch.distributed.tensor._dtensor_spec import DTensorSpec
    from torch.distributed.tensor._op_schema import RuntimeSchemaInfo
    from torch.distributed.tensor._ops.utils import expand_to_full_mesh_op_strategy

    return SimpleNamespace(
        propagator=DTensor._op_dispatcher.sharding_propagator,
        DTensorSpec=DTensorSpec,
        RuntimeSchemaInfo=RuntimeSchemaInfo,
        expand_to_full_mesh_op_strategy=expand_to_full_mesh_op_strategy,
    )
