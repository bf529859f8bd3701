# ---
# jupyter:
#   jupytext:
#     formats: ipynb,py:percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Adding an op
#
# The squared ReLU, `max(x, 0)**2`, is the activation of some MLPs, and in an MXFP8 model its result is quantized at
# once. Here it becomes a fused op, `relu2_quantize`, from the specification to both front ends and the contract test.
# Everything stays in this notebook; above each cell stands the file that it would be in the package. CONTRIBUTING.md
# has the list of what else a shipped op brings.

# %%
import dataclasses
import functools
import sys

import jax
import jax.numpy as jnp
import numpy as np
import torch
import triton
import triton.language as tl

from m3ops import rows, validate
from m3ops.cases.case import SPECIALS, Case, bit_patterns, first_difference, normal, one, subnormals, with_specials
from m3ops.cases.run import run_jax, run_torch
from m3ops.numerics import exact, tile
from m3ops.numerics.formats import FP8_FORMATS, MXFP8
from m3ops.op import ArraySpec, LaunchPlan, Op
from m3ops.ops import EVERY_OP, OPS
from m3ops.ops.mxfp8_quantize.plan import format_constants
from m3ops.ops.mxfp8_quantize.spec import check_format
from m3ops.rows import row_layout
from m3ops.target import Target
from m3ops.tiling import column_tiling

# %% [markdown]
# ## The specification
#
# `m3ops/ops/relu2_quantize/spec.py`. `infer` validates and gives the output shapes; its keyword-only parameters are the
# op's. `compute` is the truth, in the exact fp32 arithmetic of `m3ops.numerics.exact`: a float64 array holds fp32
# numbers, and `round32` stands where fp32 hardware rounds. `at_least` keeps NaN, so a NaN makes its block NaN.


