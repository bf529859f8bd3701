"""What the interpreter does not model raises and names the instruction; what a program must not do raises too."""

import re

import numpy as np
import pytest
from amdgcn import AmdgcnError, Kernel, facts, launch
from amdgcn.compiling import ARCHS, compile_sample
from amdgcn.handwritten import hand_written, run_lines
from amdgcn.samples import convert_kernel, copy_kernel, float_kernel

NINE, TWELVE = "gfx950", "gfx1201"


@pytest.mark.parametrize(
    ("arch", "line"),
    [
        # instructions
        (NINE, "v_frobnicate_b32 v0, v1"),
        (NINE, "v_mfma_f32_32x32x4_2b_f16 v[0:31], v[0:1], v[2:3], 0"),
        ("gfx942", "v_mfma_f32_16x16x32_f16 v[0:3], v[4:7], v[8:11], 0"),
        ("gfx942", "v_mfma_scale_f32_16x16x128_f8f6f4 v[0:3], v[4:11], v[4:11], 0, v1, v1 op_sel_hi:[0,0,0]"),
        ("gfx90a", "v_mfma_f32_16x16x16_f16 v[0:3], v[4:5], v[8:9], 0"),
        ("gfx942", "ds_read_b64_tr_b16 v[0:1], v2"),
        ("gfx942", "global_load_lds_dwordx4 v[2:3], off"),
        (TWELVE, "v_dot2_bf16_bf16 v1, v2, v3, 0"),
        (NINE, "scratch_load_dword v1, off, s0"),
        (NINE, "flat_load_dword v1, v[2:3]"),
        (NINE, "global_atomic_add v[2:3], v1, off"),
        (NINE, "s_buffer_load_dword s0, s[4:7], 0x0"),
        (TWELVE, "s_swappc_b64 s[4:5], s[6:7]"),
        (NINE, "s_sendmsg sendmsg(MSG_INTERRUPT)"),
        (TWELVE, "s_barrier_wait 1"),
        (NINE, "v_cmpx_lt_u32_e32 vcc, v1, v2"),
        (NINE, "global_load_short_d16 v1, v[2:3], off"),
        # modifiers
        (NINE, "v_add_f32_e64 v0, v1, v2 clamp"),
        (NINE, "v_mul_f32_e64 v0, v1, v2 mul:2"),
        (NINE, "v_exp_f32_e64 v0, v1 div:2"),
        (NINE, "v_max_f32_e64 v0, v1, v2 something"),
        (NINE, "v_fma_f32 v0, v1, v2, v3 op_sel:[1,0,0,0]"),
        (NINE, "v_lshl_add_u32 v0, v1, v2, v3 clamp"),
        (NINE, "v_cndmask_b32_e32 v0, v1, v2, vcc row_shr:1"),
        (NINE, "v_pk_fma_f32 v[0:1], v[2:3], v[4:5], v[6:7] clamp"),
        (NINE, "v_cvt_scalef32_pk_fp8_f32 v0, v1, v2, 1.0 clamp"),
        (NINE, "v_mfma_f32_16x16x128_f8f6f4 v[0:3], v[4:11], v[4:11], 0 cbsz:4"),
        (NINE, "v_mfma_f32_16x16x32_f16 v[0:3], v[4:7], v[8:11], 0 blgp:1"),
        (NINE, "v_mfma_scale_f32_16x16x128_f8f6f4 v[0:3], v[4:11], v[4:11], 0, v1, v1"),
        (NINE, "v_readfirstlane_b32 s0, v1 row_shr:1"),
        (NINE, "buffer_load_ubyte v1, s[4:7], 0 offen lds"),
        (NINE, "v_permlane32_swap_b32_e32 v1, v2 bound_ctrl:1"),
        (TWELVE, "v_permlanex16_b32 v1, v2, s0, s1"),
        (NINE, "ds_bpermute_b32 v1, v2, v3 gds"),
        (NINE, "ds_read_b32 v1, v2 gds"),
        (NINE, "ds_write2_b32 v1, v2, v3 offset:4"),
        (NINE, "global_load_dword v1, v[2:3], off lds"),
        (NINE, "buffer_load_dword v1, v2, s[4:7], 0 idxen"),
        (NINE, "buffer_store_dword v1, v2, s[4:7], 0 offen tfe"),
        (NINE, "s_load_dword s4, s[0:1], 0x0 glc"),
        (NINE, "s_add_u32 s4, s5, s6 clamp"),
        (NINE, "v_add_f32_dpp v0, v1, v2 wave_shr:1 row_mask:0xf bank_mask:0xf"),
        (NINE, "v_add_f32_dpp v0, v1, v2 row_shr:1 fi:1"),
        (NINE, "v_add_f32_dpp v0, v1, v2 row_xmask:1 row_mask:0xf bank_mask:0xf"),
        (TWELVE, "v_add_f32_dpp v0, v1, v2 row_bcast:15 row_mask:0xf bank_mask:0xf"),
        (NINE, "v_or_b32_sdwa v0, v1, v2 dst_sel:BYTE_1 dst_unused:UNUSED_SEXT src0_sel:DWORD src1_sel:DWORD"),
        (NINE, "v_or_b32_sdwa v0, v1, v2 dst_sel:HALF src0_sel:DWORD src1_sel:DWORD"),
        # operands
        (NINE, "v_mfma_f32_16x16x32_f16 v[0:3], v[4:5], v[8:11], 0"),
        (NINE, "v_mfma_f32_16x16x32_f16 v[0:3], v[4:7], v[8:11], s0"),
        (NINE, "v_add_f32_e32 v0, v1"),
        (NINE, "v_add_f32_e32 v0, v1, v2, v3"),
        (NINE, "v_add_f32_e32 v0, v[2:3], v1"),
        (NINE, "v_add_f32_e32 v0, vcc, v1"),
        (NINE, "v_add_f32_e32 v0, lds_direct, v1"),
        (NINE, "v_add_f32_e32 v32, v1, v2"),
        (NINE, "v_add_f32_e32 s0, v1, v2"),
        (NINE, "v_add_u32_e64 v0, -v1, v2"),
        (NINE, "v_add_u16_e64 v0, 1.0, v2"),
        (NINE, "v_pk_mul_f32 v[0:1], v[2:3], 2.0"),
        (NINE, "v_and_b32_e64 v0, |v1|, v2"),
        (NINE, "v_mov_b32_e32 v1.l, v2"),
        (NINE, "v_mov_b32_e32 v1, src_shared_base"),
        (NINE, "s_add_u32 s0, v1, s2"),
        (NINE, "s_mov_b64 s[0:1], s2"),
        (NINE, "s_mov_b32 s200, 0"),
        (NINE, "v_cvt_scalef32_pk_fp8_f32 v0, v1, v2, 1.0 op_sel:[1,0,0,0]"),
        (NINE, "s_branch .LBB0_9"),
        # hardware registers
        (NINE, "s_setreg_imm32_b32 hwreg(HW_REG_MODE, 0, 4), 1"),
        (NINE, "s_setreg_imm32_b32 hwreg(HW_REG_MODE, 2, 2), 3"),
        (NINE, "v_pk_max_f16 v1, 0x4700, v2"),
        (NINE, "s_setreg_imm32_b32 hwreg(HW_REG_TRAPSTS, 23, 1), 1"),
        (TWELVE, "s_setreg_imm32_b32 hwreg(HW_REG_WAVE_MODE, 25, 1), 1"),
        (NINE, "s_getreg_b32 s0, hwreg(HW_REG_HW_ID, 0, 4)"),
        # dual instructions
        (TWELVE, "v_dual_mov_b32 v0, v1 :: v_dual_frobnicate_f32 v2, v3, v4"),
        (TWELVE, "v_dual_mov_b32 v0, v1 :: v_dual_pk_mov_b32 v[2:3], v[4:5], v[6:7]"),
        # directives
        (NINE, ".long 0xbf800000"),
    ],
)
def test_unknown_text_raises_and_is_named(arch, line):
    with pytest.raises(AmdgcnError, match=re.escape(line)):
        launch(hand_written(arch, f"{line}\ns_endpgm"), (1,), [np.zeros(64, np.uint32)])


