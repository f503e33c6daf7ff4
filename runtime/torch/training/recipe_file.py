"""A recipe as a TOML file: the fields of `Recipe` by their names, `rate = 0.01` or `milestones = [160, 240]`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from types import NoneType
from typing import Any, get_args, get_origin, get_type_hints

from ....passes.errors import UsageError
from ....passes.toml import read_toml
from .recipe import Recipe


def read_recipe(path: Path) -> dict[str, Any]:
    """Field -> value, for `Recipe(**values)`; dashes in names are underscores.

    Raises ReadError for what is no TOML file, UsageError for a name or a value that a recipe does not have.
    """
    return recipe_values(path, read_toml(path))


def recipe_values(path: Path, entries: Mapping[str, Any]) -> dict[str, Any]:
    """Checked values of a recipe that stand in that file. Raises UsageError."""
    hints = get_type_hints(Recipe)
    kinds = {field.name: _said(hints[field.name]) for field in fields(Recipe)}
    return {(name := key.replace("-", "_")): _value(path, name, value, kinds) for key, value in entries.items()}


def _said(kind: Any) -> Any:  # noqa: ANN401 - a type
    """The type without what stands for nothing said."""
    parts = [part for part in get_args(kind) if part is not NoneType]
    return parts[0] if NoneType in get_args(kind) and len(parts) == 1 else kind


def _value(path: Path, name: str, value: object, kinds: dict[str, Any]) -> object:
    if name not in kinds:
        raise UsageError(f"a recipe has no '{name}'", where=str(path), fix=f"it has {', '.join(kinds)}")
    kind = kinds[name]
    if name in {"augment", "milestones"}:
        part = str if name == "augment" else int | float
        if isinstance(value, list) and all(isinstance(v, part) and not isinstance(v, bool) for v in value):
            return tuple(value)
    elif kind is float and isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    elif kind in (int, bool) and type(value) is kind:
        return value
    elif get_origin(kind) is not None and isinstance(value, str):
        return value  # one of a few words, which Recipe checks
    wanted = {"augment": "a list of words", "milestones": "a list of numbers", int: "a whole number", float: "a number"}
    fix = wanted.get(name) or wanted.get(kind) or ("true or false" if kind is bool else "a word")
    raise UsageError(f"{name} = {value!r}", where=str(path), fix=f"give {fix}")
