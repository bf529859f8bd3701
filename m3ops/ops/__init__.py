"""The ops, a folder for each family: ``spec.py`` (truth), ``kernel.py`` (Triton), ``plan.py`` (launches)."""

from m3ops.op import Op
from m3ops.ops import gemma_rmsnorm, gemma_rmsnorm_heads, mxfp8, swiglu_oai

EVERY_OP: dict[str, type[Op]] = {
    op.name: op
    for family in (swiglu_oai, mxfp8, gemma_rmsnorm, gemma_rmsnorm_heads)
    for op in (getattr(family, name) for name in family.__all__)
}
"""All ops by name."""

OPS: dict[str, type[Op]] = {name: op for name, op in EVERY_OP.items() if not name.endswith("_backward")}
"""The public ones; the others compute derivatives."""
