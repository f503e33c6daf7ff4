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

from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ..pipeline.comparison.contenders import Contender

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


def _method(path: Path, entry: Mapping[str, Any]) -> Contender:
    from ..passes.selection.budget import Budget
    from ..pipeline.comparison.contenders import Contender, Published
    from ..pipeline.training.rounds import Schedule

    said = {key.replace("-", "_"): value for key, value in entry.items()}
    allowed = frozenset({"name", "published", *_SETTINGS, *_BUDGETS, *_TURNS})
    _refuse(path, said.keys() - allowed, allowed)
    name = str(said.get("name") or said.get("preset") or said.get("criterion") or "ours")
    budget = {key: said[key] for key in _BUDGETS if key in said}
    published = said.get("published")
    if published is not None:
        names = frozenset(f.name for f in fields(Published))
        _refuse(path, published.keys() - names, names)
    return Contender(
        name,
        {key: said[key] for key in _SETTINGS if key in said},
        Schedule(said["schedule"], said.get("steps", 1)) if "schedule" in said else None,
        Budget(**budget) if budget else None,
        None if published is None else Published(**published),
    )


def _refuse(path: Path, unknown: AbstractSet[str], known: frozenset[str]) -> None:
    from ..passes.errors import UsageError

    if unknown:
        raise UsageError(
            f"'{sorted(unknown)[0]}' is not a key of this file", where=str(path), fix=f"use {', '.join(sorted(known))}"
        )
