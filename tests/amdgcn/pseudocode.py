"""An evaluator of the pseudocode in AMD's instruction set manuals, one lane at a time.

`compiled(text)` gives a function of an `Environment`. What it does not know raises SyntaxError or KeyError, so that no
statement is passed over in silence.
"""

from __future__ import annotations

import functools
import math
import re
from collections.abc import Callable

from .pseudo_steps import (
    Environment,
    Expression,
    Returned,
    Statement,
    call,
    cast,
    converted,
    negated,
    operation,
    read_as,
    read_span,
    return_value,
    zeros,
)
from .pseudo_values import Value, floating, integer, truth

_TOKEN = re.compile(
    r"\s*(?:(\d+'(?:0x[0-9a-fA-F]+|\d+\.\d+|\d+)[UIFB]?|\d+'[UIFB]|0x[0-9a-fA-F]+[UL]*|\d+\.\d+F?|\d+[UL]*)"
    r"|([A-Za-z_]\w*)|(<<|>>|&&|\|\||==|!=|<>|<=|>=|[-+*/%&|^~!<>?:;,.(){}\[\]=]))"
)
_PRECEDENCE = [["||"], ["&&"], ["|"], ["^"], ["&"], ["==", "!=", "<>"], ["<", "<=", ">", ">="], ["<<", ">>"],
               ["+", "-"], ["*", "/", "%"]]  # fmt: skip
_TYPE = re.compile(r"(bf|fp|[uifb])(\d+)$")
_SPECIAL_FLOATS = {"INF": math.inf, "NAN": math.nan}
_CASTS = {"U": "u", "I": "i", "F": "f", "B": "b"}


def tokens(text: str) -> list[str]:
    text = re.sub(r"//.*", "", text)
    found, position = [], 0
    while text[position:].strip():
        match = _TOKEN.match(text, position)
        if not match:
            raise SyntaxError(f"cannot read {text[position : position + 30]!r}")
        found.append(match[0].strip())
        position = match.end()
    return found


@functools.cache
def compiled(text: str) -> Statement:
    parser = _Parser(tokens(text))
    statements = parser.block(())
    if parser.rest:
        raise SyntaxError(f"left over: {parser.rest[:5]}")
    return statements


