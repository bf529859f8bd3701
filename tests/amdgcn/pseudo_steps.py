"""What the pieces of AMD's pseudocode do: `pseudocode.py` reads the text and puts these together."""

from __future__ import annotations

import re
from collections.abc import Callable

from .pseudo_functions import FUNCTIONS
from .pseudo_values import Value, arithmetic, compare, integer, truth


class Environment(dict):
    """Variables by name, arrays as dictionaries, and `instruction`: how another one is found by its name."""


class Returned(Exception):
    """A function of the pseudocode has its value."""


Expression = Callable[[Environment], Value]
Statement = Callable[[Environment], None]


def zeros(width: int, count: int) -> Value | dict[int, Value]:
    zero = Value("b", width, 0)
    return dict.fromkeys(range(count), zero) if count else zero


def return_value(value: Value) -> None:
    raise Returned(value)


def operation(operator: str, left: Expression, right: Expression) -> Expression:
    if operator == "&&":
        return lambda env: truth(left(env).bits and right(env).bits)
    if operator == "||":
        return lambda env: truth(left(env).bits or right(env).bits)
    if operator in ("==", "!=", "<>", "<", "<=", ">", ">="):
        return lambda env: compare(operator, left(env), right(env))
    return lambda env: arithmetic(operator, left(env), right(env))


def negated(value: Value) -> Value:
    if value.is_float:
        return value._replace(bits=value.bits ^ 1 << (value.width - 1))
    return integer(value.kind, value.width, -value.number)


def read_as(value: Expression, kind: str, width: int) -> Expression:
    return lambda env: value(env).as_type(kind, width)


def read_span(value: Expression, span: Callable[[Environment], tuple[int, int]]) -> Expression:
    def read(env: Environment) -> Value:
        whole, (high, low) = value(env), span(env)
        return whole[high] if isinstance(whole, dict) else whole.slice(high, low)

    return read


def converted(value: Value, kind: re.Match[str] | None) -> Value:
    """What is stored: integers are cut or extended, floats keep their bits."""
    if kind is None or value.is_float:
        return value
    return integer(kind[1], int(kind[2]), value.number)


def cast(value: Value, kind: str, width: int) -> Value:
    """32'I(x). To a float it converts floats, and takes the bits of an integer as they are."""
    if kind == "f":
        return _float_cast(value, width)
    return integer(kind, width, value.number if not value.is_float else value.bits)


def _float_cast(value: Value, width: int) -> Value:
    return FUNCTIONS["to_float"](value, width) if value.is_float else Value("f", width, value.bits)


def call(env: Environment, name: str, arguments: list[Value]) -> Value:
    """A function of this text or of the manual, or another instruction by its name."""
    if name in env:
        return env[name](env, arguments)
    if name in FUNCTIONS:
        return FUNCTIONS[name](*arguments)
    inner = Environment(env, D0=Value("b", 64, 0), **{f"S{i}": value for i, value in enumerate(arguments)})
    env["instruction"](name)(inner)
    return inner["D0"]
