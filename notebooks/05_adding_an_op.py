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
# once. Here it becomes a fused op, `relu2_quantize`: a specification, a kernel, a plan and named cases, and both front
# ends run it. In the package all of that would be one folder, `m3ops/ops/relu2`; the text above each cell names the
# file. CONTRIBUTING.md lists the few lines outside that folder.

# %%
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np
import torch
import triton
import triton.language as tl

from m3ops import validate
from m3ops.axes import Axes
from m3ops.numerics.exact.fp32 import at_least, load, round32
from m3ops.numerics.tile import fp32
from m3ops.ops.mxfp8.scales_spec import check_matrix, matrix_axes
from m3ops.ops.mxfp8.spec import Quantization
from m3ops.plan import Plan
from m3ops.planning.launch import bytes_moved, counts_rows, tiled_launch
from m3ops.planning.mx import mx as mx_constants, scale_plan
from m3ops.planning.rows import rows_of
from m3ops.planning.tiling import block_tiling
from m3ops.testing.arrays import SPECIALS, bit_patterns, normal, subnormals, with_specials
from m3ops.testing.case import counting, first_difference, operands
from m3ops.tiles import mx, row_count, rows, scales
from m3ops.tiles.rows import Rows
from m3ops.tools.run import flat, to_numpy, to_tensor

import m3ops_jax
from m3ops_jax._call import run as run_jax
from m3ops_torch._call import run as run_torch

jax.config.update("jax_pprint_use_color", False)

# %% [markdown]
# ## The specification
#
# `m3ops/ops/relu2/spec.py`. An op is a frozen dataclass whose fields are its parameters. `Quantization` is the part
# that every op with an MXFP8 result has in common: it brings `scale_rule`, `fp8_format` and `scale_layout`, with their
# defaults, their checks and their documentation.
#
# - `inputs` names the arrays and documents them; the docstrings of the public functions are made from it.
# - `axes` says in one line which axes of the operands are the same, and which must not be divided among devices (`!`).
#   Here the rows `*r` are independent. Sharding, `vmap` and the rules of `out=` follow from this line, in both front
#   ends.
# - `infer` validates the inputs and gives the shapes and dtypes of the results, by name.
# - `compute` defines the result, in the fp32 arithmetic of `m3ops.numerics.exact.fp32`: a float64 array holds fp32
#   numbers, and `round32` stands where fp32 hardware rounds. `at_least` keeps NaN, so a NaN makes its block NaN.


# %%
@dataclass(frozen=True)
class Relu2Quantize(Quantization):
    """``max(x, 0)**2`` in MXFP8, in one pass over memory."""

    name: ClassVar[str] = "relu2_quantize"
    inputs: ClassVar[Mapping[str, str]] = {
        "x": "Shape ``[..., I]`` with I a multiple of 32; bfloat16, float16 or float32."
    }
    returns: ClassVar[str] = "Values ``[..., I]`` and scales ``[..., I / 32]``, padded in a tiled layout."
    result_type: ClassVar[str] = "MXFP8"
    value_error: ClassVar[str] = "I is not a multiple of 32"

    @property
    def axes(self):
        own = matrix_axes(self.scale_layout)
        return Axes.of(f"*r {own} -> *r {own}, *r {own}")

    def infer(self, x):
        validate.array("x", x)
        check_matrix(self.scale_layout, "x", x)
        return self.quantized_specs(x, self.scale_layout)

    def compute(self, x):
        positive = at_least(load(x), 0.0)
        return self.quantize(round32(positive * positive), self.scale_layout)

    def plan(self, specs, target, *, keep=()):
        return relu2_plan(self, specs, target, keep=keep)


op = Relu2Quantize.of(fp8_format="e4m3fn")
x = np.array([[3.0, -3.0, 0.5, 1e-3] + [0.0] * 28], np.float32)
results = op.reference({"x": x})
print(op)
print("values", results["values"][0, :4], "scale 2**", int(results["scales"][0, 0]) - 127)

# %% [markdown]
# ## The kernel
#
# `m3ops/ops/relu2/kernel.py`. The work on one tile is a function of its own: it loads, calls the helpers of
# `m3ops.numerics.tile`, and stores. Each program of the kernel calls that function once. Where `num_rows` counts the
# rows on the device, a program calls it for several of the tiles that count.
#
# Where the rows of the operands lie (`AT`), the shape of a tile (`TILE`) and how MXFP8 is stored (`MX`) are
# compile-time constants, which is what makes the loads wide. Pointers are bound by name: `x_ptr` gets the operand `x`.


# %%
@dataclass(frozen=True)
class Relu2At:
    """Where the rows of each operand lie, a constexpr."""

    x: Rows
    values: Rows
    scales: Rows


