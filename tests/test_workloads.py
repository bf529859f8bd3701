"""What is benchmarked: workloads have plans and bytes, and their rivals compute the same thing."""

from __future__ import annotations

import math
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
import torch
from backends import BACKENDS
from compare import assert_same_bytes
from specification import reference

import m3ops
from m3ops.array import ArraySpec
from m3ops.numerics.formats import FORMATS
from m3ops.ops import EVERY_OP, OPS
from m3ops.ops.moe.cases_combine import permuted
from m3ops.target import Target
from m3ops.testing import formulas
from m3ops.testing.arrays import normal, random_bits
from m3ops.testing.case import operands
from m3ops.testing.workload import Workload
from m3ops.testing.workloads import WORKLOADS
from m3ops.tiles.product import ProductTile
from m3ops.tools.bench import check, kernel
from m3ops.tools.run import flat, to_numpy, to_tensor

# Workloads: the table covers every op and its plans.


LARGE_ALONE = {"mxfp8_dequantize", "swiglu_oai_fake_quant", "mxfp8_quantize_transposed", "mxfp8_quantize_both"}
"""What no decode step has."""


def arrays_of(workload: Workload) -> list[np.ndarray]:
    return [_array(spec, workload) for spec in workload.inputs]


def _array(spec: ArraySpec, workload: Workload) -> np.ndarray:
    if spec.dtype == "uint8":  # scales
        return (random_bits(spec.shape, workload.id) % np.uint64(30) + np.uint64(110)).astype(np.uint8)
    if spec.dtype == "int32" and workload.rows_each:  # sizes of groups
        return np.full(spec.shape, workload.rows_each, np.int32)
    if spec.dtype == "int32":  # slots or positions, or experts
        return permuted(spec.shape) % np.int32(workload.below or 2**30)
    return normal(spec.shape, "float32", 1.5).astype(spec.dtype)


def test_workloads_cover_every_op_at_prefill_and_decode() -> None:
    assert {w.op for w in WORKLOADS if w.kind == "large"} == set(OPS)
    assert {w.op for w in WORKLOADS if w.kind == "gradient"} == set(EVERY_OP) - set(OPS)
    assert {w.op for w in WORKLOADS if w.small} == set(OPS) - LARGE_ALONE
    assert len({w.id for w in WORKLOADS}) == len(WORKLOADS)
    sizes = {(w.num_rows, w.size) for w in WORKLOADS}
    assert {(65536, 3072), (16384, 12288), (16384, 3072), (65536, 384), (16384, 6144), (2**20, 128)} <= sizes
    assert {(1, 3072), (4, 384), (32, 3072), (1, 6144), (64, 6144)} <= sizes