def test_running_past_the_end_raises():
    with pytest.raises(AmdgcnError, match="past the last"):
        launch(hand_written(NINE, "s_nop 0"), (1,), [np.zeros(64, np.uint32)])


# ---- memory


def copy(arch: str, aligned: bool = True) -> Kernel:
    signature = {"x_ptr": "*i32", "o_ptr": "*i32", "stride": "i32", "n": "i32"}
    constexprs = {"BLOCK": 1024, "MASKED": False, "WIDE": True}
    return compile_sample(copy_kernel, arch, signature, constexprs, num_warps=1, aligned=aligned)


@pytest.mark.parametrize("arch", ARCHS)
@pytest.mark.parametrize(("x_size", "o_size", "word"), [(1023, 1024, "load"), (1024, 1023, "store"), (0, 1024, "load")])
def test_accesses_beyond_a_buffer_raise(arch, x_size, o_size, word):
    with pytest.raises(AmdgcnError, match=f"`(global|buffer)_{word}.*in no buffer"):
        launch(copy(arch), (1,), [np.zeros(x_size, np.int32), np.zeros(o_size, np.int32), 1024, 1024])


@pytest.mark.parametrize("arch", ARCHS)
@pytest.mark.parametrize("word", ["load", "store"])
def test_a_shifted_access_raises(arch, word):
    """The same kernel with 4 KiB added to the offset of one instruction."""
    pattern = rf"(\t(?:global|buffer)_{word}_(?:b128|dwordx4)[^\n]*?)(?: offset:\d+)?\n"
    kernel = copy(arch)
    patched = Kernel(re.sub(pattern, r"\1 offset:4095\n", kernel.text, count=1), kernel.lds_bytes)
    assert patched.text != kernel.text
    arrays = np.zeros(1024, np.int32), np.zeros(1024, np.int32)
    launch(kernel, (1,), [*arrays, 1024, 1024])
    with pytest.raises(AmdgcnError, match=f"_{word}.*in no buffer"):
        launch(patched, (1,), [*arrays, 1024, 1024])


