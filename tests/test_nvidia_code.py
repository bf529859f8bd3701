"""What the machine code for the H100 costs at MiniMax-M3's sizes: 16-byte accesses to memory and no spills."""

from __future__ import annotations

import re
import subprocess
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import triton
from rocm.production import PREFILLS
from triton.backends import nvidia
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from m3ops.array import ArraySpec
from m3ops.target import Target
from m3ops.testing.case import operands
from m3ops.testing.workload import Workload

SM_90 = Target.named("sm_90")
CUOBJDUMP = Path(nvidia.__file__).parent / "bin" / "cuobjdump"
KEYS = [key for key in PREFILLS if key[0].startswith("swiglu") or key[0] == "gemma_rmsnorm_heads"]
TYPES = {"bfloat16": "*bf16", "float8_e4m3fn": "*u8", "uint8": "*u8"}


def compiled(workload: Workload) -> Any:
    """An op's kernel for arrays aligned to 16 bytes, as the front ends' allocations are."""
    arrays = {**operands(workload.call, workload.inputs), **workload.results}
    (launch,) = workload.call.plan(arrays, SM_90).launches
    names, bound = launch.kernel.arg_names, launch.bound(arrays)
    values = {name: None for name, value in bound.items() if value is None} | dict(launch.constants)
    types = {name: TYPES[value.dtype] if isinstance(value, ArraySpec) else "i32" for name, value in bound.items()}
    signature = {name: "constexpr" if name in values else types[name] for name in names}
    aligned = {(i,): [["tt.divisibility", 16]] for i, name in enumerate(names) if name not in values}
    constants = {(names.index(name),): value for name, value in values.items()}
    source = ASTSource(launch.kernel, signature, constants, aligned)
    return triton.compile(source, GPUTarget("cuda", 90, 32), launch.compiler_options)


@pytest.mark.parametrize("key", KEYS, ids=str)
def test_memory_is_accessed_16_bytes_at_a_time(key: tuple[Any, ...], tmp_path: Path) -> None:
    kernel = compiled(PREFILLS[key])
    accesses = Counter(re.findall(r"(ld|st)\.global\.([\w.:]+)", kernel.asm["ptx"]))
    wide = {access for access in accesses if access[1] == "v4.b32"}
    # One byte for 32 elements; a weight that all heads of a program share.
    narrow = {("st", "b8")} if "quantize" in key[0] else {("ld", "b32")} if "norm" in key[0] else set()
    assert set(accesses) - wide == narrow
    assert {direction for direction, _ in wide} == {"ld", "st"}
    (tmp_path / "cubin").write_bytes(kernel.asm["cubin"])
    command = [CUOBJDUMP, "--dump-resource-usage", tmp_path / "cubin"]
    usage = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert re.search(r"REG:\d+ STACK:0 .*LOCAL:0 ", usage), usage
