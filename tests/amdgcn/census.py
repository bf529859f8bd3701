"""Which instructions the kernels consist of on gfx942 and gfx950, so that a new one is seen on the day it appears.

Counted over all named cases and the sizes of MiniMax-M3. test_amdgcn_manual.py says of each how it is checked.
"""

from .parser import Kernel

ARCHS = ("gfx942", "gfx950")
_NAMES = """
buffer_load_dword buffer_load_dwordx2 buffer_load_dwordx3 buffer_load_dwordx4 buffer_load_sbyte buffer_load_sshort
buffer_load_ubyte buffer_load_ushort buffer_store_byte buffer_store_dword buffer_store_dwordx2 buffer_store_dwordx4
buffer_store_short ds_bpermute_b32 ds_read2_b32 ds_read2_b64 ds_read2st64_b32 ds_read2st64_b64 ds_read_b128 ds_read_b32
ds_read_b64 ds_read_b96 ds_read_u16 ds_read_u8 ds_write2_b32 ds_write2_b64 ds_write2st64_b32 ds_write2st64_b64
ds_write_b128 ds_write_b16 ds_write_b16_d16_hi ds_write_b32 ds_write_b64 ds_write_b8 ds_write_b8_d16_hi
global_load_dword global_load_dwordx2 global_load_dwordx3 global_load_dwordx4 global_load_lds_dword
global_load_lds_dwordx4 global_load_sbyte global_load_sshort global_load_ubyte global_load_ushort global_store_byte
global_store_byte_d16_hi global_store_dword global_store_dwordx2 global_store_dwordx3 global_store_dwordx4
global_store_short global_store_short_d16_hi s_abs_i32 s_add_i32 s_add_u32 s_addc_u32 s_addk_i32 s_and_b32 s_and_b64
s_and_saveexec_b64 s_andn2_b32 s_andn2_b64 s_andn2_saveexec_b64 s_ashr_i32 s_ashr_i64 s_barrier s_bfe_i32 s_bfe_i64
s_bfe_u32 s_bitcmp0_b32 s_bitcmp1_b32 s_bitset1_b32 s_branch s_brev_b32 s_cbranch_execnz s_cbranch_execz s_cbranch_scc0
s_cbranch_scc1 s_cbranch_vccnz s_cbranch_vccz s_cmp_eq_u32 s_cmp_eq_u64 s_cmp_ge_i32 s_cmp_ge_u32 s_cmp_gt_i32
s_cmp_gt_u32 s_cmp_le_i32 s_cmp_le_u32 s_cmp_lg_u32 s_cmp_lg_u64 s_cmp_lt_i32 s_cmp_lt_u32 s_cmpk_eq_i32 s_cmpk_eq_u32
s_cmpk_ge_i32 s_cmpk_ge_u32 s_cmpk_gt_i32 s_cmpk_gt_u32 s_cmpk_le_i32 s_cmpk_le_u32 s_cmpk_lg_i32 s_cmpk_lg_u32
s_cmpk_lt_i32 s_cmpk_lt_u32 s_cselect_b32 s_cselect_b64 s_endpgm s_load_dword s_load_dwordx2 s_load_dwordx4
s_load_dwordx8 s_lshl1_add_u32 s_lshl2_add_u32 s_lshl3_add_u32 s_lshl4_add_u32 s_lshl_b32 s_lshl_b64 s_lshr_b32
s_lshr_b64 s_max_i32 s_min_i32 s_min_u32 s_mov_b32 s_mov_b64 s_movk_i32 s_mul_hi_i32 s_mul_hi_u32 s_mul_i32 s_mulk_i32
s_nop s_nor_b64 s_or_b32 s_or_b64 s_or_saveexec_b64 s_pack_lh_b32_b16 s_pack_ll_b32_b16 s_setreg_imm32_b32
s_sext_i32_i16 s_sext_i32_i8 s_sub_i32 s_sub_u32 s_subb_u32 s_waitcnt s_xor_b32 s_xor_b64 v_accvgpr_mov_b32
v_accvgpr_read_b32 v_accvgpr_write_b32 v_add3_u32 v_add_co_u32 v_add_f16 v_add_f32 v_add_lshl_u32 v_add_u16 v_add_u32
v_addc_co_u32 v_alignbit_b32 v_and_b32 v_and_or_b32 v_ashrrev_i16 v_ashrrev_i32 v_ashrrev_i64 v_bfe_i32 v_bfe_u32
v_bfi_b32 v_bfrev_b32 v_bitop3_b16 v_bitop3_b32 v_cmp_class_f32 v_cmp_eq_u32 v_cmp_eq_u64 v_cmp_ge_f32 v_cmp_ge_i32
v_cmp_ge_i64 v_cmp_ge_u32 v_cmp_ge_u64 v_cmp_gt_f32 v_cmp_gt_i16 v_cmp_gt_i32 v_cmp_gt_i64 v_cmp_gt_u32 v_cmp_gt_u64
v_cmp_le_i32 v_cmp_le_i64 v_cmp_le_u32 v_cmp_le_u64 v_cmp_lg_f32 v_cmp_lt_f32 v_cmp_lt_i32 v_cmp_lt_i64 v_cmp_lt_u32
v_cmp_lt_u64 v_cmp_ne_u16 v_cmp_ne_u32 v_cmp_ne_u64 v_cmp_ngt_f16 v_cmp_ngt_f32 v_cmp_nlt_f16 v_cmp_nlt_f32 v_cmp_o_f16
v_cmp_o_f32 v_cmp_u_f16 v_cmp_u_f32 v_cndmask_b32 v_cvt_f16_f32 v_cvt_f32_f16 v_cvt_f32_i32 v_cvt_pk_bf16_f32
v_cvt_pk_f16_f32 v_cvt_pk_f32_fp8 v_cvt_pk_fp8_f32 v_cvt_scalef32_pk_f32_fp8 v_cvt_scalef32_pk_fp8_f32 v_div_fixup_f32
v_div_fmas_f32 v_div_scale_f32 v_fma_f32 v_fma_mix_f32 v_fmaak_f32 v_fmac_f32 v_fmamk_f32 v_lshl_add_u32 v_lshl_add_u64
v_lshl_or_b32 v_lshlrev_b16 v_lshlrev_b32 v_lshlrev_b64 v_lshrrev_b16 v_lshrrev_b32 v_lshrrev_b64 v_mad_i32_i24
v_mad_i64_i32 v_mad_u32_u24 v_mad_u64_u32 v_max3_i32 v_max3_u32 v_max_f16 v_max_f32 v_max_i32 v_max_u32 v_maximum3_f32
v_med3_f16 v_med3_f32 v_mfma_f32_16x16x16_bf16 v_mfma_f32_16x16x16_f16 v_mfma_f32_16x16x32_bf16 v_mfma_f32_16x16x32_f16
v_mfma_f32_32x32x16_f16 v_mfma_f32_32x32x8_f16 v_min3_i32 v_min3_u32 v_min_f16 v_min_f32 v_min_i32 v_min_u32
v_minimum3_f32 v_mov_b32 v_mov_b64 v_mul_f16 v_mul_f32 v_mul_hi_i32 v_mul_hi_u32 v_mul_hi_u32_u24 v_mul_i32_i24
v_mul_lo_u32 v_mul_u32_u24 v_not_b32 v_or3_b32 v_or_b32 v_pack_b32_f16 v_perm_b32 v_permlane16_swap_b32
v_permlane32_swap_b32 v_pk_add_f16 v_pk_add_f32 v_pk_fma_f32 v_pk_lshlrev_b16 v_pk_max_f16 v_pk_maximum3_f16
v_pk_min_f16 v_pk_minimum3_f16 v_pk_mov_b32 v_pk_mul_f16 v_pk_mul_f32 v_rcp_f32 v_readfirstlane_b32 v_readlane_b32
v_sqrt_f32 v_sub_co_u32 v_sub_f16 v_sub_f32 v_sub_u16 v_sub_u32 v_subb_co_u32 v_subbrev_co_u32 v_subrev_co_u32
v_subrev_u32 v_xad_u32 v_xor_b32
"""
MNEMONICS = frozenset(_NAMES.split())


def check_listed(kernel: Kernel) -> None:
    """Raises for an instruction that no oracle has been asked about."""
    new = {instruction.name for instruction in kernel.instructions} - MNEMONICS
    if kernel.arch in ARCHS and new:
        raise ValueError(f"{kernel.name}: {', '.join(sorted(new))}: to be added to amdgcn/census.py, and so checked")