@pytest.mark.parametrize("arch", ["sm_90", "gfx950"])
@pytest.mark.parametrize("workload", [w for w in WORKLOADS if w.live is None], ids=lambda w: w.id)
def test_a_workload_has_a_plan_without_edges(workload: Workload, arch: str) -> None:
    op = workload.call
    plan = op.plan({**operands(op, workload.inputs), **workload.results}, Target.named(arch))
    assert plan.bytes_moved == workload.bytes_moved
    # The launches after the first of a gradient add up what the first left, for no rows.
    for one in plan.launches[:1] if workload.kind == "gradient" else plan.launches:
        if "TILE" not in one.constants:  # the table of a grouped product
            continue
        if "row_blocks" in one.arguments:
            assert not one.constants["TILE"].masked
            continue
        assert one.arguments["total_rows"] in {spec.size // spec.shape[-1] for spec in workload.inputs}
        tile = one.constants["TILE"]
        if isinstance(tile, ProductTile):
            assert workload.size % tile.cols == 0
            assert workload.num_rows <= 16 or workload.num_rows % tile.rows == 0
        else:  # 6144 is the only row that is no power of two times 3
            assert not tile.masked or workload.size == 6144


@pytest.mark.parametrize("backend", [b for b in BACKENDS if b.name in ("torch-cpu", "jax-cpu")], ids=lambda b: b.name)
@pytest.mark.parametrize("workload", [w for w in WORKLOADS if not w.small], ids=lambda w: w.id)
def test_two_rows_of_a_workload(workload: Workload, backend: Any) -> None:
    two = workload.with_rows(32 if workload.axes.inputs[0].of_matrices else 2 * workload.experts)
    if "matmul" in workload.op:
        two = replace(two, size=96)
    arrays = arrays_of(two)
    assert_same_bytes(backend.run(two.op, arrays, two.given), check.expected(two, arrays))


def test_rows_that_do_not_count_move_only_their_zeros() -> None:
    counted = [w for w in WORKLOADS if w.op == "swiglu_oai_quantize" and w.live is not None]
    fresh, into, few, full = counted
    assert few.bytes_moved == 32 * into.bytes_moved
    assert full.bytes_moved == replace(full, live=None).bytes_moved
    assert into.bytes_moved == 8 * 3072 * (4 + 1 + 1 / 32)
    assert fresh.bytes_moved == into.bytes_moved + 4088 * 3072 * (1 + 1 / 32)


# Formulas: within a bound of the specification. Relative to U = 2**-24, what two fp32 evaluations may differ by.

U = 2.0**-24
FP32_ERROR = {
    # The specification's gate factor is within 4 (test_exact_functions), a library's sigmoid within 4 at |z| < 16,
    # where z has an absolute error of 16 ulp and the sigmoid a slope of 1; products and sum add 3 on both sides.
    "swiglu_oai": 32 * U,
    "swiglu_oai_quantize": 32 * U,
    "swiglu_oai_fake_quant": 32 * U,
    # A power of two times a number, rounded once: the same bytes.
    "mxfp8_quantize": 0.0,
    "mxfp8_quantize_transposed": 0.0,
    "mxfp8_quantize_both": 0.0,
    "mxfp8_dequantize": 0.0,
    "moe_scatter_quantize": 0.0,
    # A sum of N positive terms in any order is within N - 1, the root halves that; 9 more operations, both sides.
    "gemma_rmsnorm": (6144 / 2 + 18) * U,
    "gemma_fused_add_rmsnorm": (6144 / 2 + 18) * U,
    "gemma_rmsnorm_heads": (128 / 2 + 18) * U,
    # The same, and 3 operations of the rotation. Where its terms cancel to 2**-6 of the largest, nothing is compared.
    "gemma_rmsnorm_rope_heads": 2**6 * (128 / 2 + 24) * U,
    "gemma_rmsnorm_rope_kv_insert": 2**6 * (128 / 2 + 24) * U,
    "gemma_rmsnorm_quantize": (6144 / 2 + 18) * U,
    "gemma_fused_add_rmsnorm_quantize": (6144 / 2 + 18) * U,
    # A sigmoid is within 6 on either side at |z| < 6, and so is a sum of them, to which three additions add 3; the
    # division adds 1.
    "moe_route": 32 * U,
    "moe_sort": 0.0,
}
Evaluate = Callable[[Workload, list[np.ndarray]], list[np.ndarray]]


def in_torch(w: Workload, arrays: list[np.ndarray], capture: Callable[..., Any] = lambda formula: formula) -> Any:
    results = capture(formulas.TORCH[w.op])(*map(to_tensor, arrays), **w.given)
    return [to_numpy(tensor) for tensor in flat(results)]


def in_jax(w: Workload, arrays: list[np.ndarray]) -> list[np.ndarray]:
    return [np.asarray(a) for a in flat(jax.jit(partial(formulas.JAX[w.op], **w.given))(*arrays))]


FORMULAS: dict[str, Evaluate] = {
    "torch": in_torch,
    "torch, captured whole": partial(in_torch, capture=partial(torch.compile, backend="eager", fullgraph=True)),
    "jax": in_jax,
}


def ordered_codes(array: np.ndarray) -> np.ndarray:
    """Neighbouring numbers of a format as neighbouring integers; scale bytes as they are."""
    if array.dtype == np.uint8:
        return array.astype(np.int64)
    codes = array.view(f"u{array.itemsize}").astype(np.int64)
    sign = 1 << (8 * array.itemsize - 1)
    return np.where(codes >= sign, sign - codes, codes)


def first_of_each_kind() -> list[Workload]:
    """The first workload of each op, set of inputs and parameters.

    Terms cancel in products and in sums of experts' results, which have bounds of their own (test_mxfp8_matmul.py,
    test_moe_combine.py). Gradients are in test_bench.py.
    """
    others = [w for w in reversed(WORKLOADS) if w.op in FP32_ERROR]
    return list({(w.op, len(w.inputs), *w.given.items()): w for w in others}.values())


@pytest.mark.parametrize("evaluate", FORMULAS.values(), ids=FORMULAS)
@pytest.mark.parametrize("workload", first_of_each_kind(), ids=lambda w: w.id)
def test_a_formula_is_the_specification_up_to_fp32_rounding(workload: Workload, evaluate: Evaluate) -> None:
    workload = workload.with_rows(64 if workload.axes.inputs[0].of_matrices else 24)
    arrays = arrays_of(workload)
    for got, want in zip(evaluate(workload, arrays), check.expected(workload, arrays), strict=True):
        assert (got.shape, got.dtype) == (want.shape, want.dtype)
        apart = np.abs(ordered_codes(got) - ordered_codes(want))
        if "rope" in workload.op:
            size = np.abs(want.astype(np.float32))
            apart[size < 2.0**-6 * size.max(axis=-1, keepdims=True)] = 0
        # Numbers that close round to the same or to neighbouring results, seldom to the latter: neighbours are at least
        # 2**-(mantissa bits + 1) apart, and a tie has to lie between. Scale bytes differ more seldom still. Results in
        # fp32 may have that many others between them. Whoever chooses by fp32 numbers makes the same choice.
        bits = FORMATS[want.dtype.name].mantissa_bits if want.dtype.name in FORMATS else 0
        places = FP32_ERROR[workload.op] * 2 ** (bits + 1)
        assert apart.max() <= (0 if want.dtype == np.int32 else math.ceil(places))
        assert np.mean(apart > 0) <= 2 * places


NORMS_IN_FP32 = """
import sys
import torch
from m3ops.testing.workloads import WORKLOADS
from m3ops.tools.bench import check
from m3ops.tools.bench.torch_side import TorchSide
class Side(TorchSide):
    def __init__(self):
        self._setup(torch, "cpu")
side = Side()
for workload in WORKLOADS:
    if workload.op in ("gemma_rmsnorm", "gemma_fused_add_rmsnorm"):
        workload = workload.with_rows(min(workload.num_rows, 16))
        inputs = side.make(workload, 0)
        contender = side._fp32_norms(workload)[0]
        rows = check.sample_rows(workload)
        want = check.expected(workload, side.rows(inputs, rows))
        check.close(side.rows(contender(*inputs), rows), want)
        print(workload.id)
"""


def test_norms_that_sum_in_fp32_in_tritons_interpreter() -> None:
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", NORMS_IN_FP32],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "TRITON_INTERPRET": "1"},
        cwd=Path(m3ops.__file__).parent.parent,
    )
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) == sum(w.op in ("gemma_rmsnorm", "gemma_fused_add_rmsnorm") for w in WORKLOADS)


