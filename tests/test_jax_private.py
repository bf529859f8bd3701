"""Names of JAX and jax-triton that are not public: they are there, and each comes through one door."""

from __future__ import annotations

import ast
import importlib
from pathlib import Path

import pytest
from rocm_lowering import require_plugin

import m3ops_jax

FOLDER = Path(m3ops_jax.__file__).parent
OF_JAX = {
    "jax._src.dispatch": ["prim_requires_devices_during_lowering"],
    "jax._src.interpreters.mlir": ["LoweringParameters.for_export"],
    "jax._src.sharding_impls": ["ShardingContext.num_devices", "SPMDAxisContext.manual_axes"],
    "jaxlib.gpu_triton": ["TritonKernel"],
}
OF_JAX_TRITON = {
    "jax_triton.triton_lib": [
        "_patch_hip_backend",
        "compile_ttir_to_hsaco_inplace",
        "hb.GPUTarget",
        "make_cuda_target",
        "make_hip_target",
        "triton_kernel_call_lowering",
        "triton_kernel_call_p",
    ],
}
NAMES = [
    pytest.param(module, name, door, id=f"{module}.{name}")
    for door, modules in (("_private", OF_JAX), ("_triton_compat", OF_JAX_TRITON))
    for module, names in modules.items()
    for name in names
]


@pytest.mark.parametrize(("module", "name", "door"), NAMES)
def test_it_is_there(module: str, name: str, door: str) -> None:
    require_plugin()
    found = importlib.import_module(module)
    for part in name.split("."):
        fields = getattr(found, "__dataclass_fields__", {})
        assert hasattr(found, part) or part in fields, f"{module}.{name} is gone: see m3ops_jax/{door}.py"
        found = fields.get(part) or getattr(found, part)


@pytest.mark.parametrize("path", sorted(FOLDER.rglob("*.py")), ids=lambda path: path.name)
def test_it_comes_through_one_door(path: Path) -> None:
    nodes = list(ast.walk(ast.parse(path.read_text())))
    imported = {node.module or "" for node in nodes if isinstance(node, ast.ImportFrom)}
    imported |= {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    of_jax = {name for name in imported if name.startswith("jax._src") or name == "jaxlib.gpu_triton"}
    of_jax_triton = {name for name in imported if name.split(".")[0] == "jax_triton"}
    assert not of_jax or path.name == "_private.py"
    assert not of_jax_triton or path.name == "_triton_compat.py"
