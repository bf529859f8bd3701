"""Kernels of one work-group written by hand, for what no sample kernel reaches."""

from typing import Any

import numpy as np

from .compiling import WAVE_SIZE
from .machine import launch
from .parser import Kernel

_HAND_WRITTEN = """	.amdgcn_target "amdgcn-amd-amdhsa--{arch}"
hand_written:
{body}
.Lfunc_end0:
	.amdhsa_kernel hand_written
		.amdhsa_kernarg_size 8
		.amdhsa_user_sgpr_count 2
		.amdhsa_user_sgpr_kernarg_segment_ptr 1
		.amdhsa_system_sgpr_workgroup_id_x 1
		.amdhsa_system_sgpr_workgroup_id_y 0
		.amdhsa_system_sgpr_workgroup_id_z 0
		.amdhsa_next_free_vgpr {vgprs}
		.amdhsa_accum_offset {vgprs_half}
		.amdhsa_float_round_mode_32 0
		.amdhsa_float_round_mode_16_64 0
		.amdhsa_float_denorm_mode_32 3
		.amdhsa_float_denorm_mode_16_64 3
	.end_amdhsa_kernel
	.amdgpu_metadata
amdhsa.kernels:
  - .args:
      - .address_space:  global
        .offset:         0
        .size:           8
        .value_kind:     global_buffer
    .group_segment_fixed_size: 256
    .max_flat_workgroup_size: {threads}
    .private_segment_fixed_size: 0
    .sgpr_spill_count: 0
    .vgpr_spill_count: 0
    .wavefront_size: {wave}
"""


def hand_written(arch: str, body: str, waves: int = 1, vgprs: int = 32) -> Kernel:
    """A kernel from assembly lines. s[0:1] points at the address of its one array, v0 is the thread."""
    indented = "".join(f"\t{line.strip()}\n" for line in body.strip().split("\n"))
    wave = WAVE_SIZE[arch]
    text = _HAND_WRITTEN.format(
        arch=arch, body=indented, wave=wave, threads=waves * wave, vgprs=vgprs, vgprs_half=vgprs // 2
    )
    return Kernel(text)


def run_lines(arch: str, lines: str, **options: Any) -> np.ndarray:
    """What v1 holds in every lane after `lines`."""
    dword = "dword" if arch.startswith("gfx9") else "b32"
    kernel = hand_written(
        arch,
        f"""s_load_{dword}x2 s[2:3], s[0:1], 0x0
        {lines}
        v_lshlrev_b32_e32 v31, 2, v0
        global_store_{dword} v31, v1, s[2:3]
        s_endpgm""".replace("b32x2", "b64"),
    )
    out = np.zeros(WAVE_SIZE[arch], np.uint32)
    launch(kernel, (1,), [out], **options)
    return out
