"""The compilation cache of a run gives no test another's program."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

import m3ops_jax
from m3ops.testing.arrays import normal


@pytest.mark.parametrize(("kind", "expected"), [(AxisType.Explicit, [0, 1]), (AxisType.Auto, [0, 0])])
def test_a_program_that_xla_divides_is_compiled_each_time(kind: AxisType, expected: list[int]) -> None:
    hits: list[str] = []
    jax.monitoring.register_event_listener(lambda event, **_: hits.append(event) if "cache_hits" in event else None)
    mesh = jax.make_mesh((4,), ("a",), axis_types=(kind,), devices=jax.devices("cpu")[:4])
    x = jax.device_put(jnp.asarray(normal((4, 3 * 64), "bfloat16")), NamedSharding(mesh, P("a")))
    counts, results = [], []
    for _ in range(2):
        hits.clear()
        compiled = jax.jit(lambda x: m3ops_jax.swiglu_oai(x, alpha=1.7021)).lower(x).compile()
        counts.append(len(hits))
        results.append(np.asarray(compiled(x)).view(np.uint16))
    assert counts == expected
    assert np.array_equal(*results)
