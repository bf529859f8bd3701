"""The vLLM plugin: with ``M3OPS_VLLM=1`` vLLM's functions are those of :mod:`m3ops_torch.compat.vllm`.

vLLM calls :func:`register` in each of its processes, before it loads a model. Its modules take functions from each
other with ``from ... import``, so a function is replaced where it is defined, right after its module has run; and in
modules that have taken it before.
"""

from __future__ import annotations

import importlib.abc
import importlib.machinery
import os
import sys
from collections.abc import Sequence
from types import ModuleType

from m3ops_torch.compat import vllm as replacements

_ACTIVATION = ("swiglu_oai_quantize_mxfp8", "swiglu_oai_split")
_NORMS = ("gemma_fused_add_rmsnorm", "gemma_rmsnorm")
DEFINED_IN = {
    "vllm.models.minimax_m3.amd.ops.swiglu_oai": _ACTIVATION,
    "vllm.model_executor.layers.fused_swiglu_oai": _ACTIVATION,  # where later versions have them
    "vllm.models.minimax_m3.amd.ops.gemma_rmsnorm": _NORMS,
    "vllm.models.minimax_m3.common.ops.gemma_rmsnorm": _NORMS,  # likewise
    "vllm.model_executor.layers.quantization.utils.mxfp8_utils": ("dequant_mxfp8_to_bf16", "mxfp8_e4m3_quantize"),
}
"""vLLM's modules, not all of which a version has, and the functions that they define."""


def register() -> None:
    """The entry point of ``vllm.general_plugins``. Does nothing unless ``M3OPS_VLLM`` is 1; may be called again."""
    if os.environ.get("M3OPS_VLLM") != "1":
        return
    for name in DEFINED_IN:
        if module := sys.modules.get(name):
            _replace(module)
    if _FINDER not in sys.meta_path:
        sys.meta_path.insert(0, _FINDER)


def _replace(module: ModuleType) -> None:
    """Replaces the functions of a module that has run, also where they have been imported from it."""
    for name in DEFINED_IN[module.__name__]:
        original, own = getattr(module, name, None), getattr(replacements, name)
        if original is None or original is own:
            continue
        for other_name, other in list(sys.modules.items()):
            if other_name.split(".")[0] == "vllm" and vars(other).get(name) is original:
                setattr(other, name, own)


class _Finder(importlib.abc.MetaPathFinder):
    """Finds vLLM's modules as usual and has them looked at after they have run."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if fullname not in DEFINED_IN:
            return None
        spec = importlib.machinery.PathFinder.find_spec(fullname, path, target)
        if spec and spec.loader:
            run = spec.loader.exec_module

            def run_and_replace(module: ModuleType) -> None:
                run(module)
                _replace(module)

            spec.loader.exec_module = run_and_replace  # type: ignore[method-assign]
        return spec


_FINDER = _Finder()
