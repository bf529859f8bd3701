"""The protocol buffer wire format: enough to change a field and leave the others as they are, known or not."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

Field = tuple[int, int, Any]
"""Field number, wire type and value: an int, or the bytes as they are."""

VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5


def decode(message: bytes) -> list[Field]:
    """Splits a serialized message into its fields."""
    fields: list[Field] = []
    position = 0

    def varint() -> int:
        nonlocal position
        result = shift = 0
        while True:
            byte = message[position]
            position += 1
            result |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                return result

    while position < len(message):
        number, wire = divmod(varint(), 8)
        if wire == VARINT:
            fields.append((number, wire, varint()))
            continue
        size = {FIXED64: 8, FIXED32: 4}[wire] if wire != BYTES else varint()
        fields.append((number, wire, message[position : position + size]))
        position += size
    return fields


def encode(fields: Sequence[Field]) -> bytes:
    """Serializes the fields that :func:`decode` gave."""
    message = bytearray()

    def varint(number: int) -> None:
        while number >= 0x80:
            message.append(number & 0x7F | 0x80)
            number >>= 7
        message.append(number)

    for number, wire, value in fields:
        varint(number << 3 | wire)
        if wire == VARINT:
            varint(value)
            continue
        if wire == BYTES:
            varint(len(value))
        message.extend(value)
    return bytes(message)


def edit(message: bytes, path: tuple[int, ...], change: Callable[[bytes], bytes]) -> bytes:
    """Applies a change to each submessage at a path of field numbers."""
    if not path:
        return change(message)
    first, rest = path[0], path[1:]
    fields = decode(message)
    return encode([(n, wire, edit(value, rest, change) if n == first else value) for n, wire, value in fields])
