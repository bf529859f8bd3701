"""Writes the public functions of both front ends from the ops: ``python -m m3ops.tools.front_ends [--check]``.

Signature, defaults and docstring of a function come from its op's dataclass, so that each is written once. The result
is ordinary code in the repository, for readers, editors and type checkers.
"""

from __future__ import annotations

import dataclasses
import inspect
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from m3ops.op import Op
from m3ops.ops import OPS

ROOT = Path(__file__).parents[2]
WIDTH = 120

HEADER = '''"""{title} for {framework}.

Generated from m3ops/ops/{family}/spec.py by ``python -m m3ops.tools.front_ends``.
"""

from __future__ import annotations

{imports}
'''


@dataclass(frozen=True)
class FrontEnd:
    """What a front end writes differently.

    Attributes:
        package: Its package.
        framework: Its framework, in prose.
        array: The type of an array.
        word: An array, in prose.
        dtype: The type of a dtype argument.
        dtype_default: A dtype by name, as code.
        num_rows: What the docstrings say of ``num_rows``.
        out: The same of ``out``, None where there is no such argument.
    """

    package: str
    framework: str
    array: str
    word: str
    dtype: str
    dtype_default: str
    num_rows: str
    out: str | None
    imports: str


FRONT_ENDS = (
    FrontEnd(
        package="m3ops_jax",
        framework="JAX",
        array="jax.Array",
        word="array",
        dtype="DTypeLike",
        dtype_default="jnp.{}",
        num_rows="How many rows count, the leading axes flattened: an int32 array of one element, clamped to the rows "
        "that exist. The others are not read; results are zero there.",
        out=None,
        imports="import jax\nimport jax.numpy as jnp\nfrom jax.typing import DTypeLike",
    ),
    FrontEnd(
        package="m3ops_torch",
        framework="PyTorch",
        array="torch.Tensor",
        word="tensor",
        dtype="torch.dtype",
        dtype_default="torch.{}",
        num_rows="How many rows count, the leading axes flattened: an int32 tensor of one element, clamped to the rows "
        "that exist. The others are not read; new results are zero there, those in ``out`` stay as they were.",
        out="Where to write: tensors of the results' shapes, dtypes and device, nested as they are, with contiguous "
        "rows, apart from the inputs and each other.",
        imports="import torch",
    ),
)

IN_PLACE = " One may take the memory of an input of its shape, dtype and axes."
REF = " A ``jax.Ref`` is updated: the {result} is also written there, and under jit its memory is reused."
QUANTIZED = "An ``MXFP8``, as :func:`mxfp8_quantize` returns it: values ``[..., I]`` with I a multiple of 32."
TYPE_ERROR = "A dtype is not one of these, or a parameter has the wrong type."


def module(family: str, front_end: FrontEnd) -> str:
    """The text of a front end's file for one family of ops."""
    package = sys.modules[f"m3ops.ops.{family}"]
    ops = [op for op in OPS.values() if op.__module__.startswith(f"{package.__name__}.")]
    functions = "".join(_function(op, front_end) for op in ops)
    return (
        HEADER.format(
            title=inspect.getdoc(package).rstrip("."),  # type: ignore[union-attr]
            framework=front_end.framework,
            family=family,
            imports="\n".join(_imports(family, ops, front_end, functions)),
        )
        + functions
    )


def _imports(family: str, ops: list[type[Op]], front_end: FrontEnd, functions: str) -> Iterator[str]:
    used = {"jax": "jax.", "jax.numpy as jnp": "jnp.", "DTypeLike": "DTypeLike", "torch": "torch."}
    for line in front_end.imports.split("\n"):
        if used[line.split("import ")[1]] in functions:
            yield line
    yield ""
    yield f"from m3ops.ops.{family} import {', '.join(sorted(op.__name__ for op in ops))}"
    names = ["dtype_name"] * ("dtype_name(" in functions) + ["run"]
    yield f"from {front_end.package}._call import {', '.join(names)}"
    containers = ["MXFP8"] * ("MXFP8" in functions) + ["quantized"] * ("quantized(" in functions)
    if containers:
        yield f"from {front_end.package}._mxfp8 import {', '.join(containers)}"


def _function(op: type[Op], front_end: FrontEnd) -> str:
    arguments, parameters = _arguments(op), _parameters(op)
    result = op.result_type.format(array=front_end.array)
    signature = [f"{name}: {_argument_type(op, name, front_end)}" for name in arguments]
    signature.append("*")
    signature += [_parameter(op, field, front_end) for field in parameters]
    signature.append(f"num_rows: {front_end.array} | None = None")
    if front_end.out:
        signature.append(f"out: {result} | None = None")
    lines = [f"\n\ndef {op.name}(", *(f"    {part}," for part in signature), f") -> {result}:"]
    lines += textwrap.indent(_docstring(op, front_end), "    ").split("\n")
    lines += textwrap.indent("\n".join(_body(op, front_end, result)), "    ").split("\n")
    return "\n".join(lines) + "\n"


