"""What a run says while it works: on a terminal a line that changes, else one now and then; and the log file."""

from __future__ import annotations

import re
import sys
import threading
import time
from collections.abc import Generator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..passes.errors import printable
from ..runtime.figures import duration
from ..runtime.progress import is_first
from .process.log import log

if TYPE_CHECKING:
    from rich.status import Status

EVERY = 10.0  # seconds between two lines of progress where standard error is not a terminal
_SETTLED = 2.0  # seconds after which a stage's pace is believed
_COUNTED = re.compile(r"(\d+) of (\d+)")
_KEY = "onnx_prune.voice"
LOG_FILE = "onnx_prune.log"  # its path, in the context of the command


@dataclass(frozen=True, slots=True)
class Voice:
    """How much is said on standard error: nothing but errors (quiet), every stage (verbose), or what is due."""

    quiet: bool = False
    verbose: bool = False


def voice() -> Voice:
    """That of the command that runs; of several processes the first one speaks."""
    if not is_first():
        return Voice(quiet=True)
    context = click.get_current_context(silent=True)
    return Voice() if context is None else context.meta.get(_KEY, Voice())


def _choose(context: click.Context, option: click.Parameter, value: Any) -> None:  # noqa: ANN401 - click's callback
    if value:
        context.meta[_KEY] = Voice(**{**_chosen(context), str(option.name): True})


def _chosen(context: click.Context) -> dict[str, bool]:
    now = context.meta.get(_KEY, Voice())
    return {"quiet": now.quiet, "verbose": now.verbose}


def _name_log(context: click.Context, _option: click.Parameter, value: Path | None) -> None:
    context.meta[LOG_FILE] = value


OPTIONS = (
    click.option(
        "--quiet", is_flag=True, expose_value=False, callback=_choose, help="Say nothing but errors; write the files."
    ),
    click.option("--verbose", is_flag=True, expose_value=False, callback=_choose, help="Say every stage, a line each."),
    click.option(
        "--log-file",
        type=click.Path(path_type=Path, dir_okay=False),
        expose_value=False,
        callback=_name_log,
        help="Append every stage and message to this file, with the time.",
    ),
)


@dataclass
class Pace:
    """How far the present stage is, and how long it will take at its pace.

    Stages are told in words; "192 of 1024" in them is how far it is.
    """

    clock: Any = time.monotonic
    _stage: str = ""
    _begun: float = 0.0
    _first: int = 0

    def words(self, stage: str) -> str:
        """The stage, with the time that is left where that can be told."""
        counted = _COUNTED.search(stage)
        if counted is None:
            self._stage = ""
            return stage
        label, done, whole = stage[: counted.start()], int(counted[1]), int(counted[2])
        if label != self._stage or done < self._first:
            self._stage, self._begun, self._first = label, self.clock(), done
        spent, gained = self.clock() - self._begun, done - self._first
        if gained <= 0 or spent < _SETTLED or done >= whole:
            return stage
        return f"{stage}, {duration(spent / gained * (whole - done))} left"


class Progress:
    """Is told the stages, and says what is due. Silent by itself: what is shown is for the kinds below."""

    def __init__(self) -> None:
        self._pace = Pace()
        self._logged = ""

    def __call__(self, stage: str) -> None:
        words = self._pace.words(stage)
        head = _COUNTED.split(stage)[0]
        if head != self._logged:
            self._logged = head
            log.info(stage)
        self.show(words)

    def show(self, words: str) -> None:
        """The stage as it is now."""

    def say(self, line: str) -> None:
        """A line that stays, such as an epoch's result."""
        log.info(line)


class _Verbose(Progress):
    """Every stage a line; a counted one at most every ten seconds."""

    def __init__(self) -> None:
        super().__init__()
        self._start = self._last = time.monotonic()
        self._head = ""

    def show(self, words: str) -> None:
        now, head = time.monotonic(), _COUNTED.split(words)[0]
        if head != self._head or now - self._last >= EVERY:
            self._head, self._last = head, now
            click.echo(f"onnx-prune: {now - self._start:.1f} s: {printable(words)}", err=True)

    def say(self, line: str) -> None:
        super().say(line)
        click.echo(printable(line), err=True)


class _Spinner(Progress):
    """One line on a terminal that changes; what stays goes above it."""

    def __init__(self, status: Status) -> None:
        super().__init__()
        self._status = status

    def show(self, words: str) -> None:
        from rich.text import Text

        self._status.update(Text(printable(words)))

    def say(self, line: str) -> None:
        super().say(line)
        self._status.console.print(printable(line), highlight=False, markup=False)


@dataclass
class _Beat:
    """The present stage, told every ten seconds by a thread: a stage that says nothing for long is seen as well."""

    stage: str = "starting"
    stop: threading.Event = field(default_factory=threading.Event)

    def run(self) -> None:
        start = time.monotonic()
        while not self.stop.wait(EVERY):
            click.echo(f"onnx-prune: {time.monotonic() - start:.0f} s: {printable(self.stage)}", err=True)


class _Lines(Progress):
    """A line every ten seconds; quick runs stay silent."""

    def __init__(self, beat: _Beat) -> None:
        super().__init__()
        self._beat = beat

    def show(self, words: str) -> None:
        self._beat.stage = words

    def say(self, line: str) -> None:
        super().say(line)
        click.echo(printable(line), err=True)


@contextmanager
def progress_shown() -> Generator[Progress]:
    """The way to say things on standard error that suits what that is and what was asked for."""
    now = voice()
    if now.quiet or now.verbose:
        with nullcontext(Progress() if now.quiet else _Verbose()) as plain:
            yield plain
    elif sys.stderr.isatty():
        from rich.console import Console

        with Console(stderr=True).status("starting") as status:
            yield _Spinner(status)
    else:
        beat = _Beat()
        thread = threading.Thread(target=beat.run, daemon=True, name="onnx-prune-progress")
        thread.start()
        try:
            yield _Lines(beat)
        finally:
            beat.stop.set()
            thread.join()


def notice(text: str) -> None:
    """A warning on standard error, as long as that is wanted."""
    log.info(text)
    if not voice().quiet:
        click.echo(printable(f"onnx-prune: {text}"), err=True)