@triton.jit
def _relu2_tile(
    t,
    end,
    x_ptr,
    total_rows,
    values_ptr,
    scales_ptr,
    AT: tl.constexpr,
    TILE: tl.constexpr,
    MX: tl.constexpr,
):
    PADDED: tl.constexpr = scales.padded_size(AT.values.size, MX.scale_tiles)
    window = rows.window(t, end, PADDED, TILE)
    positive = fp32.maximum(rows.load(x_ptr, window, TILE, AT.x).to(tl.float32), 0.0)
    mx.store(values_ptr, scales_ptr, positive * positive, t, window, total_rows, TILE, AT.values, AT.scales, MX)


@triton.jit
def _relu2_quantize_kernel(
    x_ptr,  # [total_rows, I]
    num_rows_ptr,  # int32, how many rows of each buffer count, or None for all
    total_rows,
    values_ptr,  # uint8 [total_rows, I]
    scales_ptr,  # uint8 [total_rows, I / 32], or in tiles
    AT: tl.constexpr,
    TILE: tl.constexpr,
    MX: tl.constexpr,
    COUNT: tl.constexpr,
):
    if num_rows_ptr is None:
        if scales.pads(scales_ptr, total_rows, AT.values.size, TILE, MX.scale_tiles):
            return
        _relu2_tile(tl.program_id(0), total_rows, x_ptr, total_rows, values_ptr, scales_ptr, AT, TILE, MX)
    else:
        ends = row_count.ends(num_rows_ptr, total_rows, COUNT)
        PADDED: tl.constexpr = scales.padded_size(AT.values.size, MX.scale_tiles)
        tiles = row_count.tiles(ends, total_rows, PADDED, TILE, COUNT)
        for i in range(tl.program_id(0), tiles[0], COUNT.programs):
            t, end = row_count.tile(i, tiles, ends, COUNT)
            _relu2_tile(t, end, x_ptr, total_rows, values_ptr, scales_ptr, AT, TILE, MX)
        mx.clear(values_ptr, scales_ptr, ends, total_rows, AT.values, AT.scales, MX, COUNT)


# %% [markdown]
# ## The plan
#
# `m3ops/ops/relu2/plan.py`. A pure function of the operands' layouts and the target returns the launches.
# `block_tiling` (`m3ops/planning/tiling.py`) chooses the numbers that decide speed; each stands beside its measurement.


# %%
def relu2_plan(op, specs, target, *, keep):
    layout = scale_plan(op.scale_layout, specs["values"], specs["scales"])
    total_rows, at = rows_of(layout.rows(specs))
    tiling = block_tiling(total_rows, layout.size, target, decode=counts_rows(specs))
    constants = {"AT": Relu2At(**layout.at(at)), "MX": mx_constants(op.fp8_format, op.scale_rule, layout, target)}
    launch = tiled_launch(
        _relu2_quantize_kernel, op, specs, target, tiling, total_rows, constants, keep=keep, scales=layout
    )
    return Plan((launch,), bytes_moved(specs), 6 * specs["x"].size)


# %% [markdown]
# ## The front ends
#
# The public functions are not written by hand. `python -m m3ops.tools.front_ends` makes `m3ops_jax/relu2.py` and
# `m3ops_torch/relu2.py` from the dataclass: signature, defaults, docstring, and a body that calls `run`. The next cell
# does the same by hand. The op does not have to be registered anywhere.


# %%
def relu2_quantize(run, x, num_rows=None, **parameters):
    return run(Relu2Quantize.of(**parameters), x, num_rows=num_rows)


in_jax, in_torch = partial(relu2_quantize, run_jax), partial(relu2_quantize, run_torch)

device = "cuda" if torch.cuda.is_available() else "cpu"
x = torch.randn(4, 256, dtype=torch.bfloat16)
from_torch = in_torch(x.to(device))
from_jax = jax.jit(in_jax)(jnp.asarray(x.view(torch.uint16).numpy()).view(jnp.bfloat16))
assert np.array_equal(np.asarray(from_jax.values).view(np.uint8), from_torch.values.cpu().view(torch.uint8).numpy())
for result in (from_torch, from_jax):
    module, values, scale_bytes = type(result).__module__, result.values, result.scales
    print(module, tuple(values.shape), values.dtype, tuple(scale_bytes.shape), scale_bytes.dtype, result.scale_layout)

# %% [markdown]
# The op gets the rest for nothing: transformations, `torch.compile`, scales in the tiles of a matrix product, rows
# counted on the device, and errors that name the argument, the same from both front ends.

# %%
print(jax.make_jaxpr(jax.vmap(in_jax))(jnp.zeros((3, 4, 64), jnp.bfloat16)))
torch.compile(in_torch, backend="aot_eager", fullgraph=True)(x.to(device))

tiled = in_torch(x.to(device), scale_layout="swizzle_128x4")
print("tiled scales", tuple(tiled.scales.shape), tiled.scale_layout)
counted = in_torch(x.to(device), num_rows=torch.tensor([3], dtype=torch.int32, device=device))
print("first scale byte of four rows, three of which count:", counted.scales[:, 0].tolist())

