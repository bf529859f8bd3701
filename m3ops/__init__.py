"""The core of m3ops: specifications, Triton kernels and launch plans. It imports neither jax nor torch."""

from m3ops.mxfp8 import MXFP8

__all__ = ["MXFP8", "__version__"]

__version__ = "0.1.0"