# %%
def infer(x, *, scale_rule: "str" = "rceil", fp8_format: "str" = "e4m3fn"):
    validate.array("x", x)
    validate.blocks("the last axis of x", x.shape[-1])
    check_format(scale_rule, fp8_format)
    scales = (*x.shape[:-1], x.shape[-1] // 32)
    return ArraySpec(x.shape, FP8_FORMATS[fp8_format].name), ArraySpec(scales, "uint8")


def compute(x, *, scale_rule, fp8_format):
    act = exact.at_least(exact.load(x), 0.0)
    fmt = FP8_FORMATS[fp8_format]
    codes, scales = exact.quantize_blocks(exact.round32(act * act), scale_rule, fmt)
    return codes.view(np.dtype(fmt.name)), scales


x = np.array([[3.0, -3.0, 0.5, 1e-3] + [0.0] * 28], np.float32)
values, scales = compute(x, scale_rule="rceil", fp8_format="e4m3fn")
print("values", values[0, :4], "scale 2**", int(scales[0, 0]) - 127)

# %% [markdown]
# ## The kernel
#
# `m3ops/ops/relu2_quantize/kernel.py`. A kernel loads, calls the helpers of `m3ops.numerics.tile`, and stores. Strides
# and sizes are compile-time constants, which is what makes the loads wide. Here a program has one tile; the kernels in
# the package go through several where `num_rows=` counts the rows on the device (`rows.tiles`, as in `mxfp8_quantize`).


# %%
@triton.jit
def _relu2_quantize_kernel(
    x_ptr,  # [num_rows, SIZE]
    num_rows,
    values_ptr,  # uint8 [num_rows, SIZE]
    scales_ptr,  # uint8 [num_rows, SIZE / 32]
    SIZE: tl.constexpr,
    INNER_SIZES: tl.constexpr,
    X_STRIDES: tl.constexpr,
    VALUES_STRIDES: tl.constexpr,
    SCALES_STRIDES: tl.constexpr,
    FP8: tl.constexpr,
    RULE: tl.constexpr,
    CAST: tl.constexpr,
    ROWS: tl.constexpr,
    COLS: tl.constexpr,
    MASKED: tl.constexpr,
):
    window = rows.window(tl.program_id(0), num_rows, SIZE, ROWS, COLS)
    x = rows.load(x_ptr, window, SIZE, ROWS, MASKED, INNER_SIZES, X_STRIDES).to(tl.float32)
    act = tile.maximum(x, 0.0)
    values, scales = tile.quantize_blocks(act * act, ROWS, COLS, FP8, RULE, CAST)
    rows.store(values_ptr, values, window, SIZE, ROWS, MASKED, INNER_SIZES, VALUES_STRIDES)
    blocks = rows.window(tl.program_id(0), num_rows, SIZE // 32, ROWS, COLS // 32)
    rows.store(scales_ptr, scales, blocks, SIZE // 32, ROWS, MASKED, INNER_SIZES, SCALES_STRIDES)


# %% [markdown]
# ## The plan and the op
#
# `m3ops/ops/relu2_quantize/plan.py` and `__init__.py`. The plan is a pure function from layouts and a target to
# a launch. `OPS` is where the front ends find an op; here it is added to the running process only, before they are
# imported.


# %%
def plan(inputs, outputs, params, target):
    (x,), (values, scales) = inputs, outputs
    layout = row_layout(x, values, scales)
    size = values.shape[-1]
    tiling = column_tiling(layout.num_rows, size, target)
    return LaunchPlan(
        kernel=_relu2_quantize_kernel,
        grid=tiling.grid,
        num_rows=layout.num_rows,
        constants={
            "SIZE": size,
            **layout.constants("x", "values", "scales"),
            **format_constants(params, target),
            **tiling.constants,
        },
        num_warps=tiling.num_warps,
        bytes_moved=x.nbytes + values.nbytes + scales.nbytes,
        flops=6 * x.size,
    )


OP = Op("relu2_quantize", ("x",), infer, compute, plan, differentiable=False)
for table in (OPS, EVERY_OP):  # the public ops, and those with the ops of their derivatives
    table[OP.name] = OP

# %% [markdown]
# ## The front ends
#
# `m3ops_jax/relu2_quantize.py` and `m3ops_torch/relu2_quantize.py`: one function each, with the same signature.

# %%
import m3ops_jax
import m3ops_jax._primitive
import m3ops_torch
import m3ops_torch._library

jax.config.update("jax_pprint_use_color", False)


def relu2_quantize(call, x, *, scale_rule: str = "rceil", fp8_format: str = "e4m3fn") -> MXFP8:
    """``max(x, 0)**2`` in MXFP8, in one pass over memory."""
    return MXFP8(*call("relu2_quantize", x, scale_rule=scale_rule, fp8_format=fp8_format))


m3ops_jax.relu2_quantize = functools.partial(relu2_quantize, m3ops_jax._primitive.call)
m3ops_torch.relu2_quantize = functools.partial(relu2_quantize, m3ops_torch._library.call)

device = "cuda" if torch.cuda.is_available() else "cpu"
x = torch.randn(4, 256, dtype=torch.bfloat16)
from_torch = m3ops_torch.relu2_quantize(x.to(device))
from_jax = jax.jit(m3ops_jax.relu2_quantize)(jnp.asarray(x.view(torch.uint16).numpy()).view(jnp.bfloat16))
assert np.array_equal(np.asarray(from_jax.values).view(np.uint8), from_torch.values.cpu().view(torch.uint8).numpy())
print(from_torch.values.dtype, tuple(from_torch.values.shape), from_torch.scales.dtype, tuple(from_torch.scales.shape))

# %% [markdown]
# What comes with the machinery: transformations, `torch.compile`, and errors that name the argument.

# %%
print(jax.make_jaxpr(jax.vmap(m3ops_jax.relu2_quantize))(jnp.zeros((3, 4, 64), jnp.bfloat16)))
torch.compile(m3ops_torch.relu2_quantize, backend="aot_eager", fullgraph=True)(x.to(device))

for wrong, options in (
    (torch.ones(4, 33), {}),
    (torch.ones(4, 32), {"scale_rule": "ceil"}),
    (torch.ones(32).int(), {}),
):
    for front_end, array in (("torch", wrong), ("jax", jnp.asarray(wrong.numpy()))):
        try:
            sys.modules[f"m3ops_{front_end}"].relu2_quantize(array, **options)
        except (TypeError, ValueError) as error:
            print(f"{front_end:5} {type(error).__name__}: {error}")

# %% [markdown]
# ## The contract
#
# `m3ops/cases/relu2_quantize.py` names the cases, each a numeric corner or a way of passing arrays.

# %%
CASES = [
    *(
        Case("relu2_quantize", f"normal, {dtype}", one(normal, (5, 96), dtype, 3.0))
        for dtype in ("bfloat16", "float32")
    ),
    Case("relu2_quantize", "random bits", one(bit_patterns, (8, 128), "bfloat16")),
    Case("relu2_quantize", "subnormal numbers", one(subnormals, (4, 64), "float32")),
    Case("relu2_quantize", "NaN and infinity", lambda: (with_specials(normal((6, 64), "float16"), SPECIALS),)),
    Case("relu2_quantize", "floor", one(normal, (4, 64), "float16", 9.0), {"scale_rule": "floor"}),
    Case("relu2_quantize", "e4m3fnuz", one(normal, (4, 64), "bfloat16", 9.0), {"fp8_format": "e4m3fnuz"}),
]

# %% [markdown]
# `tests/test_contract.py` and `tests/test_rocm_contract.py` run every case on every backend and compare bytes with the
# specification: both front ends; the kernel in an interpreter; and the machine code that Triton makes of it for an AMD
# GPU, executed instruction by instruction, as each front end launches it. On a GPU, the front ends run there.

# %%
sys.path.append("../tests")
import interpreter
from backends import array_spec
from rocm import jax_device, torch_device


def interpreted(op_name, arrays, params):
    op, inputs = OPS[op_name], tuple(map(array_spec, arrays))
    outputs = op.infer(*inputs, **params)
    results = [np.full(spec.shape, 0xA5, np.uint8).view(np.dtype(spec.dtype)) for spec in outputs]
    interpreter.launch(op.plan(inputs, outputs, params, Target.named("sm_90")), arrays, results)
    return results


BACKENDS = {
    "JAX": functools.partial(run_jax, jax.default_backend() if device == "cpu" else "cuda"),
    "PyTorch": functools.partial(run_torch, device),
    "kernel, interpreted": interpreted,
    "JAX, gfx950 code": functools.partial(jax_device.run, "gfx950"),
    "PyTorch, gfx942 code": functools.partial(torch_device.run, "gfx942"),
}


def check(backend, case):
    """None where the bytes are the specification's, else the first difference."""
    return first_difference(BACKENDS[backend](case.op, case.make(), case.params), case.expected())


for name in BACKENDS:
    differences = {case.name: difference for case in CASES if (difference := check(name, case))}
    print(f"{name:22} {len(CASES) - len(differences)} of {len(CASES)} cases have the specification's bytes")
    assert not differences, differences

# %% [markdown]
# ## A check that can fail
#
# A new check is seen failing once. Suppose the specification had used a maximum that drops NaN, as C's `fmax` does: the
# case that is there for it tells kernel and specification apart.


# %%
def careless(x, *, scale_rule, fp8_format):
    fmt = FP8_FORMATS[fp8_format]
    act = np.fmax(exact.load(x), 0.0)
    codes, scales = exact.quantize_blocks(exact.round32(act * act), scale_rule, fmt)
    return codes.view(np.dtype(fmt.name)), scales


EVERY_OP[OP.name] = dataclasses.replace(OP, compute=careless)
found = {case.name: difference for case in CASES if (difference := check("kernel, interpreted", case))}
EVERY_OP[OP.name] = OP
for name, difference in found.items():
    print(f"{name}: {difference}")
assert "NaN and infinity" in found