def _arguments(op: type[Op]) -> dict[str, str]:
    """The public array arguments, each with its documentation."""
    brought = {name for pair in op.quantized.values() for name in pair}
    return {**dict.fromkeys(op.quantized, QUANTIZED), **{n: d for n, d in op.inputs.items() if n not in brought}}


def _argument_type(op: type[Op], name: str, front_end: FrontEnd) -> str:
    if name in op.quantized:
        return "MXFP8"
    ref = " | jax.Ref" if front_end.out is None and name in op.updates else ""
    return front_end.array + ref


def _parameters(op: type[Op]) -> list[dataclasses.Field[Any]]:
    return [field for field in dataclasses.fields(op) if not field.metadata["carried_by"]]


def _is_dtype(op: type[Op], field: dataclasses.Field[Any]) -> bool:
    return str(field.type).split(" | ")[0] == "DTypeName"


def _parameter(op: type[Op], field: dataclasses.Field[Any], front_end: FrontEnd) -> str:
    if _is_dtype(op, field):
        optional = " | None" if field.default is None else ""
        default = "None" if field.default is None else front_end.dtype_default.format(field.default)
        return f"{field.name}: {front_end.dtype}{optional} = {default}"
    default = f'"{field.default}"' if isinstance(field.default, str) else repr(field.default)
    return f"{field.name}: {field.type} = {default.replace('e-0', 'e-')}"


def _docstring(op: type[Op], front_end: FrontEnd) -> str:
    summary = inspect.cleandoc(op.__doc__ or "")
    documented = {name: doc + _ref(op, name, front_end) for name, doc in _arguments(op).items()}
    documented |= {field.name: field.metadata["doc"] for field in _parameters(op)}
    documented["num_rows"] = front_end.num_rows
    if front_end.out:
        documented["out"] = front_end.out + IN_PLACE * op.in_place
    lines = [f'"""{summary}', "", "Args:"]
    for name, doc in documented.items():
        lines += _wrapped(f"{name}: {doc}", 4)
    lines += ["", "Returns:", *_wrapped(op.returns, 4, hanging=0), "", "Raises:"]
    lines += _wrapped(f"TypeError: {TYPE_ERROR}", 4)
    lines += _wrapped(f"ValueError: {op.value_error}, or a parameter is out of range.", 4)
    return "\n".join([*lines, '"""'])


def _ref(op: type[Op], name: str, front_end: FrontEnd) -> str:
    if front_end.out is not None or name not in op.updates:
        return ""
    return REF.format(result=op.updates[name].replace("_", " "))


def _wrapped(text: str, indent: int, hanging: int = 4) -> list[str]:
    return textwrap.wrap(
        text,
        WIDTH - 4,
        initial_indent=" " * indent,
        subsequent_indent=" " * (indent + hanging),
        break_long_words=False,
        break_on_hyphens=False,
    )


def _body(op: type[Op], front_end: FrontEnd, result: str) -> Iterator[str]:
    for name in op.quantized:
        yield f'{name} = quantized("{name}", {name})'
    given = [f"{field.name}={_value(op, field)}" for field in dataclasses.fields(op)]
    yield f"op = {op.__name__}.of({', '.join(given)})"
    arrays = [_operand(op, name) for name in op.inputs]
    out = ", out=out" if front_end.out else ""
    yield f"result: {result} = run(op, {', '.join(arrays)}, num_rows=num_rows{out})"
    yield "return result"


def _value(op: type[Op], field: dataclasses.Field[Any]) -> str:
    if carrier := field.metadata["carried_by"]:
        return f"{carrier}.{field.name}"
    return f"dtype_name({field.name})" if _is_dtype(op, field) else field.name


def _operand(op: type[Op], name: str) -> str:
    for argument, pair in op.quantized.items():
        if name in pair:
            return f"{argument}.{('values', 'scales')[pair.index(name)]}"
    return name


def _formatted(text: str) -> str:
    command = [sys.executable, "-m", "ruff", "format", "--quiet", f"--config={ROOT / 'pyproject.toml'}", "-"]
    return subprocess.run(command, input=text, capture_output=True, text=True, check=True).stdout


def main(arguments: list[str]) -> int:
    """Writes the files, or with ``--check`` says which are not as they should be, and returns the exit status."""
    families = dict.fromkeys(op.__module__.split(".")[2] for op in OPS.values())
    stale = []
    for front_end in FRONT_ENDS:
        for family in families:
            path, text = ROOT / front_end.package / f"{family}.py", _formatted(module(family, front_end))
            if "--check" not in arguments:
                path.write_text(text)
            elif not path.exists() or path.read_text() != text:
                stale.append(str(path.relative_to(ROOT)))
    if stale:
        print("not as python -m m3ops.tools.front_ends writes them:", *stale)
    return len(stale) > 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
