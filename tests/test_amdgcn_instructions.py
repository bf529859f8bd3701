"""Single instructions of AMD machine code, written by hand, against values worked out from the ISA documents' rules."""

import numpy as np
import pytest
from amdgcn import launch
from amdgcn.dpp import Dpp
from amdgcn.handwritten import hand_written, run_lines
from amdgcn.parser import parse_instruction

NINE, TWELVE = "gfx950", "gfx1201"
A, B, C = 0x81C24384, 0xF00FCC33, 0x0F1E2D3C


def results(arch: str, line: str) -> np.ndarray:
    """v1 after `line`, with the three constants in v2, v3, v4 and s10, s11, s12."""
    setup = "".join(
        f"v_mov_b32_e32 v{2 + i}, {value:#x}\ns_mov_b32 s{10 + i}, {value:#x}\n" for i, value in enumerate((A, B, C))
    )
    return run_lines(arch, setup + line)


def signed(x: int) -> int:
    return x - ((x & 0x80000000) << 1)


@pytest.mark.parametrize(
    ("arch", "line", "expected"),
    [
        # truth table bit 4 a + 2 b + c
        (NINE, "v_bitop3_b32 v1, v2, v3, v4 bitop3:0x50", A & ~C),
        (NINE, "v_bitop3_b32 v1, v2, v3, v4 bitop3:0x30", A & ~B),
        (NINE, "v_bitop3_b32 v1, v2, v3, v4 bitop3:0x96", A ^ B ^ C),
        (NINE, "v_bfi_b32 v1, v2, v3, v4", (A & B) | (~A & C)),
        # selectors 0..3 are bytes of the second source, 4..7 of the first, 8..11 signs, 12 zero, 13 ones
        (NINE, "v_perm_b32 v1, v2, v3, 0x07050200", 0x81430F33),
        (NINE, "v_perm_b32 v1, v2, v3, 0x0d0c0b08", 0xFF00FFFF),
        (NINE, "v_perm_b32 v1, v2, v3, 0x0c0c0a09", 0x000000FF),
        (NINE, "v_alignbit_b32 v1, v2, v3, 12", ((A << 32 | B) >> 12) & 0xFFFFFFFF),
        (NINE, "v_bfe_u32 v1, v2, 8, 9", (A >> 8) & 0x1FF),
        (NINE, "v_bfe_i32 v1, v2, 8, 10", (((A >> 8) & 0x3FF) ^ 0x200) - 0x200),
        (NINE, "v_bfe_i32 v1, v2, 8, 0", 0),
        (NINE, "v_bfrev_b32_e32 v1, v2", int(f"{A:032b}"[::-1], 2)),
        (NINE, "v_ffbh_i32_e32 v1, v4", 4),
        (NINE, "v_ffbh_i32_e32 v1, -1", -1),
        (NINE, "v_add_lshl_u32 v1, v2, v3, 4", (A + B) << 4),
        (NINE, "v_lshl_add_u32 v1, v2, 4, v3", (A << 4) + B),
        (NINE, "v_xad_u32 v1, v2, v3, v4", (A ^ B) + C),
        (NINE, "v_lshlrev_b32_e32 v1, 36, v2", A << 4),  # five bits of the amount
        (NINE, "v_mul_u32_u24_e32 v1, v2, v3", (A & 0xFFFFFF) * (B & 0xFFFFFF)),
        (NINE, "v_mul_i32_i24_e32 v1, v2, v3", (0xC24384 - (1 << 24)) * 0x0FCC33),
        (NINE, "v_mul_hi_i32 v1, v2, v3", (signed(A) * signed(B)) >> 32),
        (NINE, "v_sub_u32_e64 v1, v4, v2 clamp", 0),
        (NINE, "v_add_u32_e64 v1, v3, v2 clamp", 0xFFFFFFFF),
        (NINE, "v_add_co_u32_e32 v1, vcc, v2, v3\nv_addc_co_u32_e32 v1, vcc, 0, v4, vcc", C + 1),
        (NINE, "v_sub_co_u32_e32 v1, vcc, v4, v3\nv_subb_co_u32_e32 v1, vcc, v4, v4, vcc", -1),
        (NINE, "v_mov_b32_e32 v6, -1\nv_mov_b32_e32 v7, -1\nv_mad_u64_u32 v[8:9], vcc, v2, v3, v[6:7]\n"
               "v_addc_co_u32_e32 v1, vcc, 0, v4, vcc", C + 1),
        (NINE, "v_mad_u64_u32 v[8:9], vcc, v2, v3, 1\nv_addc_co_u32_e32 v1, vcc, 0, v4, vcc", C),
        (NINE, "v_mad_i64_i32 v[8:9], vcc, v2, v4, 1\nv_cndmask_b32_e64 v1, 0, 1, vcc", 1),  # the sum is negative
        (NINE, "v_bfrev_b32_e32 v7, 1\nv_mov_b32_e32 v6, 0\nv_mad_i64_i32 v[8:9], vcc, v2, v4, v[6:7]\n"
               "v_cndmask_b32_e64 v1, v9, 1, vcc", 1),  # and so is one that 64 bits cannot hold
        # 16 bits: gfx9 zeroes the other half, but v_mad_u16 keeps it, and so does everything on gfx12
        (NINE, "v_mov_b32_e32 v1, v3\nv_add_u16_e32 v1, v2, v3", (A + B) & 0xFFFF),
        (NINE, "v_mov_b32_e32 v1, v3\nv_mad_u16 v1, v2, v3, v4", (B & 0xFFFF0000) | ((A * B + C) & 0xFFFF)),
        (TWELVE, "v_mov_b32_e32 v1, v3\nv_add_nc_u16 v1.h, v2.l, v3.h", (B & 0xFFFF) | (A + (B >> 16) & 0xFFFF) << 16),
        # SDWA
        (NINE, "v_or_b32_sdwa v1, v2, v3 dst_sel:DWORD src0_sel:BYTE_3 src1_sel:WORD_0", 0x81 | 0xCC33),
        (NINE, "v_add_u32_sdwa v1, sext(v2), v3 dst_sel:DWORD src0_sel:BYTE_0 src1_sel:BYTE_1", (0x84 - 256) + 0xCC),
        (
            NINE,
            "v_mov_b32_e32 v1, v4\n"
            "v_add_u32_sdwa v1, v2, v3 dst_sel:BYTE_1 dst_unused:UNUSED_PRESERVE src0_sel:BYTE_0 src1_sel:BYTE_0",
            (C & 0xFFFF00FF) | ((0x84 + 0x33) & 255) << 8,
        ),
        # approximate instructions flush denormals on both sides
        (NINE, "v_mov_b32_e32 v5, 0x400000\nv_rcp_f32_e32 v1, v5", 0x7F800000),
        (NINE, "v_mov_b32_e32 v5, 0x807fffff\nv_sqrt_f32_e32 v1, v5", 0x80000000),
        (NINE, "v_mov_b32_e32 v5, 0xc3000000\nv_exp_f32_e32 v1, v5", 0),
        # constants and sources
        (NINE, "v_mov_b32_e32 v1, 1.0", 0x3F800000),
        (NINE, "v_mov_b32_e32 v1, 0.15915494", 0x3E22F983),
        (NINE, "v_max_f32_e64 v1, -|v2|, -|v2|", A | 0x80000000),
        (NINE, "v_lshl_add_u64 v[8:9], v[2:3], 0, -1\nv_mov_b32_e32 v1, v9", B),
        (NINE, "v_ashrrev_i64 v[8:9], 0, 0x80000000\nv_mov_b32_e32 v1, v9", -1),  # signed literals extend
        (NINE, "v_lshlrev_b64 v[8:9], 0, 0x80000000\nv_mov_b32_e32 v1, v9", 0),
        # packed: low from the high elements, negated
        (NINE, "v_pk_mov_b32 v[8:9], v[2:3], v[2:3] op_sel:[1,0]\nv_sub_u32_e32 v1, v8, v9", B - A),
        (NINE, "v_pk_lshlrev_b16 v1, 4, v2 op_sel_hi:[0,1]", (A << 4 & 0xFFF00000) | (A << 4 & 0xFFF0)),
        (NINE, "v_pk_lshlrev_b16 v1, v3, v2", (A >> 16 << 15 & 0xFFFF) << 16 | (A << 3 & 0xFFFF)),
        # scalar
        (NINE, "s_bfe_u32 s4, s10, 0x90008\nv_mov_b32_e32 v1, s4", (A >> 8) & 0x1FF),
        (NINE, "s_bfe_i32 s4, s10, 0xa0008\nv_mov_b32_e32 v1, s4", (((A >> 8) & 0x3FF) ^ 0x200) - 0x200),
        (NINE, "s_bfe_i64 s[4:5], s[10:11], 0xa0008\nv_mov_b32_e32 v1, s4", (((A >> 8) & 0x3FF) ^ 0x200) - 0x200),
        (NINE, "s_bfe_i64 s[4:5], s[10:11], 0x80000\nv_mov_b32_e32 v1, s5", -(A >> 7 & 1)),
        (NINE, "s_bfe_i64 s[4:5], s[10:11], 0x100010\nv_mov_b32_e32 v1, s5", -(A >> 31)),
        (NINE, "s_bfe_i64 s[4:5], s[10:11], 0x7f0020\nv_mov_b32_e32 v1, s4", B),
        (NINE, "s_sext_i32_i8 s4, s10\nv_mov_b32_e32 v1, s4", 0x84 - 256),
        (NINE, "s_sext_i32_i16 s4, s11\nv_mov_b32_e32 v1, s4", 0xCC33 - 0x10000),
        (NINE, "s_andn2_b32 s4, s10, s11\nv_mov_b32_e32 v1, s4", A & ~B),
        (TWELVE, "s_and_not1_b32 s4, s10, s11\nv_mov_b32_e32 v1, s4", A & ~B),
        (NINE, "s_ashr_i32 s4, s10, 4\nv_mov_b32_e32 v1, s4", signed(A) >> 4),
        (NINE, "s_movk_i32 s4, 0x8000\nv_mov_b32_e32 v1, s4", -0x8000),
        (NINE, "s_pack_ll_b32_b16 s4, s10, s11\nv_mov_b32_e32 v1, s4", (A & 0xFFFF) | (B & 0xFFFF) << 16),
        (NINE, "s_add_u32 s4, s10, s11\ns_addc_u32 s4, s12, 0\nv_mov_b32_e32 v1, s4", C + 1),
        (NINE, "s_sub_u32 s4, s12, s11\ns_subb_u32 s4, s12, 0\nv_mov_b32_e32 v1, s4", C - 1),
        (NINE, "s_add_i32 s4, s10, s10\ns_cselect_b32 s4, 1, 2\nv_mov_b32_e32 v1, s4", 1),  # signed overflow
        (NINE, "s_add_i32 s4, s10, s12\ns_cselect_b32 s4, 1, 2\nv_mov_b32_e32 v1, s4", 2),
        (NINE, "s_min_i32 s4, s12, s10\ns_cselect_b32 s4, 1, 2\nv_mov_b32_e32 v1, s4", 2),
        (NINE, "s_bitcmp1_b32 s10, 1\ns_cselect_b32 s4, 1, 2\nv_mov_b32_e32 v1, s4", 2),
        (NINE, "s_mul_hi_i32 s4, s10, s11\nv_mov_b32_e32 v1, s4", (signed(A) * signed(B)) >> 32),
        (NINE, "s_bitset1_b32 s10, 4\nv_mov_b32_e32 v1, s10", A | 1 << 4),
        (NINE, "s_bitset0_b32 s10, 31\nv_mov_b32_e32 v1, s10", A & 0x7FFFFFFF),
        (NINE, "s_setreg_imm32_b32 hwreg(HW_REG_MODE, 2, 2), 0\nv_mov_b32_e32 v1, v2", A),  # as it is already
        # float minima and maxima: the other half is kept, NaN goes through, a literal is one half for both
        (NINE, "v_mov_b32_e32 v1, v2\nv_med3_f16 v1, 1.0, 4.0, 2.0", A & 0xFFFF0000 | 0x4000),
        (TWELVE, "v_minimummaximum_f32 v1, 1.0, 2.0, 0.5", 0x3F800000),
        (TWELVE, "v_maximumminimum_f32 v1, 1.0, 2.0, 0.5", 0x3F000000),
        (TWELVE, "v_mov_b32_e32 v8, 0x7fc00000\nv_maximumminimum_f32 v1, 1.0, v8, 0.5", 0x7FC00000),
        (NINE, "v_mov_b32_e32 v8, 0x3c004800\nv_pk_max_f16 v1, 0x4700, v8 op_sel_hi:[0,1]", 0x47004800),
        (NINE, "v_readlane_b32 s4, v0, 37\nv_mov_b32_e32 v1, s4", 37),
        (NINE, "s_mov_b64 exec, 0xf0\nv_readfirstlane_b32 s4, v0\ns_mov_b64 exec, -1\nv_mov_b32_e32 v1, s4", 4),
    ],
)  # fmt: skip
def test_one_instruction(arch, line, expected):
    assert (results(arch, line) == np.uint32(expected & 0xFFFFFFFF)).all()