for wrong, options in (
    (torch.ones(4, 33), {}),
    (torch.ones(4, 32), {"scale_rule": "ceil"}),
    (torch.ones(32).int(), {}),
):
    for front_end, call, array in (("torch", in_torch, wrong), ("jax", in_jax, jnp.asarray(wrong.numpy()))):
        try:
            call(array, **options)
        except (TypeError, ValueError) as error:
            print(f"{front_end:5} {type(error).__name__}: {error}")

# %% [markdown]
# ## The contract
#
# `m3ops/ops/relu2/cases.py` names the cases. Each is a numeric corner or a way of passing arrays. Here a case consists
# of its inputs and of the parameters that differ from the defaults; an input beyond the op's own is `num_rows`.

# %%
CASES = {
    "normal, bfloat16": ([normal((5, 96), "bfloat16", 3.0)], {}),
    "normal, float32": ([normal((5, 96), "float32", 3.0)], {}),
    "every other column": ([normal((5, 192), "bfloat16", 3.0)[:, ::2]], {}),
    "random bits": ([bit_patterns((8, 128), "bfloat16")], {}),
    "subnormal numbers": ([subnormals((4, 64), "float32")], {}),
    "NaN and infinity": ([with_specials(normal((6, 64), "float16"), SPECIALS)], {}),
    "floor": ([normal((4, 64), "float16", 9.0)], {"scale_rule": "floor"}),
    "e4m3fnuz": ([normal((4, 64), "bfloat16", 9.0)], {"fp8_format": "e4m3fnuz"}),
    "tiled scales": ([normal((133, 224), "bfloat16", 3.0)], {"scale_layout": "swizzle_128x4"}),
    "3 of 7 rows": (counting(lambda: (normal((7, 96), "bfloat16"),), 3), {}),
}

# %% [markdown]
# In the package, `tests/test_contract.py` and `tests/test_rocm_contract.py` run every case on every backend and compare
# the bytes with the specification. The backends are both front ends, the kernel in an interpreter, and the machine code
# that Triton makes of it for an AMD GPU, executed instruction by instruction, as each front end launches it. On a
# machine with a GPU the front ends run there.

# %%
sys.path.append("../tests")
import rocm_lowering  # lets JAX lower for GPUs that this machine does not have
from backends import interpreted, planned
from rocm import jax_device, torch_device

rocm_lowering.install_stub()


def with_jax(op, arrays):
    results = jax.jit(partial(jax_operands, op))(*map(np.ascontiguousarray, arrays))
    return [np.asarray(array) for array in jax.tree.leaves(results)]


def jax_operands(op, x, num_rows=None):
    return run_jax(op, x, num_rows=num_rows)


def with_torch(op, arrays, device=device):
    x, *count = (to_tensor(array, device) for array in arrays)
    return [to_numpy(tensor) for tensor in flat(run_torch(op, x, num_rows=count[0] if count else None))]


def in_the_interpreter(op, arrays):
    inputs = operands(op, arrays)
    return interpreted(op, inputs, planned(op, inputs))


def with_jax_on_amd(op, arrays):
    arrays = [*map(np.ascontiguousarray, arrays)]
    with m3ops_jax.compile_for("gfx950"):
        traced = jax.jit(partial(jax_operands, op)).trace(*arrays)
        return jax_device.execute_program(traced.lower(lowering_platforms=("rocm",)), arrays)


def with_torch_on_amd(op, arrays):
    with torch_device.device("gfx942"):
        return with_torch(op, arrays, "cpu")


BACKENDS = {
    "JAX": with_jax,
    "PyTorch": with_torch,
    "kernel, interpreted": in_the_interpreter,
    "JAX, gfx950 code": with_jax_on_amd,
    "PyTorch, gfx942 code": with_torch_on_amd,
}


def check(backend, op_type, arrays, given):
    """None where the bytes are the specification's, else the first difference."""
    op = op_type.of(**given)
    return first_difference(BACKENDS[backend](op, arrays), [*op.reference(operands(op, arrays)).values()])


for backend in BACKENDS:
    differences = {name: found for name, case in CASES.items() if (found := check(backend, Relu2Quantize, *case))}
    print(f"{backend:22} {len(CASES) - len(differences)} of {len(CASES)} cases have the specification's bytes")
    assert not differences, differences

# %% [markdown]
# ## A check that can fail
#
# A new check should be seen to fail once. Suppose the specification had used a maximum that drops NaN, as C's `fmax`
# does. The case with NaN tells kernel and specification apart.


# %%
class Careless(Relu2Quantize):
    def compute(self, x):
        positive = np.fmax(load(x), 0.0)
        return self.quantize(round32(positive * positive), self.scale_layout)


found = {name: diff for name, case in CASES.items() if (diff := check("kernel, interpreted", Careless, *case))}
for name, difference in found.items():
    print(f"{name}: {difference}")
assert "NaN and infinity" in found
