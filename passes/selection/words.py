"""Passes by their command-line word, with their options after it: the class `BnScale` is `bn-scale`.

`obs:ridge=0.01,swaps=20` is Obs(ridge=0.01, swaps=20); an option that is yes or no may stand alone, as in `l1:greedy`.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from typing import Any, Literal, TypeVar, get_args, get_origin, get_type_hints

from ..errors import UsageError

Pass = TypeVar("Pass")
_TRUTH = {"yes": True, "true": True, "1": True, "no": False, "false": False, "0": False}


def word(chosen: object) -> str:
    """How a pass is written on the command line: its word, and the options that are not the default's."""
    name = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "-", type(chosen).__name__).lower()
    changed = {
        key: getattr(chosen, key) for key in _options(type(chosen)) if getattr(chosen, key) != _default(chosen, key)
    }
    options = ",".join(key if value is True else f"{key}={_text(value)}" for key, value in changed.items())
    return f"{name}:{options}" if options else name


def choose(table: Mapping[str, type[Pass]], chosen: str | Pass, flag: str) -> Pass:
    """The pass that a word names, with the options after it; a pass is itself. Raises UsageError for any other."""
    if not isinstance(chosen, str):
        return chosen
    name, _, options = chosen.partition(":")
    if name not in table:
        raise UsageError(f"there is no '{name}'", where=flag, fix=f"choose one of {', '.join(table)}")
    return table[name](**_parsed(table[name], options, f"{flag} {chosen}"))


def _parsed(chosen: type, text: str, where: str) -> dict[str, Any]:
    kinds = _options(chosen)
    options = {}
    for part in filter(None, text.split(",")):
        key, has_value, value = part.partition("=")
        if key not in kinds:
            fix = f"choose from {', '.join(kinds)}" if kinds else "leave out what follows the colon"
            raise UsageError(f"there is no option '{key}'", where=where, fix=fix)
        try:
            options[key] = _value(kinds[key], value if has_value else "yes")
        except (ValueError, KeyError):
            raise UsageError(
                f"'{part}' is not a value of this option", where=where, fix=_wanted(key, kinds[key])
            ) from None
    return options


def _options(chosen: type) -> dict[str, Any]:
    """Name -> type of the fields that can be written as text; a criterion of one's own may be any class."""
    if not is_dataclass(chosen):
        return {}
    try:
        hints = get_type_hints(chosen)
    except (NameError, TypeError):  # it names types that are known in its module alone, or none
        return {}
    names = [f.name for f in fields(chosen)]
    return {n: hints[n] for n in names if hints[n] in (bool, int, float, str) or get_origin(hints[n]) is Literal}


def _default(chosen: object, key: str) -> object:
    return next(f.default for f in fields(chosen) if f.name == key)  # type: ignore[arg-type] - a pass is a dataclass


def _value(kind: Any, text: str) -> Any:  # noqa: ANN401 - of the type that `kind` is
    if kind is bool:
        return _TRUTH[text]
    if get_origin(kind) is Literal:
        return {choice: choice for choice in get_args(kind)}[text]
    if kind is str:
        return text
    value = kind(text)
    if not math.isfinite(value):
        raise ValueError(text)
    return value


def _wanted(key: str, kind: Any) -> str:  # noqa: ANN401 - a type
    words = {bool: ("yes", "no"), int: ("a whole number",), float: ("a number",), str: ("a name",)}
    choices = words.get(kind) or get_args(kind)
    return f"write {key}= and {' or '.join(choices)}"


def _text(value: object) -> str:
    return "no" if value is False else str(value)