@pytest.mark.parametrize(
    ("operands", "low", "high"),
    [  # the elements are 2, 3 (v[8:9]); 5, 7 (v[10:11]); 11, 13 (s[14:15])
        ("v[8:9], v[10:11], s[14:15]", 2 * 5 + 11, 3 * 7 + 13),
        ("v[8:9], v[10:11], s[14:15] op_sel:[1,0,0] op_sel_hi:[0,1,1]", 3 * 5 + 11, 2 * 7 + 13),
        ("v[8:9], v[10:11], s[14:15] op_sel:[0,1,1] op_sel_hi:[1,1,0]", 2 * 7 + 13, 3 * 7 + 11),
        ("v[8:9], v[10:11], s[14:15] neg_lo:[1,0,0] neg_hi:[0,0,1]", -2 * 5 + 11, 3 * 7 - 13),
        ("v[8:9], v[10:11], 1.0 op_sel_hi:[1,1,0]", 2 * 5 + 1, 3 * 7 + 1),
        ("v[8:9], v[10:11], 1.0 op_sel_hi:[1,0,0] neg_lo:[0,1,0] neg_hi:[0,0,1]", -2 * 5 + 1, 3 * 5 - 1),
    ],
)
def test_packed_fma(operands, low, high):
    values = {"v_mov_b32_e32 v8": 2, "v_mov_b32_e32 v9": 3, "v_mov_b32_e32 v10": 5, "v_mov_b32_e32 v11": 7,
              "s_mov_b32 s14": 11, "s_mov_b32 s15": 13}  # fmt: skip
    lines = "\n".join(f"{move}, {np.float32(value).view(np.uint32):#x}" for move, value in values.items())
    lines += f"\nv_pk_fma_f32 v[12:13], {operands}\nv_mov_b32_e32 v1, v"
    assert (results(NINE, lines + "12").view(np.float32) == low).all()
    assert (results(NINE, lines + "13").view(np.float32) == high).all()


