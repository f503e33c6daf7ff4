"""Criteria: each orders a group's units by the harm that their removal does.

A criterion is a file: `bn_scale.py` holds the frozen dataclass `BnScale`, whose fields are its options and which the
command line calls `bn-scale`. They are found by looking, not by listing; files that begin with _ are help to them.
"""

from __future__ import annotations

import importlib
import pkgutil
from functools import cache

from ..choice import choose
from ..ranking import Criterion


@cache
def criteria() -> dict[str, type[Criterion]]:
    """Every criterion by its command-line word, in alphabetical order."""
    names = sorted(module.name for module in pkgutil.iter_modules(__path__) if not module.name.startswith("_"))
    return {name.replace("_", "-"): _criterion(name) for name in names}


def make_criterion(given: str | Criterion) -> Criterion:
    """The criterion of that word with its default options; a Criterion is itself. Raises UsageError."""
    return choose(criteria(), given, "--criterion")


def _criterion(name: str) -> type[Criterion]:
    module = importlib.import_module(f"{__name__}.{name}")
    return getattr(module, "".join(part.capitalize() for part in name.split("_")))
