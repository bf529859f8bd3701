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
# # One kernel, two frameworks
#
# This notebook calls `swiglu_oai_quantize` from jitted JAX and from PyTorch and compares the bytes. Then it shows what
# each framework makes of the call, down to the instructions of one NVIDIA GPU and two AMD GPUs. Nothing here needs a
# GPU: Triton compiles for any target on any machine. On a GPU the same cells run the kernel.

# %%
import re
import sys
from collections import Counter

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import torch
import triton
from triton.backends.compiler import GPUTarget

from m3ops.array import ArraySpec
from m3ops.ops.swiglu_oai import SwigluOAIQuantize
from m3ops.target import Target

import m3ops_jax
import m3ops_torch

sys.path.append("../tests")
import rocm_lowering  # lets JAX lower for GPUs that this machine does not have

rocm_lowering.install_stub()
jax.config.update("jax_pprint_use_color", False)
plt.style.use("m3ops.mplstyle")
device = "cuda" if torch.cuda.is_available() else "cpu"
print(f"JAX on {jax.default_backend()}, PyTorch on {device}")

# %% [markdown]
# ## The same call, the same bytes
#
# The input passes from one framework to the other as bits, so that both get the same numbers.

# %%
gate_up = torch.randn(128, 6144, generator=torch.Generator().manual_seed(0)).mul(3).bfloat16()
as_jax = jnp.asarray(gate_up.view(torch.uint16).numpy()).view(jnp.bfloat16)

from_torch = m3ops_torch.swiglu_oai_quantize(gate_up.to(device))
from_jax = jax.jit(m3ops_jax.swiglu_oai_quantize)(as_jax)

for field in ("values", "scales"):
    t, j = getattr(from_torch, field), getattr(from_jax, field)
    different = np.count_nonzero(t.cpu().view(torch.uint8).numpy() != np.asarray(j).view(np.uint8))
    print(f"{field}: torch {tuple(t.shape)} {t.dtype}, jax {j.shape} {j.dtype}: {different} bytes differ")
    assert different == 0

# %% [markdown]
# ## What JAX sees: one primitive
#
# The jaxpr has one equation. Its one static parameter is the call, which holds the op: a frozen dataclass with the
# op's parameters.

# %%
x = jax.ShapeDtypeStruct((4096, 6144), jnp.bfloat16)
print(jax.make_jaxpr(m3ops_jax.swiglu_oai_quantize)(x))

# %% [markdown]
# Under `vmap` it is still one equation: the batch axis becomes a leading axis, and one launch covers it.

# %%
batched = jax.ShapeDtypeStruct((8, 512, 6144), jnp.bfloat16)
jaxpr = str(jax.make_jaxpr(jax.vmap(m3ops_jax.swiglu_oai_quantize))(batched))
print(re.search(r".*= swiglu.*", jaxpr)[0].strip())
assert jaxpr.count("swiglu_oai_quantize[") == 1

# %% [markdown]
# Lowered for a GPU, the primitive is one custom call that holds the kernel's machine code, which is shortened here. The
# cost estimate is for XLA's scheduler and for profilers. FP8 values leave the kernel as uint8, which a bitcast turns
# into FP8.

# %%
with m3ops_jax.compile_for("sm_90", "gfx950"):
    traced = jax.jit(m3ops_jax.swiglu_oai_quantize).trace(x)
    programs = {name: traced.lower(lowering_platforms=(name,)).as_text() for name in ("cuda", "rocm")}
for name, program in programs.items():
    calls = program.count("@triton_kernel_call_ffi")
    print(f"{name}: {calls} kernel call, machine code and launch record: {len(program) / 1024:.0f} KiB")
    assert calls == 1
short = re.sub(r'opaque = "[^"]*"', 'opaque = "..."', programs["cuda"])
print("\n" + re.sub(r", (?=mhlo|operand_layouts|opaque|result_layouts)", ",\n        ", short))

# %% [markdown]
# ## What PyTorch sees: one operator
#
# Dynamo traces a model around the op into an FX graph without a break. In the graph the op is one call.


# %%
def model(x):
    values, scales = m3ops_torch.swiglu_oai_quantize(x * 2)
    return values, scales


graphs = []


def look(graph, example_inputs):
    graphs.append(graph)
    return graph


torch.compile(model, backend=look, fullgraph=True)(gate_up.to(device))
(graph,) = graphs
for node in graph.graph.nodes:
    if node.op == "call_function":
        print(f"{node.name:30} {node.target}")
assert sum("m3ops" in str(node.target) for node in graph.graph.nodes) == 1

# %% [markdown]
# ## What both launch: one plan
#
# Each front end describes the arrays to the op and gets a plan back: launches, each with a kernel, a grid, arguments by
# name and compile-time constants. The plan may depend on the target; the bytes may not.

# %%
op = SwigluOAIQuantize.of()
operands = {"gate_up": ArraySpec((4096, 6144), "bfloat16")}
operands |= op.check(operands)  # the results
(launch,) = op.plan(operands, Target.named("sm_90")).launches
print(op, "\n")
print("kernel    ", launch.kernel.__name__)
print("grid      ", launch.grid)
print("arguments ", launch.arguments)
print("writes    ", launch.writes)
print("options   ", launch.compiler_options)
for name, value in launch.constants.items():
    print(f"{name:10} {value}")

# %% [markdown]
# `AT` says where the rows of each operand lie, and `TILE` what a program works on at a time. The next cell compiles the
# kernel for three GPUs, with every pointer aligned to 16 bytes:

# %%
POINTERS = {"bfloat16": "*bf16", "float8_e4m3fn": "*u8", "uint8": "*u8"}


