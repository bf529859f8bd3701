"""Runs the AMD GPU assembly that Triton emits, on NumPy arrays: `launch(Kernel(text), grid, args)`.

Where an instruction lives: scalar.py, vector_int.py, vector_float.py, vector_convert.py, vector_compare.py, packed.py,
crosslane.py, memory.py, lds.py, matrix.py, control.py. Everything that is not modelled raises AmdgcnError.
"""

from .errors import AmdgcnError
from .machine import launch
from .parser import Kernel
from .report import KernelFacts, facts

__all__ = ["AmdgcnError", "Kernel", "KernelFacts", "facts", "launch"]
