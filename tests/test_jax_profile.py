"""What JAX's profiler can tell of an op: the kernel's name, the op's name, bytes and operations."""

from __future__ import annotations

import gzip
import json
import re
from pathlib import Path
from typing import Any

import jax
import pytest
import rocm_lowering as rocm
from inputs import call_of, jax_function
from jax.interpreters import mlir
from jaxlib.mlir import ir
from test_jax import ARGUMENTS, every_op

import m3ops_jax
from m3ops.ops import OPS
from m3ops.target import Target
from m3ops_jax._call import array_spec


def cost_of(operation: Any) -> Any:
    config = operation.attributes["mhlo.backend_config"]
    return json.loads(config["cost_estimate_json"].value) if "cost_estimate_json" in config else None


@every_op
@pytest.mark.parametrize(("platform", "arch"), [("cuda", "sm_90"), ("rocm", "gfx942")])
def test_the_custom_call_says_what_it_is_and_what_it_costs(name: str, platform: str, arch: str) -> None:
    rocm.require_plugin()
    with m3ops_jax.compile_for(arch):
        traced = jax.jit(jax_function(name)).trace(*ARGUMENTS[name])
        lowered = traced.lower(lowering_platforms=(platform,))
    op, inputs = call_of(name), dict(zip(OPS[name].inputs, map(array_spec, ARGUMENTS[name]), strict=False))
    plan = op.plan({**inputs, **op.check(inputs)}, Target.named(arch))
    calls = rocm.kernel_calls(lowered, platform)
    assert [call.name for call in calls] == [launch.kernel.__name__ for launch in plan.launches]
    with mlir.make_ir_context():
        module = ir.Module.parse(lowered.as_text(debug_info=True))
        operations = [*rocm.custom_calls(module.operation)]
        costs = [cost_of(operation) for operation in operations]
        assert all(re.search(rf"\b{name}\b", str(operation.location)) for operation in operations)
    assert costs[0] == {"flops": plan.flops, "bytes_accessed": plan.bytes_moved}
    assert not any(costs[1:]), "a profiler adds the costs up"
    assert plan.bytes_moved >= sum(a.nbytes for a in ARGUMENTS[name])
    assert plan.flops >= ARGUMENTS[name][0].size


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
    assert any(b"_swiglu_oai_kernel" in contents for contents in recorded)