def test_mixed_fma():
    """op_sel_hi marks the 16-bit sources, op_sel the half of each: 2.0 and 3.0 are the halves of v8."""
    halves = np.array([2, 3], np.float16).view(np.uint32)[0]
    setup = f"v_mov_b32_e32 v8, {halves:#x}\nv_mov_b32_e32 v9, 0x40a00000\n"
    line = "v_fma_mix_f32 v1, v8, -v8, v9 op_sel:[0,1,0] op_sel_hi:[1,1,0]"
    assert (results(NINE, setup + line).view(np.float32) == -1).all()


@pytest.mark.parametrize(
    ("bits", "number"),
    [
        (0x7F800001, 0), (0x7FC00000, 1), (0xFF800000, 2), (0xBF800000, 3), (0x80000001, 4),
        (0x80000000, 5), (0x00000000, 6), (0x007FFFFF, 7), (0x00800000, 8), (0x7F800000, 9),
    ],
)  # fmt: skip
def test_float_classes(bits, number):
    """v_cmp_class: each value is in its own class and in no other."""
    line = f"v_mov_b32_e32 v5, {bits:#x}\nv_mov_b32_e32 v6, {{}}\nv_cmp_class_f32_e32 vcc, v5, v6\n"
    line += "v_cndmask_b32_e64 v1, 0, 1, vcc"
    assert (results(NINE, line.format(hex(1 << number))) == 1).all()
    assert (results(NINE, line.format(hex(0x3FF & ~(1 << number)))) == 0).all()


