"""What a layout of scales asks of an op's operands, along which axes they may be divided, and how scales are stored."""

from __future__ import annotations

from m3ops import row_count, validate
from m3ops.array import ArraySpec
from m3ops.numerics.exact import scale_groups
from m3ops.numerics.formats import BLOCK, FP8_FORMATS
from m3ops.numerics.scale_layouts import OF_GROUPS, ROW_MAJOR, restore, stored_shape, stored_shape_of_groups
from m3ops.op import Array, Specs


def matrix_axes(scale_layout: str) -> str:
    """The trailing axes of values in :mod:`m3ops.axes`: in a tiled layout the rows of a matrix belong together."""
    return "N!" if scale_layout == ROW_MAJOR else "M! N!"


def rows_axes(scale_layout: str) -> str:
    """All axes of values that may be in groups, which have to be whole."""
    return "R! N!" if scale_layout in OF_GROUPS else f"*r {matrix_axes(scale_layout)}"


def check_matrix(scale_layout: str, name: str, spec: ArraySpec) -> None:
    """Raises unless this has rows of whole blocks, and for a tiled layout a matrix of them."""
    validate.blocks(f"the last axis of {name}", spec.shape[-1])
    check_layout(scale_layout, name, spec)


def check_layout(scale_layout: str, name: str, spec: ArraySpec) -> None:
    """Raises unless this has a matrix of rows, if the layout is a tiled one."""
    if scale_layout != ROW_MAJOR and len(spec.shape) < 2:
        raise ValueError(
            f"{name} must have at least two axes for scale_layout={scale_layout!r}, got shape {spec.shape}"
        )


def check_groups(scale_layout: str, name: str, spec: ArraySpec, group_sizes: ArraySpec | None) -> None:
    """Raises unless there are groups of rows where the layout is one of groups, and none elsewhere."""
    if scale_layout not in OF_GROUPS:
        if group_sizes is not None:
            raise ValueError(f"group_sizes must be None for scale_layout={scale_layout!r}, which has no groups")
        return
    if group_sizes is None:
        raise ValueError(f"group_sizes must be given for scale_layout={scale_layout!r}, got None")
    validate.indices("group_sizes", group_sizes, "G")
    if len(spec.shape) != 2:
        raise ValueError(f"{name} must have two axes for scale_layout={scale_layout!r}, got shape {spec.shape}")


def check_no_count(scale_layout: str, operands: Specs) -> None:
    """Raises if rows are counted where the sizes of groups say which rows there are."""
    if scale_layout in OF_GROUPS and row_count.NAME in operands:
        raise ValueError(f"num_rows must be None for scale_layout={scale_layout!r}: group_sizes has the number of rows")


def check_quantized(
    prefix: str, values: ArraySpec, scales: ArraySpec, scale_layout: str, group_sizes: ArraySpec | None = None
) -> None:
    """Raises unless these are values and scales of each other, under such names."""
    validate.array(f"{prefix}values", values, [fmt.name for fmt in FP8_FORMATS.values()])
    validate.array(f"{prefix}scales", scales, ["uint8"])
    check_matrix(scale_layout, f"{prefix}values", values)
    check_groups(scale_layout, f"{prefix}values", values, group_sizes)
    wanted = stored_scales(values, scale_layout, group_sizes).shape
    if scales.shape != wanted:
        raise ValueError(
            f"{prefix}scales must have shape {wanted} for {prefix}values of shape {values.shape}, got {scales.shape}"
        )
    if scale_layout != ROW_MAJOR:
        validate.contiguous(f"{prefix}scales", scales)


def stored_scales(values: ArraySpec, scale_layout: str, group_sizes: ArraySpec | None = None) -> ArraySpec:
    """The scales of these values."""
    shape = (*values.shape[:-1], values.shape[-1] // BLOCK)
    if group_sizes is None:
        return ArraySpec(stored_shape(shape, scale_layout), "uint8")
    return ArraySpec(stored_shape_of_groups(shape, group_sizes.shape[0]), "uint8")


def restored(values: Array, scales: Array, scale_layout: str, group_sizes: Array | None = None) -> Array:
    """The scales of these values, row by row."""
    shape = (*values.shape[:-1], values.shape[-1] // BLOCK)
    if scale_layout in OF_GROUPS:
        return scale_groups.restore_groups(scales, shape, scale_layout, group_sizes)
    return restore(scales, shape, scale_layout)
