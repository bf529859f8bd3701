"""One instruction at a time on registers that the caller has filled: how instructions meet their oracles."""

import functools

import numpy as np

from .compiling import WAVE_SIZE
from .handwritten import hand_written
from .lds import Lds
from .machine import Batch
from .memory import Memory
from .parser import Kernel, parse_instruction
from .state import EXEC, NUM_SREGS, Waves
from .table import decode


@functools.cache
def _kernel(arch: str) -> Kernel:
    """What instructions are decoded for: the target and room for all registers."""
    return hand_written(arch, "s_endpgm", vgprs=512)


def registers(arch: str, waves: int = 1, bf16_saturates: bool = False) -> Waves:
    """Registers of zeros, all lanes active, with some LDS and no memory."""
    lanes = WAVE_SIZE[arch]
    batch = Batch(Memory([], set()), Lds(1, 256), None, exact_sums=True, bf16_saturates=bf16_saturates)
    v, s = np.zeros((512, waves, lanes), np.uint32), np.zeros((NUM_SREGS, waves), np.uint32)
    state = Waves(batch, v, s, np.zeros(waves, bool), np.zeros(waves, bool), np.zeros(waves, int), 0)
    state.write_mask(EXEC, np.ones((waves, lanes), bool))
    return state


def execute(arch: str, text: str, state: Waves) -> None:
    """Runs one instruction of assembly text, which must not branch."""
    with np.errstate(all="ignore"):
        outcome = decode(parse_instruction(text), _kernel(arch))(state)
    assert outcome is None, text
