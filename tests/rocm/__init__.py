"""Both front ends on AMD GPUs that are not there: their real launches, with the machine code run by tests/amdgcn.

``torch_device.py`` stands in for Triton's HIP driver under ``m3ops_torch``; ``jax_device.py`` runs the programs that
JAX lowers for ``rocm``. Validation, allocation, plan, specialization, compilation, grid and arguments are the front
ends' own; only the silicon is replaced.
"""
