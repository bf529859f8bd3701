"""What the machine code for AMD GPUs costs at MiniMax-M3's sizes, counted in the code itself.

No AMD GPU is timed here. These are the facts that decide the speed of kernels that only move memory: how wide they load
and store, whether their values fit the registers, and how much they compute while bytes are on their way.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from rocm import jax_device
from rocm.launch import Launch
from rocm.production import ARCHS, FRONT_ENDS, PREFILLS, Code, code, key_of, table

from m3ops.ops import OPS
from m3ops.testing.arrays import normal

# (op, row, parameters) -> VALU instructions for an element, measured and a tenth.
VALU_LIMITS = {
    ("swiglu_oai", 3072): {"gfx942": 41, "gfx950": 31},
    ("swiglu_oai_quantize", 3072): {"gfx942": 41, "gfx950": 32},
    ("swiglu_oai", 3072, "interleaved"): {"gfx942": 41, "gfx950": 31},
    ("swiglu_oai_quantize", 3072, "interleaved"): {"gfx942": 41, "gfx950": 32},
    ("mxfp8_quantize", 3072): {"gfx942": 11.5, "gfx950": 7.5},
    ("mxfp8_quantize", 6144, "square_blocks"): {"gfx942": 10, "gfx950": 7.1},
    ("mxfp8_quantize_transposed", 6144): {"gfx942": 12.5, "gfx950": 11},
    ("mxfp8_quantize_both", 6144): {"gfx942": 22.3, "gfx950": 19.8},
    ("mxfp8_quantize_both", 6144, "square_blocks"): {"gfx942": 20.4, "gfx950": 18.2},
    ("mxfp8_dequantize", 3072): {"gfx942": 17, "gfx950": 4.2},
    ("gemma_rmsnorm", 6144): {"gfx942": 21, "gfx950": 14},
    ("gemma_rmsnorm", 128): {"gfx942": 21.5, "gfx950": 15.5},
    ("gemma_rmsnorm_heads", 9216): {"gfx942": 21.5, "gfx950": 16.5},
    ("gemma_rmsnorm_rope_heads", 9216): {"gfx942": 16, "gfx950": 11},
    ("gemma_rmsnorm_rope_heads", 9856): {"gfx942": 16, "gfx950": 11},
    ("gemma_rmsnorm_rope_kv_insert", 9216): {"gfx942": 16, "gfx950": 11},
    ("gemma_fused_add_rmsnorm", 6144): {"gfx942": 31, "gfx950": 17},
    ("gemma_fused_add_rmsnorm", 128): {"gfx942": 29, "gfx950": 17.5},
    ("gemma_rmsnorm_quantize", 6144): {"gfx942": 21, "gfx950": 18},
    ("gemma_fused_add_rmsnorm_quantize", 6144): {"gfx942": 29, "gfx950": 20.5},
}

# Everything else moves 16 bytes a lane. There is one scale byte for 32 elements, and the weight of a short row is
# shared by all rows of a workgroup: a thread reads one element of it, or two. A row has one position, which all its
# heads share, and with that the cosines and sines, and one slot.
NARROW_LOADS = {
    ("mxfp8_dequantize", 3072): {1: 1},
    ("gemma_rmsnorm", 128): {4: 1},
    ("gemma_rmsnorm_heads", 9216): {4: 1},
    ("gemma_rmsnorm_rope_heads", 9216): {8: 2, 4: 1},
    ("gemma_rmsnorm_rope_heads", 9856): {8: 2, 4: 1},
    ("gemma_rmsnorm_rope_kv_insert", 9216): {8: 2, 4: 2},
    ("gemma_fused_add_rmsnorm", 128): {4: 1},
}
NARROW_STORES = {
    ("swiglu_oai_quantize", 3072): {1: 1},
    ("swiglu_oai_quantize", 3072, "interleaved"): {1: 1},
    ("mxfp8_quantize", 3072): {1: 1},
    ("mxfp8_quantize", 6144, "square_blocks"): {2: 1},
    ("mxfp8_quantize_transposed", 6144): {1: 2},
    ("mxfp8_quantize_both", 6144): {1: 2, 2: 1},
    ("mxfp8_quantize_both", 6144, "square_blocks"): {1: 2, 2: 1},
    ("gemma_rmsnorm_quantize", 6144): {1: 3},
    ("gemma_fused_add_rmsnorm_quantize", 6144): {1: 3},
}
FP8_CONVERSION = {"gfx942": "v_cvt_pk_fp8_f32", "gfx950": "v_cvt_scalef32_pk_fp8_f32"}


EVERY_KERNEL = [(key, front_end, arch) for key in PREFILLS for front_end in FRONT_ENDS for arch in ARCHS]


@pytest.fixture(params=EVERY_KERNEL, ids=lambda param: "-".join(map(str, param)))
def compiled(request: pytest.FixtureRequest) -> Code:
    """Every kernel as each front end launches it on each GPU."""
    return code(*request.param)


def key(kernel: Code) -> tuple[Any, ...]:
    return key_of(kernel.workload)


def test_values_stay_in_registers(compiled: Code) -> None:
    facts = compiled.facts
    assert facts.spills == facts.scratch_bytes == 0
    assert facts.waves_per_simd >= (3 if compiled.workload.op == "mxfp8_quantize_both" else 4)


def test_memory_is_accessed_16_bytes_at_a_time(compiled: Code) -> None:
    for found, narrow in ((compiled.facts.loads, NARROW_LOADS), (compiled.facts.stores, NARROW_STORES)):
        assert found == {16: found.get(16, 0), **narrow.get(key(compiled), {})}
        assert found[16] > 0


def test_little_arithmetic(compiled: Code) -> None:
    assert compiled.valu <= VALU_LIMITS[key(compiled)][compiled.facts.arch]


def test_fp8_is_converted_in_hardware(compiled: Code) -> None:
    """Two elements an instruction; E4M3FN by way of E4M3FNUZ on gfx942, which has nothing else."""
    elements = compiled.elements / compiled.facts.num_threads if "_quantize" in compiled.workload.op else 0
    elements *= 2 if compiled.workload.op == "mxfp8_quantize_both" else 1
    assert compiled.instructions[FP8_CONVERSION[compiled.facts.arch]] == elements / 2


@pytest.mark.parametrize("target", ["gfx90a", "gfx942", "gfx950", "gfx1100", "gfx1201", "gfx1250"])
@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@pytest.mark.parametrize("op", ["swiglu_oai", "gemma_rmsnorm", "gemma_fused_add_rmsnorm"])
def test_products_are_rounded_before_they_are_narrowed(op: str, dtype: str, target: str) -> None:
    """v_fma_mixlo does both at once: Triton's LLVM gives it an addend of +0, and -0 becomes +0."""
    x = normal((1, 64), dtype)
    arrays = [x[0] if name == "weight" else x for name in OPS[op].inputs]
    launches: list[Launch] = []
    jax_device.run(target, op, arrays, {}, launches.append)
    (launch,) = launches
    mixed = ("v_fma_mixlo", "v_fma_mixhi", "v_mad_mixlo", "v_mad_mixhi")
    assert not [i.text for i in launch.kernel.instructions if i.name.startswith(mixed)]


def test_the_page_has_the_table() -> None:
    """``PYTHONPATH=.:tests python tests/write_tables.py`` writes it."""
    page = Path(__file__).parents[1] / "docs" / "rocm.md"
    assert "\n".join(table()) in page.read_text()
