"""What the machine code for the H100 costs at MiniMax-M3's sizes: 16-byte accesses to memory and no spills."""

from __future__ import annotations

import re
import subprocess
from collections import Counter
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import triton
from rocm.production import PREFILLS
from triton.backends import nvidia
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from m3ops.array import ArraySpec
from m3ops.numerics.formats import FP8_FORMATS
from m3ops.target import Target
from m3ops.testing.case import operands
from m3ops.testing.workload import Workload
from m3ops.testing.workloads import WORKLOADS

SM_90 = Target.named("sm_90")
CUOBJDUMP = Path(nvidia.__file__).parent / "bin" / "cuobjdump"
KEYS = [
    key for key in PREFILLS if key[0].startswith(("swiglu", "mxfp8_quantize")) or key[0].endswith(("_heads", "_insert"))
]
TYPES = {"bfloat16": "*bf16", "float32": "*fp32", "int32": "*i32", "uint8": "*u8"}
TYPES |= dict.fromkeys(("float8_e4m3fn", "float8_e4m3fnuz"), "*u8")
SHARED = {"sm_86": 99, "sm_89": 99, "sm_90": 227}
"""KiB of shared memory that a program may have, by NVIDIA's table of compute capabilities: the fewest of each way that
a kernel is compiled. sm_80 has 163, sm_100 227, sm_120 99.
"""


def compiled(workload: Workload, target: Target = SM_90, number: int = -1) -> Any:
    """One of an op's kernels, the last, for arrays aligned to 16 bytes, as PyTorch launches it on its allocations."""
    arrays = {**operands(workload.call, workload.inputs), **workload.results}
    plan = workload.call.plan(arrays, target)
    arrays |= plan.scratch
    launch = plan.launches[number]
    launch = launch.overlapping() if target.overlaps_launches else launch
    names, bound = launch.kernel.arg_names, launch.bound(arrays)
    values = {name: None for name, value in bound.items() if value is None} | dict(launch.constants)
    types = {name: TYPES[value.dtype] if isinstance(value, ArraySpec) else "i32" for name, value in bound.items()}
    signature = {name: "constexpr" if name in values else types[name] for name in names}
    aligned = {(i,): [["tt.divisibility", 16]] for i, name in enumerate(names) if name not in values}
    constants = {(names.index(name),): value for name, value in values.items()}
    source = ASTSource(launch.kernel, signature, constants, aligned)
    capability = int(target.arch.removeprefix("sm_"))
    return triton.compile(source, GPUTarget("cuda", capability, 32), launch.compiler_options)


@pytest.mark.parametrize("key", KEYS, ids=str)
def test_memory_is_accessed_16_bytes_at_a_time(key: tuple[Any, ...], tmp_path: Path) -> None:
    kernel = compiled(PREFILLS[key])
    accesses = Counter(re.findall(r"(ld|st)\.global\.([\w.:]+)", kernel.asm["ptx"]))
    wide = {access for access in accesses if access[1] == "v4.b32"}
    # One byte for 32 elements; what all heads of a program share, a weight, a slot, a position and its cosines and
    # sines. Of a weight's 32 columns, where a program is a warp, each thread loads one.
    narrow = {("st", "b8")} if "quantize" in key[0] else {("ld", "b32")} if "norm" in key[0] else set()
    if key[0] in ("mxfp8_quantize", "mxfp8_quantize_both") and key[1] == 6144:  # tiles of four blocks, two a thread
        narrow = {("st", "b16")} | ({("st", "b8")} if key[0] == "mxfp8_quantize_both" else set())
    narrow |= {("ld", "b16")} if "rope" in key[0] else set()
    narrow |= {("ld", "v2.b32")} if "rope" in key[0] else set()
    assert set(accesses) - wide == narrow
    ahead = set(re.findall(r"cp\.async\.\w+\.shared\.global [^;]*?, (0x\w+)", kernel.asm["ptx"]))
    assert {direction for direction, _ in wide} == ({"st"} if ahead else {"ld", "st"})
    assert ahead == ({"0x10"} if "rope" in key[0] else set())
    assert spills_nothing(kernel, tmp_path)
    assert waits_first(kernel)


