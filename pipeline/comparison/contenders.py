"""What is compared: methods by their words, and what all of them share."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...passes.errors import UsageError
from ...passes.selection.budget import Budget
from ...passes.selection.criteria import make_criterion
from ...passes.selection.presets import PRESETS
from ...runtime.data.open import DataSource
from ...runtime.data.preprocess import Preprocessing
from ..training.rounds import Schedule

if TYPE_CHECKING:
    from ...runtime.torch.training.recipe import Recipe

OURS = "ours"  # the defaults of a run with data
_KEY_LENGTH = 8


@dataclass(frozen=True, slots=True)
class Published:
    """What a paper reports, in per cent: top-1 before and after, and the share of the MACs that goes; None: not said.

    change: after less before, where only that is said; from_memory: the figures were not looked up.
    """

    before: float | None = None
    after: float | None = None
    change: float | None = None
    cut: float | None = None
    from_memory: bool = False


@dataclass(frozen=True, slots=True)
class Contender:
    """A method: its name in the table, what it says of the settings of `prune`; None: the common schedule, budget."""

    name: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    schedule: Schedule | None = None
    budget: Budget | None = None
    published: Published | None = None

    @property
    def key(self) -> str:
        """A file name of its own: other settings, another file."""
        said = [self.name, {k: str(v) for k, v in self.settings.items()}, str(self.schedule), str(self.budget)]
        plain = "".join(letter if letter.isalnum() else "-" for letter in self.name.lower()).strip("-")
        return f"{plain}-{digest(said)}"


@dataclass(frozen=True, slots=True)
class Terms:
    """What all methods share.

    settings: of `prune`, which those of a method override
    evaluation: labelled data that accuracy is measured on
    evaluate_samples: so many of them, the same for all methods, drawn with the seed of the settings; None: all
    train, recipe: of the fine-tuning, None for none

    The last epoch's weights are taken: no choice looks at the test.
    """

    model: Path
    evaluation: DataSource
    budget: Budget
    settings: Mapping[str, Any] = field(default_factory=dict)
    preprocessing: Preprocessing | None = None
    train: DataSource | None = None
    recipe: Recipe | None = None
    schedule: Schedule = field(default_factory=Schedule)
    evaluate_samples: int | None = None

    @property
    def key(self) -> str:
        """What the terms are: rows of other terms are not of this table."""
        settings = {name: str(value) for name, value in self.settings.items()}
        said = [str(self.budget), settings, str(self.preprocessing), self._lessons, str(self.schedule)]
        drawn = () if self.evaluate_samples is None else (self.evaluate_samples,)
        return digest([_file_digest(self.model), str(self.evaluation), str(self.train), *said, *drawn])

    @property
    def _lessons(self) -> dict[str, str] | None:
        """What the recipe says that is not the default; how many processes decode is no term."""
        if self.recipe is None:
            return None
        values = {f.name: (getattr(self.recipe, f.name), f.default) for f in fields(self.recipe) if f.name != "workers"}
        return {name: str(value) for name, (value, default) in values.items() if value != default}


def contender(word: str) -> Contender:
    """`ours`, a paper's preset, or a criterion with its options. Raises UsageError for any other word."""
    name = word.strip()
    if name == OURS:
        return Contender(name)
    if name in PRESETS:
        return Contender(name, {"preset": name})
    try:
        make_criterion(name)
    except UsageError as error:
        raise UsageError(
            f"there is no method '{name}'",
            where="--methods",
            fix=f"choose {OURS}, a preset ({', '.join(PRESETS)}), or a criterion: {error.fix}",
        ) from None
    return Contender(name, {"criterion": name})


def contenders(words: Sequence[str]) -> tuple[Contender, ...]:
    """One for each word. Raises UsageError for an unknown one, for one that is there twice, and where there is none."""
    found = tuple(contender(word) for word in words if word.strip())
    return checked(found)


def checked(contenders: tuple[Contender, ...]) -> tuple[Contender, ...]:
    names = [one.name for one in contenders]
    twice = next((name for name in names if names.count(name) > 1), None)
    if not names or twice is not None:
        raise UsageError(
            "no method is named" if twice is None else f"'{twice}' is named twice",
            where="--methods",
            fix="give for example --methods l1,thinet,ours",
        )
    return contenders


def digest(said: object) -> str:
    """A short text for a value."""
    return hashlib.sha256(json.dumps(said, default=str, sort_keys=True).encode()).hexdigest()[:_KEY_LENGTH]


def _file_digest(path: Path) -> str:
    found = hashlib.sha256()
    with path.open("rb") as file:
        while part := file.read(1 << 20):
            found.update(part)
    return found.hexdigest()
