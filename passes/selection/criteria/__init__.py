"""Criteria: each orders a group's units by the harm that their removal does.

A criterion is a file in the room of what it looks at: `weights/bn_scale.py` holds the frozen dataclass `BnScale`, whose
fields are its options and which the command line calls `bn-scale`. They are found by looking, not by listing; files
that begin with _ are help to them.
"""

from __future__ import annotations

import importlib
import pkgutil
from functools import cache
from pathlib import Path

from ..ranking import Criterion
from ..words import choose


@cache
def criteria() -> dict[str, type[Criterion]]:
    """Every criterion by its command-line word, in alphabetical order."""
    rooms = [room.name for room in pkgutil.iter_modules(__path__) if room.ispkg]
    homes = {
        module.name: room
        for room in rooms
        for module in pkgutil.iter_modules([f"{Path(path) / room}" for path in __path__])
        if not module.name.startswith("_")
    }
    return {name.replace("_", "-"): _criterion(homes[name], name) for name in sorted(homes)}


def make_criterion(chosen: str | Criterion) -> Criterion:
    """The criterion of that word with its default options; a Criterion is itself. Raises UsageError."""
    return choose(criteria(), chosen, "--criterion")


def _criterion(room: str, name: str) -> type[Criterion]:
    module = importlib.import_module(f"{__name__}.{room}.{name}")
    return getattr(module, "".join(part.capitalize() for part in name.split("_")))