class _Parser:
    def __init__(self, rest: list[str]) -> None:
        self.rest = rest[::-1]

    def peek(self) -> str:
        return self.rest[-1] if self.rest else ""

    def take(self, wanted: str = "") -> str:
        token = self.rest.pop()
        if wanted and token != wanted:
            raise SyntaxError(f"{wanted} wanted, {token} found")
        return token

    def accept(self, token: str) -> bool:
        if self.peek() == token:
            self.rest.pop()
            return True
        return False

    # ---- statements

    def block(self, ends: tuple[str, ...]) -> Statement:
        statements = []
        while self.rest and self.peek() not in ends:
            if not self.accept(";"):
                statements.append(self.statement())

        def run(env: Environment) -> None:
            for statement in statements:
                statement(env)

        return run

    def statement(self) -> Statement:
        if self.accept("if"):
            return self.branches()
        if self.accept("for"):
            return self.loop()
        if self.accept("declare"):
            name = self.take()
            self.take(":")
            width = int(self.take().split("'")[0])
            count = self.number() if self.accept("[") else 0
            # what the caller has given is declared too, and keeps its value
            return lambda env: env.setdefault(name, zeros(width, count))
        if self.accept("return"):
            returned = self.expression()
            return lambda env: return_value(returned(env))
        if self.accept("{"):
            return self.unpacking()
        return self.assignment()

    def number(self) -> int:
        """The length of an array, and the bracket after it."""
        count = int(self.take())
        self.take("]")
        return count

    def branches(self) -> Statement:
        arms = []
        while True:
            condition = self.expression()
            self.take("then")
            arms.append((condition, self.block(("elsif", "else", "endif"))))
            if not self.accept("elsif"):
                break
        otherwise = self.block(("endif",)) if self.accept("else") else None
        self.take("endif")

        def run(env: Environment) -> None:
            for condition, body in arms:
                if condition(env).bits:
                    return body(env)
            return otherwise(env) if otherwise else None

        return run

    def loop(self) -> Statement:
        name = self.take()
        self.take("in")
        first = self.expression()
        self.take(":")
        last = self.expression()
        self.take("do")
        body = self.block(("endfor",))
        self.take("endfor")

        def run(env: Environment) -> None:
            for i in range(first(env).number, last(env).number + 1):
                env[name] = integer("i", 32, i)
                body(env)

        return run

    def assignment(self) -> Statement:
        if self.rest[-3:-1] == ["lambda", "="]:
            return self.function()
        target = self.target()
        self.take("=")
        value = self.expression()
        return lambda env: target(env, value(env))

    def function(self) -> Statement:
        """NAME = lambda(a, b) (statements)."""
        name = self.take()
        self.rest = self.rest[:-3]  # = lambda (
        parameters = []
        while not self.accept(")"):
            parameters.append(self.take())
            self.accept(",")
        self.take("(")
        body = self.block((")",))
        self.take(")")

        def invoke(env: Environment, arguments: list[Value]) -> Value:
            try:
                body(Environment(env, **dict(zip(parameters, arguments, strict=True))))
            except Returned as returned:
                return returned.args[0]
            raise SyntaxError(f"{name} returns nothing")

        return lambda env: env.__setitem__(name, invoke)

    def unpacking(self) -> Statement:
        """{ D1.u1, D0.u64 } = value: the last target takes the low bits."""
        parts = []
        while not self.accept("}"):
            name = self.take()
            self.take(".")
            match = _TYPE.match(self.take())
            parts.append((name, match[1], int(match[2])))
            self.accept(",")
        self.take("=")
        value = self.expression()

        def run(env: Environment) -> None:
            bits = value(env).bits
            for name, kind, width in reversed(parts):
                env[name] = Value(kind, width, bits & ((1 << width) - 1))
                bits >>= width

        return run

    def target(self) -> Callable[[Environment, Value], None]:
        """A variable or a range of its bits, with types in any place."""
        name, kind, span = self.name(), None, None
        index = []
        while self.peek() in (".", "["):
            if self.accept("."):
                kind = _TYPE.match(self.take())
            elif name == "VGPR" and len(index) < 2:
                self.take("[")
                index.append(self.expression())
                self.take("]")
            else:
                span = self.span()

        def assign(env: Environment, value: Value) -> None:
            store, key = (env[name], tuple(i(env).number for i in index)) if index else (env, name)
            typed = converted(value, kind)
            if span is None:
                store[key] = typed
                return
            high, low = span(env)
            if isinstance(store.get(key), dict):
                store[key][high] = typed
                return
            if high < low:
                typed, high, low = typed.slice(0, low - high), low, high
            old = store.get(key, Value("b", 64, 0))
            mask = (1 << (high - low + 1)) - 1
            store[key] = Value(old.kind, old.width, old.bits & ~(mask << low) | (typed.bits & mask) << low)

        return assign

    def name(self) -> str:
        """A variable; one with a dot, such as WAVE_MODE.IEEE, unless what follows the dot is a type."""
        name = self.take()
        if self.peek() == "." and not _TYPE.match(self.rest[-2]):
            name += self.take() + self.take()
        return name

    def span(self) -> Callable[[Environment], tuple[int, int]]:
        self.take("[")
        high = self.expression()
        low = self.expression() if self.accept(":") else high
        self.take("]")
        return lambda env: (int(high(env).number), int(low(env).number))

    # ---- expressions

    def expression(self) -> Expression:
        condition = self.binary(0)
        if not self.accept("?"):
            return condition
        yes = self.expression()
        self.take(":")
        no = self.expression()
        return lambda env: yes(env) if condition(env).bits else no(env)

    def binary(self, level: int) -> Expression:
        if level == len(_PRECEDENCE):
            return self.unary()
        left = self.binary(level + 1)
        while self.peek() in _PRECEDENCE[level]:
            operator, right = self.take(), self.binary(level + 1)
            left = operation(operator, left, right)
        return left

    def unary(self) -> Expression:
        if self.accept("-"):
            operand = self.unary()
            return lambda env: negated(operand(env))
        if self.accept("+"):
            return self.unary()
        if self.accept("~"):
            operand = self.unary()
            return lambda env: (lambda v: Value(v.kind, v.width, v.bits ^ ((1 << v.width) - 1)))(operand(env))
        if self.accept("!"):
            operand = self.unary()
            return lambda env: truth(not operand(env).bits)
        return self.postfix(self.primary())

    def postfix(self, value: Expression) -> Expression:
        while self.peek() in (".", "["):
            if self.accept("."):
                match = _TYPE.match(self.take())
                value = read_as(value, match[1], int(match[2]))
            else:
                value = read_span(value, self.span())
        return value

    def primary(self) -> Expression:
        token = self.name()
        if token == "(":
            inner = self.expression()
            self.take(")")
            return inner
        if token == "{":
            return self.concatenation()
        if "'" in token or token[0].isdigit():
            return self.literal(token)
        if self.accept("("):
            arguments = []
            while not self.accept(")"):
                arguments.append(self.expression())
                self.accept(",")
            return lambda env: call(env, token, [argument(env) for argument in arguments])
        if token in _SPECIAL_FLOATS:
            width = int(self.take()[1:]) if self.accept(".") else 64
            special = floating("f", width, _SPECIAL_FLOATS[token])
            return lambda env: special
        if token == "VGPR":
            lane, register = self.index(), self.index()
            return lambda env: env["VGPR"][lane(env).number, register(env).number]
        return lambda env: env[token]

    def index(self) -> Expression:
        self.take("[")
        inner = self.expression()
        self.take("]")
        return inner

    def concatenation(self) -> Expression:
        parts = []
        while not self.accept("}"):
            parts.append(self.expression())
            self.accept(",")

        def join(env: Environment) -> Value:
            bits, width = 0, 0
            for part in parts:
                value = part(env)
                bits, width = bits << value.width | value.bits, width + value.width
            return Value("u", width, bits)

        return join

    def literal(self, token: str) -> Expression:
        width, quote, rest = token.partition("'")
        if quote and rest in _CASTS:
            self.take("(")
            inner = self.expression()
            self.take(")")
            kind, bits = _CASTS[rest], int(width)
            return lambda env: cast(inner(env), kind, bits)
        if quote and "." in rest:
            value = floating("f", int(width), float(rest))
        elif quote:
            value = integer("i" if rest.endswith("I") else "u", int(width), int(rest.rstrip("UIFB"), 0))
        elif "." in token:
            value = floating("f", 32 if token.endswith("F") else 64, float(token.rstrip("F")))
        else:
            bits = 64 if "L" in token else 32
            value = integer("u" if "U" in token else "i", bits, int(token.rstrip("UL"), 0))
        return lambda env: value