def compile_kernel(arch):
    """The plan for a GPU, and its kernel compiled as the plan says."""
    target = Target.named(arch)
    (launch,) = op.plan(operands, target).launches
    bound = launch.bound({name: POINTERS[spec.dtype] for name, spec in operands.items()})
    types = {name: "i32" if isinstance(value, int) else value for name, value in bound.items()}
    constants = launch.constants | {name: None for name, kind in types.items() if kind is None}
    names = launch.kernel.arg_names
    signature = {name: "constexpr" if name in constants else types[name] for name in names}
    aligned = {(i,): [["tt.divisibility", 16]] for i, name in enumerate(names) if signature[name] != "constexpr"}
    values = {(names.index(name),): value for name, value in constants.items()}
    source = triton.compiler.ASTSource(launch.kernel, signature, values, aligned)
    backend, name = ("hip", arch) if target.vendor == "amd" else ("cuda", int(arch.removeprefix("sm_")))
    device = GPUTarget(backend, name, target.warp_size)
    return launch, triton.compile(source, target=device, options=launch.compiler_options)


ARCHS = {"sm_90": "H100, H200", "gfx942": "MI300X", "gfx950": "MI355X"}
compiled = {arch: compile_kernel(arch) for arch in ARCHS}
for arch, (launch, kernel) in compiled.items():
    shape = launch.constants["TILE"]
    tile = f"tile {shape.rows} x {shape.cols}, {launch.num_warps} warps"
    print(f"{arch:7} {launch.grid[0]} programs, {tile}, code: {', '.join(kernel.asm)}")

# %% [markdown]
# ## What the GPUs execute
#
# These are the instructions without their operands: SASS for NVIDIA, as Triton disassembles it, and assembly for AMD.


# %%
def instructions(arch):
    asm = compiled[arch][1].asm
    if arch.startswith("sm_"):  # "--:-:2:-:2  LDG.E.128 R8, desc[UR6][R6.64];"
        found = re.findall(r"^\S+:\S+\s+(?:@!?U?P\w+ )?([A-Z][\w.]+)", asm["sass"], flags=re.M)
        return found[: found.index("EXIT") + 1]
    body = asm["amdgcn"].split("s_endpgm")[0]
    return re.findall(r"^\t([a-z]+_\w+)", body, flags=re.M)


def registers(arch):
    """Vector registers of a thread."""
    asm = compiled[arch][1].asm
    if arch.startswith("sm_"):
        return 1 + max(int(r) for r in re.findall(r"\bR(\d+)", asm["sass"]))
    return int(re.search(r"\.vgpr_count:\s+(\d+)", asm["amdgcn"])[1])


PATTERNS = {
    "loads": r"LDG|global_load|buffer_load",
    "stores": r"STG|global_store|buffer_store",
    "fp8 conversions": r"F2FP.*E4M3|v_cvt.*fp8",
}
for arch, name in ARCHS.items():
    counts = Counter(instructions(arch))
    print(f"{arch} ({name}): {counts.total()} instructions, {registers(arch)} registers a thread")
    for what, pattern in PATTERNS.items():
        found = ", ".join(f"{n} x {i}" for i, n in counts.items() if re.search(pattern, i))
        print(f"    {what:16} {found}")
        assert found, what

# %% [markdown]
# Every load and every store of values is 16 bytes wide: the name has `128` or `x4` in it. The one narrow store writes a
# scale byte for a whole block. Each conversion takes two numbers. On the MI300X, whose matrix cores use the E4M3FNUZ
# variant, `m3ops` converts to that variant and turns its codes into those of E4M3FN.
#
# The rest is arithmetic. The chart counts the instructions for each element of the result:

# %%
CLASSES = {
    "memory": r"^(LDG|STG|LDS|STS|global|buffer|ds)_?",
    "fp32 arithmetic": r"^(FFMA|FADD|FMUL|HFMA2|v_(pk_)?(fma|add|mul|sub|mac)\w*_f(32|16)|v_fmac)",
    "minimum, maximum, compare": r"^([FHVI]+MNMX|[FI]SETP|F?SEL|v_(pk_)?(max|min|med|cmp|cndmask))",
    "conversion": r"^(F2F|I2F|F2I|PRMT|v_cvt|v_perm)",
    "integer and bits": r"^(I|LOP|SHF|LEA|UI|ULOP|USHF|v_(add|sub|[la]sh[lr]|and|or|xor|bfe|bfi|not|mad|mul))",
}


def classify(name):
    return next((label for label, pattern in CLASSES.items() if re.search(pattern, name)), "other")


fig, axis = plt.subplots(figsize=(9, 3.2))
left = np.zeros(len(ARCHS))
for label in (*CLASSES, "other"):
    widths = []
    for arch in ARCHS:
        launch = compiled[arch][0]
        threads = launch.num_warps * Target.named(arch).warp_size
        per_element = threads / (launch.constants["TILE"].rows * launch.constants["TILE"].cols)
        vector = [i for i in instructions(arch) if not i.startswith("s_")]  # AMD's scalar unit works beside the lanes
        widths.append(sum(classify(i) == label for i in vector) * per_element)
    axis.barh(list(ARCHS), widths, left=left, label=label)
    left += widths
for y, total in enumerate(left):
    axis.text(total + 0.3, y, f"{total:.1f}", va="center")
axis.invert_yaxis()
axis.grid(visible=False, axis="y")
axis.set(title="Instructions for one element of swiglu_oai_quantize", xlabel="instructions of a lane for each element")
axis.set_xlim(0, 1.1 * left.max())
axis.legend(loc="upper center", bbox_to_anchor=(0.5, -0.28), ncols=3)
plt.show()
