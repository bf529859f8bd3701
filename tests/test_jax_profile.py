"""What JAX's profiler can tell of an op: the kernel's name, the op's name, bytes and operations."""

from __future__ import annotations

import gzip
import json
import re
from pathlib import Path

import jax
import pytest
import rocm_lowering as rocm
from jax.interpreters import mlir
from jaxlib.mlir import ir
from test_jax import ARGUMENTS, every_op

import m3ops_jax
from m3ops.op import ArraySpec
from m3ops.ops import OPS
from m3ops.target import Target


@every_op
@pytest.mark.parametrize(("platform", "arch"), [("cuda", "sm_90"), ("rocm", "gfx942")])
def test_the_custom_call_says_what_it_is_and_what_it_costs(name: str, platform: str, arch: str) -> None:
    rocm.require_plugin()
    with m3ops_jax.compile_for(arch):
        traced = jax.jit(getattr(m3ops_jax, name)).trace(*ARGUMENTS[name])
        lowered = traced.lower(lowering_platforms=(platform,))
    op, inputs = OPS[name], tuple(ArraySpec(a.shape, a.dtype.name) for a in ARGUMENTS[name])
    params = op.filled({})
    plan = op.plan(inputs, op.infer(*inputs, **params), params, Target.named(arch))
    (call,) = rocm.kernel_calls(lowered, platform)
    assert call.name == f"_{name}_kernel"
    with mlir.make_ir_context():
        module = ir.Module.parse(lowered.as_text(debug_info=True))
        (operation,) = rocm.custom_calls(module.operation)
        config = operation.attributes["mhlo.backend_config"]
        cost = json.loads(config["cost_estimate_json"].value)
        assert re.search(rf"\b{name}\b", str(operation.location))
    assert cost == {"flops": plan.flops, "bytes_accessed": plan.bytes_moved}
    assert plan.bytes_moved >= sum(a.nbytes for a in ARGUMENTS[name])
    assert plan.flops > 0


@pytest.mark.gpu
@pytest.mark.skipif(jax.default_backend() == "cpu", reason="no GPU")
def test_a_profile_names_the_kernel(tmp_path: Path) -> None:
    (gate_up,) = ARGUMENTS["swiglu_oai_quantize"]
    jitted = jax.jit(m3ops_jax.swiglu_oai_quantize)
    jax.block_until_ready(jitted(gate_up))
    with jax.profiler.trace(str(tmp_path)):
        jax.block_until_ready(jitted(gate_up))
    recorded = [path.read_bytes() for path in tmp_path.rglob("*.xplane.pb")]
    recorded += [gzip.decompress(path.read_bytes()) for path in tmp_path.rglob("*.json.gz")]
    assert any(b"_swiglu_oai_quantize_kernel" in contents for contents in recorded)
