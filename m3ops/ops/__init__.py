"""The ops, a folder for each family: ``spec.py`` (truth), ``kernel.py`` (Triton), ``plan.py`` (launches)."""

from importlib import import_module
from pkgutil import iter_modules

from m3ops.op import Op

FAMILIES = {name: import_module(f"{__name__}.{name}") for _, name, _ in iter_modules(__path__)}
"""The folders by name."""

EVERY_OP: dict[str, type[Op]] = {
    op.name: op for family in FAMILIES.values() for op in (getattr(family, name) for name in family.__all__)
}
"""All ops by name."""

OPS: dict[str, type[Op]] = {name: op for name, op in EVERY_OP.items() if not name.endswith("_backward")}
"""The public ones; the others compute derivatives."""