DESCRIPTOR = """s_and_b32 s5, s3, 0xffff
s_mov_b32 s4, s2
s_mov_b32 s6, 0x40
s_mov_b32 s7, 0x27000
v_lshlrev_b32_e32 v2, 2, v0
"""


def test_buffer_bounds_are_architected():
    """Past num_records a load gives 0 and a store is dropped: here after 16 of 64 lanes."""
    loaded = run_lines(NINE, DESCRIPTOR + "buffer_load_dword v1, v2, s[4:7], 0 offen\nv_add_u32_e32 v1, 7, v1")
    assert (loaded == 7).all()
    store = hand_written(
        NINE,
        "s_load_dwordx2 s[2:3], s[0:1], 0x0\n" + DESCRIPTOR + "buffer_store_dword v0, v2, s[4:7], 0 offen\ns_endpgm",
    )
    out = np.full(64, 99, np.uint32)
    launch(store, (1,), [out])
    assert (out == np.where(np.arange(64) < 16, np.arange(64), 99)).all()


def test_buffer_without_a_vector_offset():
    """All lanes read one dword: the scalar offset and the fixed one, 4 + 8, in a buffer of numbers."""
    lines = DESCRIPTOR + "buffer_store_dword v0, v2, s[4:7], 0 offen\ns_movk_i32 s8, 0x4\n"
    assert (run_lines(NINE, lines + "buffer_load_dword v1, off, s[4:7], s8 offset:8") == 3).all()
    assert (run_lines(NINE, lines + "buffer_load_dword v1, off, s[4:7], s8 offset:60") == 0).all()


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("s_mov_b32 s6, 0x42\nbuffer_load_dword v1, v2, s[4:7], 0 offen", "across the end"),
        ("s_or_b32 s5, s5, 0x100000\nbuffer_load_dword v1, v2, s[4:7], 0 offen", "stride"),
        ("s_load_dword s4, s[0:1], 0x8", "in no buffer"),
        ("s_load_dword s4, s[0:1], 0x2", "unaligned"),
        ("v_mov_b32_e32 v2, 0xfd\nds_read_b32 v1, v2", "LDS access"),
        ("v_mov_b32_e32 v2, 0xff\nds_write_b16 v2, v0", "LDS access"),
        ("v_mov_b32_e32 v2, -4\nds_write_b32 v2, v0", "LDS access"),
        ("s_mov_b64 exec, 1\nv_permlane32_swap_b32_e32 v1, v2", "inactive lanes"),
        ("s_mov_b64 exec, 1\nv_mov_b32_e32 v2, 0\nds_read_b64_tr_b8 v[4:5], v2", "inactive lanes"),
        ("v_mov_b32_e32 v2, 2.0\nv_cvt_scalef32_pk_fp8_f32 v1, v2, v2, v2", "scale"),
    ],
)
def test_run_time_refusals(line, why):
    with pytest.raises(AmdgcnError, match=why):
        run_lines(NINE, DESCRIPTOR + line)