def test_comparisons_are_false_for_inactive_lanes():
    lines = "s_mov_b64 exec, 0xff\nv_cmp_gt_u32_e32 vcc, 4, v0\nv_cmp_gt_u32_e64 s[4:5], 12, v0\ns_mov_b64 exec, -1\n"
    assert (results(NINE, lines + "v_cndmask_b32_e64 v1, 0, 1, s[4:5]") == (np.arange(64) < 8)).all()


def test_inactive_lanes_give_zero_to_a_permutation():
    lines = "v_xor_b32_e32 v5, 1, v0\nv_lshlrev_b32_e32 v5, 2, v5\nv_add_u32_e32 v6, 100, v0\nv_mov_b32_e32 v1, 7\n"
    lines += "s_mov_b64 exec, 0x7\nds_bpermute_b32 v1, v5, v6\ns_mov_b64 exec, -1"
    assert run_lines(NINE, lines)[:4].tolist() == [
        101,
        100,
        0,
        7,
    ]  # lane 3 is inactive: nothing to read, nothing written


def test_barrier_orders_the_waves_of_a_work_group():
    """The first wave writes after the code in which the second, which is scheduled first, waits and reads."""
    kernel = hand_written(
        NINE,
        """s_load_dwordx2 s[2:3], s[0:1], 0x0
        v_mov_b32_e32 v2, 0
        v_mov_b32_e32 v3, 42
        v_readfirstlane_b32 s4, v0
        s_cmp_eq_u32 s4, 0
        s_cbranch_scc1 .LBB0_2
        s_barrier
        ds_read_b32 v1, v2
        v_lshlrev_b32_e32 v4, 2, v0
        global_store_dword v4, v1, s[2:3]
        s_endpgm
        .LBB0_2:
        ds_write_b32 v2, v3
        s_barrier
        s_endpgm""",
        waves=2,
    )
    out = np.zeros(128, np.uint32)
    launch(kernel, (1,), [out])
    assert (out == np.where(np.arange(128) < 64, 0, 42)).all()


