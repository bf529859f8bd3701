"""Naming the GPU architectures to compile for where there is no such device."""

from __future__ import annotations

from contextlib import AbstractContextManager

import jax

from m3ops.target import Target

_targets = jax.make_user_context(default_value=())


def compile_for(*archs: str) -> AbstractContextManager[None]:
    """Makes lowering target these architectures instead of the devices present.

    For ahead-of-time lowering and export: ``with compile_for("gfx950"): jax.jit(f).trace(x).lower(
    lowering_platforms=("rocm",))``. The names are part of jit's cache key.

    Args:
        *archs: ``"gfx942"``, ``"gfx950"``, ``"sm_90"`` and so on, at most one of each vendor.

    Returns:
        A context manager.

    Raises:
        ValueError: A name is not of this form, or two are of one vendor.
    """
    vendors = [Target.named(arch).vendor for arch in archs]
    if len(set(vendors)) < len(vendors):
        raise ValueError(f"archs must name at most one GPU of each vendor, got {', '.join(archs)}")
    context: AbstractContextManager[None] = _targets(archs)
    return context


def current_targets() -> tuple[str, ...]:
    """The names given to the innermost :func:`compile_for`."""
    targets: tuple[str, ...] = _targets.value
    return targets
