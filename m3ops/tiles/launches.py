"""How the kernels of a stream follow each other."""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def begin(OVERLAPS: tl.constexpr):
    """Comes first in every kernel, before it touches memory.

    Where launches overlap, it lets the next kernel of the stream begin and waits until the one before has ended and
    its results are there. That one has waited likewise, or begun later, so whatever came earlier has ended too: a
    kernel may write where any of these has read. Another library's kernel in between has to wait as well, if it is
    launched so. What overlaps is the launch itself.
    """
    if OVERLAPS:
        tl.extra.cuda.gdc_launch_dependents()
        tl.extra.cuda.gdc_wait()
