"""A dense block of MiniMax-M3 on these ops, as a function of a pytree and as flax modules.

Each column of a weight has one entry, a power of two, so that matrix products are exact by whatever algorithm, and the
block's bytes are those of the specification on every device and for every division among devices.
"""

from __future__ import annotations

import re
from typing import Any

import jax
import jax.numpy as jnp
import m3_block_jax
import numpy as np
import pytest
import rocm_lowering as rocm
from compare import assert_same_bytes
from flax import nnx
from jax.sharding import AbstractMesh, AxisType, NamedSharding
from jax.sharding import PartitionSpec as P
from specification import reference
from test_jax import equations, same
from test_jax_sharding import AUTO, DEVICES, EXPLICIT, every_kind, mesh_of, run

import m3ops_jax
from m3ops.ops import OPS
from m3ops.testing.arrays import normal, random_bits
from m3ops_jax.nnx import DenseMLP, GemmaRMSNorm

HIDDEN, INNER = 128, 256
STEPS = ["gemma_rmsnorm", "swiglu_oai_quantize", "mxfp8_dequantize", "gemma_fused_add_rmsnorm"]
X = normal((8, 16, HIDDEN), "bfloat16")

several = pytest.mark.skipif(len(DEVICES) < 2, reason="needs several devices")


def selection(rows: int, columns: int) -> np.ndarray:
    """A matrix with one power of two, of either sign, in each column."""
    bits = random_bits((columns,), f"selection {rows} {columns}")
    matrix = np.zeros((rows, columns), np.float32)
    entries = np.ldexp(1.0, (bits % np.uint64(4)).astype(int) - 1) * np.where(bits >> np.uint64(63), 1.0, -1.0)
    matrix[(bits >> np.uint64(8)) % np.uint64(rows), np.arange(columns)] = entries
    return matrix.astype("bfloat16")


PARAMS = {
    "norm": normal((HIDDEN,), "float32", 0.1),
    "gate_up": selection(HIDDEN, 2 * INNER),
    "down": selection(INNER, HIDDEN),
    "next_norm": normal((HIDDEN,), "float32", 0.2),
}


def product(x: np.ndarray, selection: np.ndarray) -> np.ndarray:
    result: np.ndarray = (x.astype(np.float32) @ selection.astype(np.float32)).astype("bfloat16")
    return result


def expected(groups: int = 1) -> Any:
    (h,) = reference("gemma_rmsnorm", X, PARAMS["norm"])
    values, scales = reference("swiglu_oai_quantize", product(h, PARAMS["gate_up"]), groups=groups)
    (act,) = reference("mxfp8_dequantize", values, scales)
    return reference("gemma_fused_add_rmsnorm", product(act, PARAMS["down"]), X, PARAMS["next_norm"])


def expect(results: Any, groups: int = 1) -> None:
    assert_same_bytes([*map(np.asarray, results)], expected(groups))


def test_the_initial_parameters() -> None:
    params = m3_block_jax.init(jax.random.key(0), HIDDEN, INNER)
    assert {k: (v.shape, v.dtype) for k, v in params.items()} == {k: (v.shape, v.dtype) for k, v in PARAMS.items()}
    norm, residual = m3_block_jax.block(params, jnp.asarray(X))
    assert norm.shape == residual.shape == X.shape
    assert bool(jnp.isfinite(norm).all())


def test_each_op_is_called_once() -> None:
    expect(jax.jit(m3_block_jax.block)(PARAMS, X))
    names = [e.primitive.name for e in equations(jax.make_jaxpr(m3_block_jax.block)(PARAMS, X).jaxpr)]
    assert [name for name in names if name in OPS] == STEPS


@several
@every_kind
def test_divided_tokens_need_no_communication(kinds: tuple[AxisType, AxisType]) -> None:
    mesh = mesh_of(*kinds)
    params = jax.device_put(PARAMS, NamedSharding(mesh, P()))
    with jax.set_mesh(mesh):
        results, collectives = run(m3_block_jax.block, params, jax.device_put(X, NamedSharding(mesh, P("a", "b"))))
    assert not collectives
    expect(results)
    assert all(r.sharding.is_equivalent_to(NamedSharding(mesh, P("a", "b")), 3) for r in results)


@pytest.mark.gpu
@pytest.mark.skipif(jax.default_backend() == "cpu" or len(jax.devices()) < 2, reason="needs several GPUs")
@every_kind
def test_on_gpus_each_op_is_one_custom_call(kinds: tuple[AxisType, AxisType]) -> None:
    mesh = mesh_of(*kinds)
    params = jax.device_put(PARAMS, NamedSharding(mesh, P()))
    x = jax.device_put(X, NamedSharding(mesh, P("a", "b")))
    with jax.set_mesh(mesh):
        divided = jax.jit(m3_block_jax.block).lower(params, x).compile()
    alone = jax.jit(m3_block_jax.block).lower(PARAMS, X).compile()
    for compiled in (divided, alone):
        assert compiled.as_text().count(f'custom_call_target="{rocm.CUSTOM_CALL}"') == len(STEPS)
        assert not m3_block_jax.collectives(compiled)
    same(jax.tree.map(np.asarray, divided(params, x)), alone(PARAMS, X))