def test_saved_masks():
    """The old mask is saved, EXEC is combined, and lanes outside keep their values."""
    lines = "v_mov_b32_e32 v1, 9\nv_cmp_gt_u32_e32 vcc_lo, 20, v0\ns_and_saveexec_b32 s4, vcc_lo\nv_mov_b32_e32 v1, 1\n"
    lines += (
        "s_mov_b32 vcc_lo, 0xff000000\ns_and_not1_saveexec_b32 s5, vcc_lo\nv_mov_b32_e32 v1, 2\ns_mov_b32 exec_lo, s4"
    )
    lane = np.arange(32)  # the second mask is vcc and not EXEC
    assert (results(TWELVE, lines) == np.select([lane < 20, lane >= 24], [1, 2], 9)).all()


@pytest.mark.parametrize(
    ("pattern", "source"),
    [
        ('BITMASK_PERM,"00p1i"', lambda lane: (lane & 32) | (lane & 4) | 2 | (~lane & 1)),
        ("QUAD_PERM,3,2,1,0", lambda lane: lane ^ 3),
        ("SWAP,16", lambda lane: lane ^ 16),
        ("REVERSE,8", lambda lane: lane ^ 7),
        ("BROADCAST,4,2", lambda lane: (lane & ~3) + 2),
    ],
)
def test_swizzle_patterns(pattern, source):
    lane = np.arange(64)
    assert (run_lines(NINE, f"ds_swizzle_b32 v1, v0 offset:swizzle({pattern})") == source(lane)).all()


