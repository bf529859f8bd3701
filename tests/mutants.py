"""Small wrong changes of a source file: one operator, one constant or one condition at a time."""

from __future__ import annotations

import ast
import copy
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

PLANS = ("planning/*.py", "ops/*/*plan.py")
KERNELS = ("numerics/**/*.py", "row_count.py", "tiles/*.py", "ops/*/*kernel.py")
"""What is changed, within m3ops/: plans, and numerics and kernels."""

SPEED_ONLY = {"flops", "bytes_moved", "FLOPS_PER_ELEMENT", "NORM_FLOPS", "QUANTIZE_FLOPS", "ACTIVATION_FLOPS"} | {
    *("num_warps", "FULL", "SMALL", "ROW_TILE", "WIDEST_TILE", "WIDEST_KEPT", "PROGRAMS", "tile", "threads"),
    *("rows", "cols", "programs", "elements", "many", "reload", "warps", "moved", "_columns", "_rows", "_threads"),
    *("_ahead", "ROWS_AHEAD_BYTES", "MORE_ROWS_AHEAD_BYTES"),
}
"""Names in plans whose values decide speed and never bytes: tile shapes, warps, what profilers are told.

That bytes do not depend on them is shown by forcing odd ones, not by mutation, which could only call them survivors.
"""

_OPERATORS: dict[type[ast.AST], type[ast.AST]] = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.Add,
    ast.Div: ast.Mult,
    ast.FloorDiv: ast.Mult,
    ast.Mod: ast.FloorDiv,
    ast.Pow: ast.Mult,
    ast.LShift: ast.RShift,
    ast.RShift: ast.LShift,
    ast.BitAnd: ast.BitOr,
    ast.BitOr: ast.BitAnd,
    ast.Lt: ast.LtE,
    ast.LtE: ast.Lt,
    ast.Gt: ast.GtE,
    ast.GtE: ast.Gt,
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.Is: ast.IsNot,
    ast.IsNot: ast.Is,
    ast.In: ast.NotIn,
    ast.NotIn: ast.In,
    ast.And: ast.Or,
    ast.Or: ast.And,
}
_FUNCTIONS = {"minimum": "maximum", "min": "max", "at_most": "at_least", "and": "or"}
_FUNCTIONS |= {new: old for old, new in _FUNCTIONS.items()}


@dataclass(frozen=True)
class Mutant:
    """One change: the bytes ``start .. end`` of a file replaced."""

    path: str
    line: int
    start: int
    end: int
    before: str
    after: str

    @property
    def name(self) -> str:
        return f"{self.path}:{self.line}: {self.before} -> {self.after}"

    def apply(self, source: bytes) -> bytes:
        return source[: self.start] + self.after.encode() + source[self.end :]


def mutants_of(root: Path) -> list[Mutant]:
    """All mutants of the sources under ``root``, the directory that holds m3ops/."""
    paths = sorted({path for pattern in (*PLANS, *KERNELS) for path in (root / "m3ops").glob(pattern)})
    return [mutant for path in paths for mutant in _of_file(path.relative_to(root).as_posix(), path.read_bytes())]


def _of_file(path: str, source: bytes) -> Iterator[Mutant]:
    lines = [0]
    for line in source.splitlines(keepends=True):
        lines.append(lines[-1] + len(line))
    plans = path.endswith(tuple(name.removeprefix("ops/*") for name in PLANS))
    for node in _expressions(ast.parse(source), plans):
        start, end = (
            lines[row - 1] + column
            for row, column in ((node.lineno, node.col_offset), (node.end_lineno or 0, node.end_col_offset or 0))
        )
        before = ast.unparse(node)
        for changed in _changed(node):
            after = ast.unparse(changed)
            yield Mutant(path, node.lineno, start, end, before, f"({after})")


def _expressions(node: ast.AST, plans: bool) -> Iterator[ast.expr]:
    """Expressions that are evaluated, not annotations and decorators; in plans, none that only decide speed."""
    if isinstance(node, ast.expr):
        yield node
    for field, value in ast.iter_fields(node):
        if field in ("annotation", "returns", "decorator_list"):
            continue
        children = value if isinstance(value, list) else [value]
        if plans and field == "args" and _called(node) == "tiling":
            children = children[:4]  # the fifth are the warps
        if plans and isinstance(node, ast.Dict) and field == "values":
            children = [value for key, value in zip(node.keys, children, strict=True) if not _is_speed(key)]
        for child in children:
            if isinstance(child, ast.AST) and not (plans and _decides_speed(child)) and not _is_docstring(child):
                yield from _expressions(child, plans)


def _decides_speed(node: ast.AST) -> bool:
    match node:
        case ast.keyword(arg=name) | ast.FunctionDef(name=name):
            return name in SPEED_ONLY
        case ast.arguments():
            return {arg.arg for arg in node.args[-len(node.defaults) :]} <= SPEED_ONLY
        case ast.While() | ast.If():  # a choice of speed if all it does is
            return all(map(_decides_speed, [*node.body, *node.orelse]))
        case ast.Return(value=value):  # from one of the branches that differ in warps and in what is kept
            return _called(value) == "_whole_rows"
        case ast.Assign():
            names = {name.id for target in node.targets for name in ast.walk(target) if isinstance(name, ast.Name)}
            return names <= SPEED_ONLY
    return False


def _is_speed(key: ast.expr | None) -> bool:
    return isinstance(key, ast.Constant) and key.value in SPEED_ONLY


def _called(node: ast.AST | None) -> str:
    return node.func.id if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) else ""


def _is_docstring(node: ast.AST) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)


def _changed(node: ast.expr) -> Iterator[ast.expr]:
    match node:
        case ast.BinOp(op=operator) | ast.BoolOp(op=operator) if type(operator) in _OPERATORS:
            yield _with(node, op=_OPERATORS[type(operator)]())
        case ast.Compare(ops=[operator, *rest]):
            yield _with(node, ops=[_OPERATORS[type(operator)](), *rest])
        case ast.UnaryOp(op=ast.USub() | ast.Invert() | ast.Not()):
            yield node.operand
        case ast.Constant(value=bool(value)):
            yield ast.Constant(not value)
        case ast.Constant(value=int(value)):
            yield ast.Constant(value + 1)
            yield ast.Constant(value - 1)
        case ast.Constant(value=float(value)) if abs(value) < np.finfo(np.float32).max:  # one ulp of fp32
            yield ast.Constant(float(np.nextafter(np.float32(value), np.float32(np.inf))))
        case ast.IfExp(test=test):
            yield _with(node, test=ast.UnaryOp(ast.Not(), test))
        case ast.Attribute(attr=name) if name in _FUNCTIONS:
            yield _with(node, attr=_FUNCTIONS[name])
        case ast.Name(id=name) if name in _FUNCTIONS and isinstance(node.ctx, ast.Load):
            yield ast.Name(_FUNCTIONS[name], ast.Load())


def _with(node: ast.expr, **fields: object) -> ast.expr:
    changed = copy.deepcopy(node)
    for name, value in fields.items():
        setattr(changed, name, value)
    return changed
