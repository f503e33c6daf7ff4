"""Standard output for tables and colours."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass

from rich.console import Console, ConsoleOptions, ConsoleRenderable, RenderHook
from rich.segment import Segment

from ...passes.errors import printable

_WIDE = 100  # columns of a file or a pipe


def terminal() -> Console:
    """Lines fold at the terminal's edge; a file or a pipe has a fixed one."""
    console = _Console(highlight=False, width=None if sys.stdout.isatty() else _WIDE)
    console.push_render_hook(_PrintableOnly())
    return console


class _Console(Console):
    """Ends with 0 where nobody reads on (`| head`): 1 would be a bug of ours."""

    def on_broken_pipe(self) -> None:
        try:
            super().on_broken_pipe()  # standard output leads nowhere from here on
        except SystemExit:
            sys.exit(0)


class _PrintableOnly(RenderHook):
    """Names of models hold what they like: nothing of it is obeyed by the terminal."""

    def process_renderables(self, renderables: list[ConsoleRenderable]) -> list[ConsoleRenderable]:
        return [_Printable(one) for one in renderables]


@dataclass(frozen=True, slots=True)
class _Printable:
    inside: ConsoleRenderable

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[Segment]:
        for part in console.render(self.inside, options):
            yield part if part.control else Segment(printable(part.text), part.style)
