"""The command line: parse, call the pipeline, show. Exit codes and flags are a contract (README)."""

from __future__ import annotations

import contextlib
import difflib
import os
import signal
import sys
import threading
import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import NoReturn

import click
from click.shell_completion import CompletionItem

from .checks import watched_files
from .commands import COMMANDS
from .compare_command import compare
from .finetune_command import finetune
from .process.guard import in_a_child
from .process.log import close_log, log
from .progress import OPTIONS
from .prune_command import prune
from .settings.config import configurable
from .sweep_command import sweep

BUG = 1


class _Commands(click.Group):
    """`onnx-prune MODEL` is `onnx-prune prune MODEL`: the main job needs no word."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if args[:1] == ["help"] and not Path("help").exists():
            args = [*args[1:2], "--help"]
        elif args and args[0] not in self.commands and not (args[0].startswith("-") and len(args) == 1):
            if not ctx.resilient_parsing:  # a shell that completes the word
                _refuse_mistyped(args[0], self.commands)
            args = ["prune", *args]
        return super().parse_args(ctx, args)

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """Commands, or else files: the first word may be a model."""
        return super().shell_complete(ctx, incomplete) or [CompletionItem(incomplete, type="file")]


def _refuse_mistyped(word: str, commands: Iterable[str]) -> None:
    """Raise UsageError where a word is not a file and looks like a command."""
    near = difflib.get_close_matches(word, commands, n=1)
    if near and not Path(word).suffix and not Path(word).exists():
        from ..passes.errors import UsageError

        raise UsageError(
            f"there is no command '{word}', and no such file", where="onnx-prune", fix=f"did you mean '{near[0]}'?"
        )


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]}, no_args_is_help=True)
@click.version_option(package_name="onnx-prune", prog_name="onnx-prune")
def cli() -> None:
    """Make a trained ONNX model smaller and faster by removing whole channels.

    \b
    onnx-prune MODEL [options]        prune MODEL (see: onnx-prune prune --help)
    onnx-prune resnet.onnx --macs 50%
    """


for command in (*COMMANDS, compare, finetune, prune, sweep):
    for option in OPTIONS:
        option(command)
    if "config" not in {parameter.name for parameter in command.params}:
        configurable(command)
    command.callback = watched_files(command.callback)
    cli.add_command(command)
for command in cli.commands.values():  # whole first sentences in the list of commands: click would cut them
    command.short_help = " ".join((command.help or "").split("\n\n")[0].split())


def _terminated(*_: object) -> NoReturn:
    """SIGTERM ends the run as an exception does, so that temporary files go."""
    sys.exit(128 + signal.SIGTERM)


def _told_again(lost: sys.UnraisableHookArgs) -> None:
    """Ctrl-C and SIGTERM that come while Python closes a generator are lost, so that the run would go on: once more."""
    asked = {KeyboardInterrupt: signal.SIGINT, SystemExit: signal.SIGTERM}.get(lost.exc_type)
    if asked is None:
        sys.__unraisablehook__(lost)
    else:
        threading.Timer(0.05, os.kill, (os.getpid(), asked)).start()


def _interrupted() -> NoReturn:
    click.echo("onnx-prune: interrupted; nothing more was written", err=True)
    sys.exit(130)


_NO_MEMORY = (
    "onnx-prune: there is not enough memory for this model or these data\n"
    "  where: this machine, or what is allowed to the process\n"
    "  fix:   take fewer samples (--samples), smaller inputs (--size-of), or a machine with more"
)


def start() -> None:
    """What the command onnx-prune does: `main` in a child process."""
    in_a_child()
    main()


def main() -> None:
    """Run the command line and exit with the code that the error carries; 1 is a bug of ours."""
    try:
        _with_streams()
        _with_signals()
        sys.unraisablehook = _told_again
        warnings.formatwarning = lambda message, *_, **__: printable(f"onnx-prune: {message}\n")
        from ..passes.errors import OnnxPruneError, printable
    except KeyboardInterrupt:
        _interrupted()
    try:
        _run()
    except OnnxPruneError as error:
        _end(f"onnx-prune: {error}", error.exit_code)
    except click.exceptions.Exit as end:
        sys.exit(end.exit_code)
    except click.ClickException as error:
        error.show()
        sys.exit(2)
    except (click.Abort, KeyboardInterrupt):
        _interrupted()
    except MemoryError:
        _end(_NO_MEMORY, 3)
    except BrokenPipeError:
        sys.exit(0)
    except OSError as error:
        _end(_of_the_system(error), 3)
    except Exception as error:  # noqa: BLE001 - the last line of defence: a bug is said, not thrown at the user
        _bug(error)
    finally:
        close_log()


def _run() -> None:
    try:
        cli(prog_name="onnx-prune", standalone_mode=False)
        sys.stdout.flush()
    except SystemExit as end:  # click ends with 1, and wraps the stream, where nobody reads on: `| head`
        sys.exit(0 if "PacifyFlushWrapper" in type(sys.stdout).__name__ else end.code)


def _with_streams() -> None:
    """Standard output and error of a process that was started without them lead nowhere."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, Path(os.devnull).open("w", encoding="utf-8"))  # noqa: SIM115 - until the process ends


def _with_signals() -> None:
    if callable(signal.getsignal(signal.SIGINT)):  # that of the first moments; where it is ignored, it stays so
        signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, _terminated)


def _end(text: str, code: int) -> NoReturn:
    from ..passes.errors import printable

    log.info(text)
    with contextlib.suppress(OSError):  # a full disk behind standard error changes no code
        click.echo(printable(text), err=True)
    sys.exit(code)


def _traceback() -> None:
    import traceback

    if os.environ.get("ONNX_PRUNE_DEBUG"):
        traceback.print_exc()


def _of_the_system(error: OSError) -> str:
    """Words for what the system refused where no reader or writer of ours has better ones: a full disk, for one."""
    _traceback()
    at = " and ".join(str(name) for name in (error.filename, error.filename2) if name is not None)
    return (
        f"onnx-prune: the system refuses what the run needs: {error.strerror or error}\n"
        f"  where: {at[:200] or 'a file of the run'}\n"
        "  fix:   make room on the disk (TMPDIR is where temporary files go), or allow the process more"
    )


def _bug(error: Exception) -> NoReturn:
    _traceback()
    from ..passes.errors import no_memory

    if no_memory(error):
        _end(_NO_MEMORY, 3)
    _end(
        f"onnx-prune: a bug of ours: {type(error).__name__}: {error}\n"
        "  fix:   set ONNX_PRUNE_DEBUG=1 for the traceback and report it with the graph",
        BUG,
    )


if __name__ == "__main__":
    start()
