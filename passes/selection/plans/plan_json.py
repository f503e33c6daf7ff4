"""The JSON of a plan as text that people edit: laid out by lines, and read with words for what is wrong."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import TypeVar

Kind = TypeVar("Kind", str, int, list, dict)


class MalformedError(Exception):
    """The text is JSON, but not what it should be; the message says where."""


def layout(data: Mapping[str, object], blocks: Sequence[str]) -> str:
    """JSON of an object with a line a key; the lists and objects under the keys `blocks` have a line an entry."""
    lines = [
        f"{json.dumps(key)}: {_block(value) if key in blocks else json.dumps(value)}" for key, value in data.items()
    ]
    return "{\n  " + ",\n  ".join(lines) + "\n}\n"


def _block(value: object) -> str:
    if isinstance(value, Mapping):
        opening, lines, closing = "{", [f"{json.dumps(k)}: {json.dumps(v)}" for k, v in value.items()], "}"
    else:
        assert isinstance(value, Sequence)
        opening, lines, closing = "[", [json.dumps(v) for v in value], "]"
    inside = "\n    " + ",\n    ".join(lines) + "\n  " if lines else ""
    return opening + inside + closing


def members(data: object, keys: Sequence[str], optional: Sequence[str] = ()) -> dict[str, object]:
    """An object that has all of these keys, but for the optional ones, and no others."""
    found = expect(data, dict, keys[0])
    missing = [key for key in keys if key not in found and key not in optional]
    unknown = [key for key in found if key not in keys]
    if missing or unknown:
        raise MalformedError(f'"{missing[0]}" is missing' if missing else f'"{unknown[0]}" is unknown')
    return found


def expect(value: object, kind: type[Kind], key: str) -> Kind:
    """A value of that type; a bool is not an int."""
    if not isinstance(value, kind) or isinstance(value, bool):
        raise MalformedError(f'"{key}" is {json.dumps(value)[:40]}')
    return value


def flag(value: object, key: str) -> bool:
    """True or false."""
    if not isinstance(value, bool):
        raise MalformedError(f'"{key}" is {json.dumps(value)[:40]}')
    return value


def numbers(value: object, key: str) -> tuple[int, ...]:
    """A list of ints."""
    return tuple(expect(number, int, key) for number in expect(value, list, key))


def pair(value: object, key: str) -> tuple[int, int]:
    """A list of two ints."""
    found = numbers(value, key)
    if len(found) != 2:
        raise MalformedError(f'"{key}" is not a pair')
    return found[0], found[1]