@pytest.mark.parametrize(("platform", "arch"), [("cuda", "sm_90"), ("rocm", "gfx950")])
def test_lowered_for_gpus_each_op_is_one_custom_call(platform: str, arch: str) -> None:
    """On 8 of them, of which this machine needs none."""
    rocm.require_plugin()
    mesh = AbstractMesh((4, 2), ("a", "b"), axis_types=(EXPLICIT, EXPLICIT))
    params, x = (
        jax.tree.map(lambda a, s=spec: jax.ShapeDtypeStruct(a.shape, a.dtype, sharding=NamedSharding(mesh, s)), arrays)
        for arrays, spec in ((PARAMS, P()), (X, P("a", "b")))
    )
    with m3ops_jax.compile_for(arch):
        lowered = jax.jit(m3_block_jax.block).trace(params, x).lower(lowering_platforms=(platform,))
    calls = rocm.kernel_calls(lowered, platform)
    assert [call.name for call in calls] == [
        "_gemma_rmsnorm_kernel",
        "_swiglu_oai_kernel",
        "_mxfp8_dequantize_kernel",
        "_gemma_rmsnorm_kernel",
    ]
    assert all(rocm.Argument("i32", X[..., 0].size // mesh.size) in call.arguments for call in calls)
    operations = set(re.findall(r"stablehlo\.(\w+)", lowered.as_text()))
    assert not {o for o in operations if re.match(r"all_|collective_|reduce_scatter", o)}


def modules(groups: int = 1, quantize: bool = True) -> tuple[GemmaRMSNorm, DenseMLP, GemmaRMSNorm]:
    norm, next_norm = GemmaRMSNorm(HIDDEN), GemmaRMSNorm(HIDDEN)
    mlp = DenseMLP(HIDDEN, INNER, quantize=quantize, groups=groups, rngs=nnx.Rngs(0))
    given = ((norm.weight, "norm"), (mlp.gate_up, "gate_up"), (mlp.down, "down"), (next_norm.weight, "next_norm"))
    for parameter, name in given:
        assert (parameter[...].shape, parameter[...].dtype) == (PARAMS[name].shape, PARAMS[name].dtype)
        parameter[...] = jnp.asarray(PARAMS[name])
    return norm, mlp, next_norm


@pytest.mark.parametrize("quantize", [False, True])
def test_a_module_on_no_rows(quantize: bool) -> None:
    _, mlp, _ = modules(quantize=quantize)
    assert mlp(jnp.zeros((2, 0, HIDDEN), jnp.bfloat16)).shape == (2, 0, HIDDEN)


def forward(modules: tuple[GemmaRMSNorm, DenseMLP, GemmaRMSNorm], x: jax.Array) -> Any:
    norm, mlp, next_norm = modules
    return next_norm(mlp(norm(x)), x)


def test_flax_modules() -> None:
    expect(nnx.jit(forward)(modules(), jnp.asarray(X)))


def test_a_parameter_is_a_weight() -> None:
    """The functions take ``nnx.Param`` as those of jax.numpy do, and its gradient is one of the module's."""
    norm, x = GemmaRMSNorm(HIDDEN, eps=1e-5), jnp.asarray(X)
    same(m3ops_jax.gemma_rmsnorm(x, norm.weight, eps=1e-5), norm(x))

    plain = GemmaRMSNorm(HIDDEN, weight_offset=0.0)
    assert (plain.weight[...] == 1).all()
    same(plain(x), GemmaRMSNorm(HIDDEN)(x))
    same(plain(x, x)[0], GemmaRMSNorm(HIDDEN)(x, x)[0])

    def loss(norm: GemmaRMSNorm) -> jax.Array:
        return m3ops_jax.gemma_rmsnorm(x, norm.weight).astype(jnp.float32).sum()

    gradient = nnx.grad(loss)(norm)["weight"][...]
    wanted = jax.grad(lambda w: m3ops_jax.gemma_rmsnorm(x, w).astype(jnp.float32).sum())(norm.weight[...])
    same(gradient, wanted)


def test_the_mlp_without_quantization() -> None:
    _, mlp, _ = modules(quantize=False)
    (act,) = reference("swiglu_oai", product(X, PARAMS["gate_up"]))
    assert_same_bytes([np.asarray(mlp(jnp.asarray(X)))], [product(act, PARAMS["down"])])


@several
@pytest.mark.parametrize("quantize", [True, False])
def test_tensor_parallel_flax_modules(quantize: bool) -> None:
    """Tokens over one mesh axis, the MLP over the other: the one collective is the sum of the MLP's results."""
    mesh = mesh_of(AUTO, AUTO)
    norm, mlp, next_norm = modules(2, quantize)
    specs = ((norm.weight, P()), (mlp.gate_up, P(None, "b")), (mlp.down, P("b")), (next_norm.weight, P()))
    for parameter, spec in specs:
        parameter[...] = jax.device_put(parameter[...], NamedSharding(mesh, spec))
    graph, state = nnx.split((norm, mlp, next_norm))
    x = jax.device_put(X, NamedSharding(mesh, P("a")))
    results, collectives = run(lambda state, x: forward(nnx.merge(graph, state), x), state, x)
    assert collectives == {"all-reduce": 1}
    if quantize:
        expect(results, groups=2)


def test_the_script(capsys: pytest.CaptureFixture[str]) -> None:
    m3_block_jax.main(hidden=64, inner=64, tokens=16 * jax.device_count())
    said = capsys.readouterr().out
    assert f"bfloat16 ({16 * jax.device_count()}, 64): (16, 64) on each" in said
    assert said.endswith("collectives: none\n")