def test_arguments_are_read_only_and_checked():
    store = "v_mov_b32_e32 v1, 0\nglobal_store_dword v1, v1, s[0:1]"
    with pytest.raises(AmdgcnError, match="read-only"):
        run_lines(NINE, store)
    kernel = copy(NINE)
    array = np.zeros(1024, np.int32)
    for arguments, why in (
        ([array, array, 1024], "missing"),
        ([array, 5, 1024, 1024], "argument 1"),
        ([array, array, array, 1024], "argument 2"),
        ([array, np.zeros(2048, np.int32)[::2], 1024, 1024], "contiguous"),
        ([array] * 9, "takes"),
    ):
        with pytest.raises(AmdgcnError, match=why):
            launch(kernel, (1,), arguments)


# ---- state


@pytest.mark.parametrize("field", ["private_segment_fixed_size", "sgpr_spill_count", "vgpr_spill_count"])
def test_scratch_and_spills_raise(field):
    text = re.sub(rf"\.{field}:(\s+)0", rf".{field}:\g<1>16", copy(NINE).text)
    with pytest.raises(AmdgcnError, match="scratch"):
        launch(Kernel(text), (1,), [np.zeros(1024, np.int32), np.zeros(1024, np.int32), 1024, 1024])
    assert facts(Kernel(text)).scratch_bytes + facts(Kernel(text)).spills == 16


@pytest.mark.parametrize("field", ["float_denorm_mode_32", "float_round_mode_32"])
def test_other_float_modes_raise(field):
    text = re.sub(rf"(\.amdhsa_{field}) \d", r"\1 1", copy(NINE).text)
    with pytest.raises(AmdgcnError, match=field):
        launch(Kernel(text), (1,), [np.zeros(1024, np.int32), np.zeros(1024, np.int32), 1024, 1024])


@pytest.mark.parametrize("source", ["v_mov_b32_e32 v1, v9", "v_mov_b32_e32 v1, s40", "v_accvgpr_read_b32 v1, a3"])
def test_unwritten_registers_change_the_result(source):
    first, second = (run_lines(NINE, source, poison=poison) for poison in (0x7FA5A5A5, 0x12345678))
    assert (first == 0x7FA5A5A5).all()
    assert (second == 0x12345678).all()


def test_unwritten_lds_is_poison():
    assert (run_lines(NINE, "v_mov_b32_e32 v2, 0\nds_read_b32 v1, v2") == 0xA5A5A5A5).all()


# ---- static facts


def test_facts_of_a_kernel():
    kernel = copy(NINE)
    found = facts(kernel)
    assert (found.arch, found.spills, found.scratch_bytes, found.lds_bytes) == (NINE, 0, 0, 0)
    assert found.loads == found.stores == {16: 4}  # 1024 elements of 4 bytes, 64 lanes
    assert found.valu_per_element(1024) == found.valu_instructions * 64 / 1024
    assert found.fp8_instructions == 0


@pytest.mark.parametrize("arch", ARCHS)
def test_occupancy_is_what_the_compiler_says(arch):
    for op in ("add", "div"):
        types = dict.fromkeys(("x_ptr", "y_ptr", "z_ptr", "o_ptr"), "*fp32") | {"n": "i32"}
        for block in (2048, 8192):
            kernel = compile_sample(float_kernel, arch, types, {"OP": op, "BLOCK": block})
            stated = re.search(r"; Occupancy: (\d+)", kernel.text)
            assert facts(kernel).waves_per_simd == int(stated[1])


@pytest.mark.parametrize(("arch", "hardware"), [("gfx942", False), ("gfx950", True), ("gfx1100", False)])
def test_hardware_fp8_is_seen(arch, hardware):
    signature = {"x_ptr": "*fp32", "o_ptr": "*fp8e4nv", "n": "i32"}
    kernel = compile_sample(convert_kernel, arch, signature, {"BITCAST": False, "BLOCK": 2048})
    assert (facts(kernel).fp8_instructions > 0) == hardware
