"""A comparison as a TOML file: the flags by their names, a recipe, and the methods with what their papers report.

    model = "resnet56-cifar10.onnx"
    macs = "50%"
    calibration = "cifar10-train.zip"
    evaluate = "cifar10-test.zip"
    finetune = "cifar10-train.zip"
    [recipe]
    epochs = 3
    [[method]]
    name = "Pruning Filters"
    preset = "li"
    published = { before = 93.04, after = 93.06, cut = 27.6 }

Paths are those of the file's folder; what is not a path (synthetic, module:function) stays as it is.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ..passes.errors import UsageError
    from ..pipeline.comparison.contenders import Contender
    from ..pipeline.training.rounds import Schedule

_PATHS = ("model", "calibration", "evaluate", "finetune", "output")
_BUDGETS = ("macs", "params", "size", "latency", "channels")
_SETTINGS = (
    "preset",
    "criterion",
    "allocation",
    "reconstruct",
    "exclude",
    "align",
    "samples",
    "effort",
    "keep_blocks",
    "replace_head",
    "inexact",
)
_TURNS = ("schedule", "steps")


@dataclass(frozen=True, slots=True)
class Config:
    """What a configuration file says.

    flags: those of the command by their names
    recipe: fields of a Recipe
    methods: in their order
    """

    flags: Mapping[str, Any] = field(default_factory=dict)
    recipe: Mapping[str, Any] = field(default_factory=dict)
    methods: tuple[Contender, ...] = ()


def read_config(path: Path, known: frozenset[str]) -> Config:
    """What the file says; known: the flags that it may.

    Raises ReadError for a file that is not TOML, UsageError for what it may not say.
    """
    from ..passes.toml import read_toml

    data = read_toml(path)
    for key, form in (("recipe", dict), ("method", list)):
        if not isinstance(data.get(key, form()), form):
            raise _no_table(path, key, "[[method]]" if form is list else "[recipe]")
    recipe, methods = _recipe(path, data.pop("recipe", {})), data.pop("method", [])
    flags = {key.replace("-", "_"): value for key, value in data.items()}
    _refuse(path, flags.keys() - known, known)
    for name in _PATHS:
        if name in flags:
            flags[name] = _resolved(path.parent, str(flags[name]))
    return Config(flags, recipe, tuple(_method(path, entry) for entry in methods))


def _recipe(path: Path, table: Mapping[str, Any]) -> Mapping[str, Any]:
    if not table:
        return {}
    from ..runtime.torch.training.recipe_file import recipe_values  # needs torch

    return recipe_values(path, table)


def _resolved(folder: Path, text: str) -> str:
    return str(folder / text) if (folder / text).exists() or "/" in text else text


def _no_table(path: Path, key: str, form: str) -> UsageError:
    from ..passes.errors import UsageError

    return UsageError(f"'{key}' is no table", where=str(path), fix=f"write {form}, and its values in the lines below")


def _method(path: Path, entry: Mapping[str, Any]) -> Contender:
    from ..passes.errors import UsageError
    from ..passes.selection.budget import Budget
    from ..pipeline.comparison.contenders import Contender, Published

    if not isinstance(entry, dict):
        raise _no_table(path, "method", "[[method]]")
    said = {key.replace("-", "_"): value for key, value in entry.items()}
    allowed = frozenset({"name", "published", *_SETTINGS, *_BUDGETS, *_TURNS})
    _refuse(path, said.keys() - allowed, allowed)
    name = str(said.get("name") or said.get("preset") or said.get("criterion") or "ours")
    budget = {key: said[key] for key in _BUDGETS if key in said}
    published = said.get("published")
    if published is not None:
        _check_published(path, published, frozenset(f.name for f in fields(Published)))
    try:
        turns, own = _turns(said), Budget(**budget) if budget else None
    except UsageError as error:
        raise UsageError(error.what, where=f"{path}, the method '{name}', {error.where}", fix=error.fix) from None
    settings = {key: said[key] for key in _SETTINGS if key in said}
    return Contender(name, settings, turns, own, None if published is None else Published(**published))


def _turns(said: Mapping[str, Any]) -> Schedule | None:
    from ..passes.errors import UsageError
    from ..pipeline.training.rounds import Schedule

    steps = said.get("steps", 1)
    if type(steps) is not int:
        raise UsageError(f"{steps!r} is not a whole number", where="steps", fix="give for example steps = 3")
    return Schedule(said.get("schedule", "once"), steps) if said.keys() & set(_TURNS) else None


def _check_published(path: Path, said: object, names: frozenset[str]) -> None:
    from ..passes.errors import UsageError

    if isinstance(said, dict):
        _refuse(path, said.keys() - names, names)
        if all(isinstance(v, bool if n == "from_memory" else int | float) for n, v in said.items()):
            return
    raise UsageError(
        "'published' is no table of numbers", where=str(path), fix="write published = { before = 93.0, after = 92.5 }"
    )


def _refuse(path: Path, unknown: AbstractSet[str], known: frozenset[str]) -> None:
    from ..passes.errors import UsageError

    if unknown:
        key = sorted(unknown)[0]
        near = difflib.get_close_matches(key, known, n=1)
        fix = f"did you mean '{near[0]}'? " if near else ""
        raise UsageError(
            f"'{key}' is not a key of this file", where=str(path), fix=f"{fix}use {', '.join(sorted(known))}"
        )
