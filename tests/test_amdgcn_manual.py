"""Every instruction of the kernels against AMD's own pseudocode, and a census of those that it cannot check."""

import numpy as np
import pytest
from amdgcn.census import MNEMONICS
from amdgcn.manual import differences, lane_differences

# Instructions without a data effect of their own, or with one that other tests are about.
NO_DATA = "moves no data: waiting, scheduling, the end"
CONTROL = "which waves go on where: test_amdgcn_reductions.py runs loops and branches"
MEMORY = "addresses and widths: test_amdgcn_memory.py, test_amdgcn_matrix.py"
UNCHECKED = {
    **dict.fromkeys(("s_nop", "s_waitcnt", "s_endpgm", "s_barrier"), NO_DATA),
    **dict.fromkeys(("s_branch", "s_cbranch_execnz", "s_cbranch_execz", "s_cbranch_scc0", "s_cbranch_scc1",
                     "s_cbranch_vccnz", "s_cbranch_vccz"), CONTROL),
    "s_setreg_imm32_b32": "sets the mode: test_amdgcn_vectors.py checks what it changes",
    **dict.fromkeys(("v_mfma_f32_32x32x8_f16", "v_mfma_f32_16x16x16_f16", "v_mfma_f32_32x32x16_f16",
                     "v_mfma_f32_16x16x32_f16", "v_mfma_f32_16x16x16_bf16", "v_mfma_f32_16x16x32_bf16"),
                    "products of matrices: test_amdgcn_matrix.py"),
    **dict.fromkeys(("v_accvgpr_read_b32", "v_accvgpr_write_b32", "v_accvgpr_mov_b32"),
                    "moves between the two kinds of vector registers, and within the second"),
    "v_fma_mix_f32": "CDNA 4's manual has no pseudocode of it; forms of it are recorded: test_amdgcn_vectors.py",
}  # fmt: skip
MEMORY_PREFIXES = ("buffer_load_", "buffer_store_", "global_load_", "global_store_", "ds_read", "ds_write", "s_load_")

# ---- where the manual errs. Each is followed by the executor's rule, and by what shows that the manual is wrong.


def _exponent(bits):
    return bits >> 23 & 255


def _zeros_of_both_signs(sources):
    """As float32, or in the same half as float16."""
    low, high = ({source >> shift & 0xFFFF for source in sources} for shift in (0, 16))
    return {0, 0x80000000} <= set(sources) or {0, 0x8000} <= low or {0, 0x8000} <= high


def _denormal(sources):
    return _exponent(sources[0]) == 0


def _denormal_reciprocal(sources):
    return _exponent(sources[0]) == 0 or _exponent(sources[0]) >= 253


def _nan_quotient(sources):
    return (sources[0] & 0x7FFFFFFF) > 0x7F800000


KNOWN_ERRORS = {
    # It has cases for +0 beside -0 in both orders, but compares with ==, so that the second is never reached. gfx1201
    # tells the zeros apart, in v_med3 also; LLVM folds minimum and maximum so.
    **dict.fromkeys(("v_min_f32", "v_max_f32", "v_min_f16", "v_max_f16", "v_pk_min_f16", "v_pk_max_f16",
                     "v_med3_f32", "v_med3_f16"), _zeros_of_both_signs),
    # the tables of rcp, as captured on gfx1100 and gfx1201, flush denormals on both sides whatever the mode
    "v_rcp_f32": _denormal_reciprocal,
    "v_sqrt_f32": _denormal,
    # LLVM's division is correctly rounded on hardware, and leaves a NaN for a quotient beyond the largest number
    "v_div_fixup_f32": _nan_quotient,
}  # fmt: skip
WRONG_ALTOGETHER = {
    "v_div_scale_f32": "its conditions on denormals are not hardware's: test_div_scale has results by the right ones",
    "v_div_fmas_f32": "it scales by 2^32 where only 2^64 or 2^-64 undoes v_div_scale: the million divisions are exact",
}
LANES = {
    "ds_bpermute_b32": "ds_bpermute_b32 v20, v2, v20",
    "v_readfirstlane_b32": "v_readfirstlane_b32 s20, v2",
    "v_readlane_b32": "v_readlane_b32 s20, v2, s6",
    "v_permlane16_swap_b32": "v_permlane16_swap_b32_e32 v20, v2",
    "v_permlane32_swap_b32": "v_permlane32_swap_b32_e32 v20, v2",
}


CENSUS = MNEMONICS
ELSEWHERE = {name for name in CENSUS if name.startswith(MEMORY_PREFIXES)} | UNCHECKED.keys() | WRONG_ALTOGETHER.keys()
CHECKED = sorted(CENSUS - ELSEWHERE - LANES.keys())


def test_census():
    """Prints how each instruction is checked (pytest -rP); no reason may outlive its instruction."""
    for name in sorted(CENSUS):
        reason = UNCHECKED.get(name) or WRONG_ALTOGETHER.get(name) or (MEMORY if name in ELSEWHERE else "pseudocode")
        print(f"{name:28} {reason}")
    assert {*UNCHECKED, *WRONG_ALTOGETHER, *KNOWN_ERRORS, *LANES} <= CENSUS
    assert len(CHECKED) + len(LANES) + len(ELSEWHERE) == len(CENSUS)


@pytest.mark.parametrize("name", CHECKED)
def test_pseudocode(name):
    with np.errstate(all="ignore"):
        wrong = differences(name, KNOWN_ERRORS.get(name))
    assert not wrong, f"{len(wrong)} differ, first {wrong[0]}"


@pytest.mark.parametrize("name", sorted(LANES))
def test_pseudocode_of_lanes(name):
    wrong = lane_differences(name, LANES[name])
    assert not wrong, f"{len(wrong)} differ, first {wrong[0]}"


@pytest.mark.parametrize("name", sorted(KNOWN_ERRORS))
def test_known_errors_are_errors(name):
    """What is left out differs: an exception that nothing needs would hide a mistake."""
    with np.errstate(all="ignore"):
        assert differences(name)
