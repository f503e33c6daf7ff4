"""How long work says how far it is: in words, for people, or in numbers, for whoever puts them into words."""

from __future__ import annotations

import os
from collections.abc import Callable

Stage = Callable[[str], None]  # what is being done, such as "proving"
Count = Callable[[int, int | None], None]  # how many are done, of how many; None where nobody knows before the end


def is_first() -> bool:
    """Whether this is the one of torchrun's processes that writes files and speaks; alone it is."""
    return int(os.environ.get("RANK", "0")) == 0 or int(os.environ.get("WORLD_SIZE", "1")) == 1


def silent(*_: object) -> None:
    """A Stage and a Count that tell nobody."""


def say(stage: Stage, line: str) -> None:
    """Tell a line that stays, where whoever listens tells those from what changes (it has a method `say`)."""
    getattr(stage, "say", stage)(line)


def counted(stage: Stage, doing: str, things: str, of: int | None = None) -> Count:
    """A Count that tells `stage`, such as "calibrating: 64 of 1024 samples". of: where whoever counts does not know."""

    def count(done: int, total: int | None) -> None:
        known = of if total is None else total
        stage(f"{doing}: {done}{'' if known is None else f' of {known}'} {things}")

    return count