@pytest.mark.parametrize(("backend", "arch", "warp"), [("cuda", 90, 32), ("hip", "gfx950", 64)], ids=["cuda", "hip"])
def test_kernels_to_compare_with_compile(backend: str, arch: Any, warp: int) -> None:
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    norm = {"SIZE": 6144, "EPS": 1e-6, "ROWS": 1, "COLS": 8192}
    for function, constants in [
        (kernel._empty_kernel, {}),
        (kernel._twelve_arguments_kernel, {"BLOCK": 32}),
        (kernel._fp32_rmsnorm_kernel, norm),
        (kernel._fp32_rmsnorm_kernel, {**norm, "residual_ptr": None, "new_residual_ptr": None}),
    ]:
        scalars = {"alpha": "fp32", "beta": "fp32", "limit": "fp32"}
        signature = {
            name: "constexpr" if name in constants else "*bf16" if name.endswith("_ptr") else scalars.get(name, "i32")
            for name in function.arg_names
        }
        source = ASTSource(function, signature, {(function.arg_names.index(k),): v for k, v in constants.items()})
        compiled = triton.compile(source, target=GPUTarget(backend, arch, warp), options={"num_warps": 8})
        assert compiled.asm["ttgir"]
    assert len(kernel._twelve_arguments_kernel.arg_names) == 12


# Checks.


def test_a_rival_may_round_but_not_compute_something_else() -> None:
    workload = next(w for w in WORKLOADS if w.op == "swiglu_oai_quantize").with_rows(16)
    arrays = arrays_of(workload)
    want = check.expected(workload, arrays)
    check.close(reference(workload.op, *arrays, round_activation=True), want)
    for wrong in ({"alpha": 1.0}, {"beta": 0.0}, {"limit": 1.0}):
        with pytest.raises(check.CheckFailed, match="off by"):
            check.close(reference(workload.op, *arrays, **wrong), want)
    with pytest.raises(check.CheckFailed, match="instead of"):
        check.close(want[:1], want)


def test_rows_to_check_reach_from_the_first_to_the_last() -> None:
    for workload in WORKLOADS:
        rows = check.sample_rows(workload)
        assert (rows[0], rows[-1]) == (0, workload.num_rows - 1)
        assert len(rows) >= min(4, workload.num_rows)