def test_row_swaps():
    lane = np.arange(64)
    swap = "v_mov_b32_e32 v1, v0\nv_add_u32_e32 v2, 100, v0\nv_permlane{}_swap_b32_e32 v1, v2"
    assert (run_lines(NINE, swap.format(32)) == np.where(lane < 32, lane, 100 + lane - 32)).all()
    assert (run_lines(NINE, swap.format(16)) == np.where(lane & 16, 100 + lane - 16, lane)).all()


def test_dpp_leaves_disabled_lanes_alone():
    lane = np.arange(64)
    base = "v_mov_b32_e32 v1, 77\nv_mov_b32_dpp v1, v0 row_shr:1 "
    assert (run_lines(NINE, base + "row_mask:0xf bank_mask:0xf") == np.where(lane % 16, lane - 1, 77)).all()
    assert (run_lines(NINE, base + "row_mask:0xf bank_mask:0xf bound_ctrl:1") == np.where(lane % 16, lane - 1, 0)).all()
    masked = run_lines(NINE, base + "row_mask:0x5 bank_mask:0x3 bound_ctrl:1")
    assert (masked == np.where((lane // 16 % 2 == 0) & (lane % 16 < 8), np.where(lane % 16, lane - 1, 0), 77)).all()


def test_dual_instructions_read_before_they_write():
    swap = "v_mov_b32_e32 v2, 5\nv_mov_b32_e32 v1, v0\nv_dual_mov_b32 v1, v2 :: v_dual_mov_b32 v2, v1\n"
    assert (run_lines(TWELVE, swap + "v_add_nc_u32_e32 v1, v1, v2") == np.arange(32) + 5).all()


class _Wave32:
    arch, wave_size, is_gfx9 = "gfx1201", 32, False


class _Wave64:
    arch, wave_size, is_gfx9 = "gfx950", 64, True


@pytest.mark.parametrize(
    ("control", "machine", "expected"),
    [
        ("quad_perm:[3,2,1,0]", _Wave64, {0: 3, 5: 6, 63: 60}),
        ("row_shr:3", _Wave64, {0: None, 3: 0, 16: None, 20: 17}),
        ("row_shl:2", _Wave32, {0: 2, 13: 15, 14: None, 16: 18}),
        ("row_ror:4", _Wave64, {0: 12, 4: 0, 17: 29}),
        ("row_mirror", _Wave32, {0: 15, 20: 27}),
        ("row_half_mirror", _Wave64, {0: 7, 8: 15, 50: 53}),
        ("row_bcast:15", _Wave64, {0: None, 16: 15, 40: 31}),
        ("row_bcast:31", _Wave64, {31: None, 32: 31, 63: 31}),
        ("row_share:5", _Wave32, {0: 5, 31: 21}),
        ("row_xmask:9", _Wave32, {0: 9, 9: 0, 17: 24}),
    ],
)
def test_dpp_source_lanes(control, machine, expected):
    dpp = Dpp(parse_instruction(f"v_mov_b32_dpp v0, v1 {control} row_mask:0xf bank_mask:0xf bound_ctrl:1"), machine)
    for lane, source in expected.items():
        assert dpp.exists[lane] == (source is not None)
        assert source is None or dpp.source[lane] == source


@pytest.mark.parametrize(("value", "less"), [("0x8000", 1), ("-1", 0), ("0xffff", 0), ("0xfffe", 1)])
def test_an_unsigned_comparison_with_an_immediate_extends_it_by_zeros(value: str, less: int) -> None:
    lines = f"s_mov_b32 s4, {value}\ns_cmpk_lt_u32 s4, 0xffff\ns_cselect_b32 s5, 1, 0\nv_mov_b32_e32 v1, s5"
    assert (results(TWELVE, lines) == less).all()
