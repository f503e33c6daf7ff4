"""Methods beside one another: `onnx-prune compare`."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from ..runtime.progress import is_first
from .checks import check_folder
from .compare_config import Config, read_config
from .compare_table import as_json, as_text, write_tables
from .endings import target_of
from .options import ALIGN_ANY, BUDGETS, DEVICE, IMAGES, JSON, LATENCY_BATCH, NO_LATENCY, SEED, THREADS, preprocessing
from .progress import notice, progress_shown, voice
from .recipe_options import NAMES, RECIPE, make_recipe
from .settings.sections import SectionedCommand

if TYPE_CHECKING:
    from ..pipeline.comparison.contenders import Contender, Terms
    from ..pipeline.comparison.rows import Failed, Row

_SETTINGS = (
    *("allocation", "reconstruct", "calibration", "exclude", "samples", "seed", "device", "align"),
    *("threads", "latency_batch"),
)
_MADE = re.compile(r"terms$|table\.|[^/]*\.(json|claim|failed)$|[^/]*\.unfinished/")  # in the folder of a comparison
_BUDGETS = ("macs", "params", "size", "latency", "channels")


@click.command(cls=SectionedCommand)
@click.argument("model", type=click.Path(path_type=Path), required=False)
@click.option("--methods", help="With commas: ours, presets (thinet, li, ...), criteria (l1, taylor, ccp, ...).")
@click.option("--config", type=click.Path(path_type=Path), help="A TOML file with these flags, a recipe, the methods.")
@click.option("-o", "--output", type=click.Path(path_type=Path), help="Folder. Default: MODEL's name with .compare.")
@BUDGETS
@click.option("--allocation", help="How many channels go where, for all methods, whatever a preset says.")
@click.option("--reconstruct", help="How what stays is refitted, for all methods, whatever a preset says.")
@click.option("--calibration", help="Images or arrays, as for prune; labels help the criteria on gradients.")
@click.option(
    "--samples", type=click.IntRange(min=1), default=1024, show_default=True, help="Calibration samples to use at most."
)
@click.option("--exclude", help="Regular expression of group names that stay whole.")
@click.option("--finetune", "train", help="Training data: every cut model is fine-tuned by the same recipe.")
@click.option("--evaluate", "evaluation", help="Labelled data that accuracy is measured on.")
@click.option("--evaluate-samples", type=click.IntRange(min=1), help="Use so many of them. Default: all.")
@RECIPE
@IMAGES
@ALIGN_ANY
@SEED
@DEVICE
@NO_LATENCY
@THREADS
@LATENCY_BATCH
@JSON
@click.pass_context
def compare(context: click.Context, **given: Any) -> None:  # noqa: ANN401
    """Compare methods on MODEL: equal data, equal budget, equal fine-tuning, from the same network.

    Writes table.txt, .json, .csv and .tex into the output folder, a row as soon as it is finished. Run it again after a
    stop, and it goes on; run it in several processes or on several machines with the same folder, and they share the
    rows.
    """
    from ..pipeline.comparison.run import compare as run

    said, config = _merged(context, given)
    terms = _terms(said, config)
    methods = _methods(said, config)
    folder = Path(said["output"] or target_of(terms.model, None).with_name(f"{terms.model.stem}.compare"))
    check_folder([terms.model, *map(said.get, ("evaluation", "train", "calibration", "config"))], folder, _MADE)
    keys, failed = [method.key for method in methods], []
    table: list[Row | Failed] = []
    with progress_shown() as progress:
        for outcome in run(terms, methods, folder, progress):
            if outcome.error is not None:
                failed.append(outcome.error)
                progress.say(f"{outcome.contender.name}: {outcome.error}")
            if is_first():
                table = _written(folder, keys)
    if said["as_json"] and is_first():
        click.echo(as_json(table), nl=False)
    elif not voice().quiet:
        click.echo(as_text(table), nl=False)
        click.echo(f"wrote {folder / 'table.txt'}, .json, .csv, .tex")
    elsewhere = {method.name for method in methods} - {row.name for row in table}
    if elsewhere and is_first():
        notice(f"other processes make {', '.join(sorted(elsewhere))}; the last one writes the whole table")
    if failed:
        raise failed[0]


def _written(folder: Path, keys: Sequence[str]) -> list[Row | Failed]:
    """The rows that there are by now, by whatever process, which the tables then have."""
    from ..pipeline.comparison.rows import Store

    store = Store(folder, "")
    with store.alone():
        table = store.ended(keys)
        write_tables(folder, table)
    return table


def _merged(context: click.Context, given: Mapping[str, Any]) -> tuple[dict[str, Any], Config]:
    """The flags: what is given, else what the file says, else the defaults."""
    if given["config"] is None:
        return dict(given), Config()
    names = {
        option.lstrip("-").replace("-", "_"): str(parameter.name)
        for parameter in context.command.params
        for option in (parameter.opts if isinstance(parameter, click.Option) else [str(parameter.name)])
        if option.startswith("--") or not isinstance(parameter, click.Option)
    }
    config = read_config(given["config"], frozenset(names))
    merged = dict(given)
    for flag, value in config.flags.items():
        name = names[flag]
        if context.get_parameter_source(name) in (ParameterSource.DEFAULT, None):
            merged[name] = _as_given(value)
    return merged, config


def _as_given(value: Any) -> Any:  # noqa: ANN401 - a value of TOML
    """As the flag would be written: numbers with commas between them."""
    return ",".join(map(str, value)) if isinstance(value, list) else value


def _methods(said: Mapping[str, Any], config: Config) -> tuple[Contender, ...]:
    from ..pipeline.comparison.contenders import checked, contenders

    named = contenders(said["methods"].split(",")) if said["methods"] else ()
    return checked((*config.methods, *named))


def _terms(said: Mapping[str, Any], config: Config) -> Terms:
    """Raises UsageError where the model or the data to measure on are not named."""
    from ..passes.errors import UsageError
    from ..passes.selection.budget import Budget
    from ..pipeline.comparison.contenders import Terms

    for name, flag in (("model", "MODEL"), ("evaluation", "--evaluate")):
        if said[name] is None:
            raise UsageError(f"{flag} is missing", where="compare", fix=f"give {flag}, or put it into --config FILE")
    budget = {name: said[name] for name in _BUDGETS if said[name]}
    settings = {name: said[name] for name in _SETTINGS if said[name] is not None}
    recipe = None
    if said["train"] is not None:
        file = {name: value for name, value in config.recipe.items() if name != "seed"}
        recipe = make_recipe(said, file)
    elif any(said[name] for name in NAMES):
        raise UsageError("there is a recipe, and nothing to train on", where="compare", fix="give --finetune DATA")
    return Terms(
        model=Path(said["model"]),
        evaluation=said["evaluation"],
        evaluate_samples=said["evaluate_samples"],
        budget=Budget(**budget),
        settings={**settings, "measure": not said["no_latency"]},
        preprocessing=preprocessing(said),
        train=said["train"],
        recipe=recipe,
    )
