"""`--config run.toml` gives flags by their names, `--save-config` writes them: a run that can be repeated.

    macs = "50%"
    calibration = "images"
    samples = 2048
    channels = ["layer1.*=40%", "layer2.*=60%"]

What stands on the command line wins. Paths are as on the command line: from the working directory.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

READ, SAVED = "onnx_prune.config", "onnx_prune.save_config"  # the paths, in the context of the command
_GIVEN = (ParameterSource.COMMANDLINE, ParameterSource.DEFAULT_MAP)
_OURS = ("config", "save_config", "log_file", "quiet", "verbose", "resume")  # how a run is watched, not what it does
_FILES = ("model", "output", "plan_file", "report", "save_moments", "as_json")  # what it reads and writes


def _read(context: click.Context, _option: click.Parameter, path: Path | None) -> None:
    context.meta[READ] = path
    if path is None:
        return
    from ...passes.errors import UsageError
    from ...passes.toml import read_toml

    names = _names(context.command)
    values = {}
    for key, value in read_toml(path).items():
        name = names.get(key.replace("_", "-"))
        if name is None or isinstance(value, dict):
            known = ", ".join(sorted(names))
            raise UsageError(
                f"'{key}' is not an option of this command", where=str(path), fix=f"the options are {known}"
            )
        values[name] = value if isinstance(value, bool | list) else str(value)
    context.default_map = values


def _names(command: click.Command) -> dict[str, str]:
    """Option as it is typed, without dashes -> the parameter's name."""
    found = {}
    for parameter in command.params:
        if parameter.name and parameter.name not in _OURS:
            flags = [flag.lstrip("-") for flag in parameter.opts if flag.startswith("--")] or [parameter.name]
            found |= dict.fromkeys(flags, parameter.name)
    return found


def given_settings(context: click.Context, *, files: bool = True) -> dict[str, Any]:
    """Options that were given, by their flags; files: also what is read and written."""
    found = {}
    for flag, name in sorted(_names(context.command).items()):
        if context.get_parameter_source(name) in _GIVEN and (files or name not in _FILES):
            value = context.params.get(name)
            found[flag] = list(value) if isinstance(value, tuple) else str(value) if isinstance(value, Path) else value
    return found


def configurable(command: click.Command) -> click.Command:
    """The command with `--config` and `--save-config`."""
    path = click.Path(path_type=Path)
    click.option(
        "--config",
        type=path,
        is_eager=True,
        expose_value=False,
        callback=_read,
        help="Take options from this TOML file, by their names; those on the command line win.",
    )(command)
    click.option(
        "--save-config", type=path, expose_value=False, callback=_remember, help="Write the options given to this file."
    )(command)
    callback = command.callback
    assert callback is not None, "a command does something"
    command.callback = _saving(callback)
    return command


def _remember(context: click.Context, _option: click.Parameter, path: Path | None) -> None:
    context.meta[SAVED] = path


def _saving(callback: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(callback)
    def run(*given: Any, **named: Any) -> Any:  # noqa: ANN401 - the command's own
        context = click.get_current_context()
        path = context.meta.get(SAVED)
        if path is not None:
            from ...passes.graph.files import write_text

            write_text(path, as_toml(given_settings(context)))
        return callback(*given, **named)

    return run


def as_toml(settings: dict[str, Any]) -> str:
    """Texts, numbers, truth values and lists of texts as TOML."""
    return "".join(f"{name} = {json.dumps(value, ensure_ascii=False)}\n" for name, value in settings.items())