def waits_first(kernel: Any) -> bool:
    """Whether a kernel that begins while another runs waits for it before any access to memory."""
    before, _, after = kernel.asm["ptx"].partition("griddepcontrol.wait")
    accesses = r"(ld|st|red|atom)\.global|cp\.async"
    return bool(after) and not re.search(accesses, before) and bool(re.search(accesses, after))


def spills_nothing(kernel: Any, folder: Path) -> bool:
    (folder / "cubin").write_bytes(kernel.asm["cubin"])
    command = [CUOBJDUMP, "--dump-resource-usage", folder / "cubin"]
    usage = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return re.search(r"REG:\d+ STACK:0 .*LOCAL:0 ", usage) is not None


def test_q_apart_spills_nothing(tmp_path: Path) -> None:
    """With a scale and all kinds of heads; loads stay 16 bytes of bfloat16 ahead, stores of E4M3 are 8 bytes."""
    (indexed,) = (w for key, w in PREFILLS.items() if w.name == "packed QK norm prefill, index heads")

    def inputs(num_rows: int, size: int) -> tuple[ArraySpec, ...]:
        return *indexed.inputs_of(num_rows, size), ArraySpec((1,), "float32")

    kernel = compiled(replace(indexed, inputs_of=inputs, given={"q_dtype": "float8_e4m3fn"}))
    assert spills_nothing(kernel, tmp_path)
    stores = set(re.findall(r"st\.global\.([\w.:]+)", kernel.asm["ptx"]))
    assert stores == {"v4.b32", "v2.b32"}


@pytest.mark.parametrize("launch", [0, 1])
def test_gradients_of_the_router_spill_nothing(launch: int, tmp_path: Path) -> None:
    (workload,) = (w for w in WORKLOADS if w.op == "moe_logits_backward")
    assert spills_nothing(compiled(workload, number=launch), tmp_path)


def fast_product(num_rows: int, size: int, fp8: str = "e4m3fn") -> Workload:
    """A product along K = 2048."""
    shape = partial(ArraySpec, dtype=FP8_FORMATS[fp8].name)

    def inputs(num_rows: int, size: int) -> tuple[ArraySpec, ...]:
        scales = (ArraySpec((count, 64), "uint8") for count in (num_rows, size))
        return shape((num_rows, 2048)), next(scales), shape((size, 2048)), next(scales)

    return Workload("mxfp8_matmul", "", num_rows, size, inputs, {"arithmetic": "fast"})


@pytest.mark.slow
@pytest.mark.parametrize("fp8", FP8_FORMATS)
@pytest.mark.parametrize("arch", SHARED)
def test_fast_products_fit_into_shared_memory(arch: str, fp8: str) -> None:
    """Of the largest tiles. Most of the others' kernels have less than 48 KiB, which every GPU has."""
    for num_rows, size in ((32, 1024), (64, 1024), (64, 65536), (128, 1024), (520, 1024), (776, 1024), (8192, 6144)):
        kernel = compiled(fast_product(num_rows, size, fp8), Target.named(arch))
        assert kernel.metadata.shared <= 1024 * SHARED[arch], (num_rows, size)


@pytest.mark.parametrize("arch", SHARED)
@pytest.mark.parametrize(("num_rows", "size"), [(16, 65536), (64, 1024), (520, 1024), (776, 1024)])
def test_every_instruction_adds_the_same_products(num_rows: int, size: int, arch: str) -> None:
    """Triton gives a thread four numbers along K, or two: then those that stood in the order of pairs."""
    workload, target = fast_product(num_rows, size), Target.named(arch)
    arrays = {**operands(workload.call, workload.inputs), **workload.results}
    interleaves = workload.call.plan(arrays, target).launches[-1].constants["W"].mx.interleaves
    kernel = compiled(workload, target)
    assert waits_first(kernel) == (target.overlaps_launches and size == 65536)
    at_once = set(re.findall(r"kWidth = (\d)", kernel.asm["ttgir"]))
    assert at_once == ({"2"} if interleaves else {"4"}) or (interleaves and not at_once)  # wgmma reads shared memory
