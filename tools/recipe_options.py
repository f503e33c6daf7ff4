"""The flags of a training, the same wherever one is asked for, and the recipe that they make."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import click

from .options import options

if TYPE_CHECKING:
    from ..runtime.torch.training.recipe import Recipe

# Flag -> field of the recipe.
_NUMBERS = {
    "epochs": (int, "Passes over the training data. Default: 5."),
    "updates": (int, "So many steps instead of --epochs; with --schedule steps after every cut but the last."),
    "train_samples": (int, "So many of the training data, balanced over the classes. Default: all."),
    "workers": (int, "Processes that decode images which do not fit into memory. Default: one a core."),
    "batch": (int, "Samples a step, over all processes. Default: 128."),
    "rate": (float, "The highest learning rate. Default: 0.0003 of adam, 0.004 of sgd."),
    "warmup": (float, "Share of the steps in which the rate rises. Default: 0.05."),
    "gamma": (float, "Factor of the rate at each milestone. Default: 0.1."),
    "momentum": (float, "Of the optimiser. Default: 0.9."),
    "decay": (float, "Of the weights, not of biases and scales. Default: 0.0005."),
    "temperature": (float, "Of the teacher's soft targets. Default: 4."),
    "labels": (float, "Weight of the labels; the teacher has the rest: 1 is cross-entropy alone. Default: 0.1."),
    "features": (float, "Weight of the difference from the teacher's inner tensors. Default: 0."),
    "average": (
        float,
        "Decay of a moving average of the weights that is kept, 0 for none. Default: 0.998 with the default rate.",
    ),
    "clip": (float, "Largest norm of the gradient, 0 for any. Default: 5."),
}
_WORDS = ("precision", "schedule_rate", "optimiser")
NAMES = (
    *_NUMBERS,
    *_WORDS,
    "milestones",
    "augment",
    "frozen_batch_norm",
    "frozen_statistics",
    "scratch",
    "recipe_file",
)  # of the parsed flags
RECIPE = options(
    *(click.option(f"--{name.replace('_', '-')}", type=kind, help=text) for name, (kind, text) in _NUMBERS.items()),
    click.option(
        "--schedule-rate",
        type=click.Choice(["cosine", "constant", "steps"]),
        help="How the rate changes after the warm-up. Default: cosine to zero, or steps with --milestones.",
    ),
    click.option("--milestones", help="Epochs at which the rate falls to --gamma of itself: 160,240."),
    click.option(
        "--augment", help="Any of crop,resized-crop,flip,cutout,mixup, or none. Default: crop,flip for images."
    ),
    click.option(
        "--optimiser",
        type=click.Choice(["sgd", "adam"]),
        help="Default: adam, or sgd with Nesterov's momentum where a rate is given.",
    ),
    click.option("--precision", type=click.Choice(["auto", "float32", "bfloat16"]), help="Default: what pays here."),
    click.option("--frozen-batch-norm", is_flag=True, help="Put no BatchNormalization back for the training."),
    click.option(
        "--frozen-statistics/--moving-statistics",
        default=None,
        help="What BatchNormalization normalises by. Default: frozen with the default rate, else that of each batch.",
    ),
    click.option("--scratch", is_flag=True, help="Draw all weights anew first: the network's shape alone is used."),
    click.option(
        "--recipe",
        "recipe_file",
        type=click.Path(path_type=Path),
        help="A TOML file with any of these (rate = 0.01); flags override it.",
    ),
)


def make_recipe(given: Mapping[str, Any], said: Mapping[str, Any] = MappingProxyType({})) -> Recipe:
    """What the flags say, then the file, then what is `said` already, then the defaults.

    Raises UsageError, or ReadError for the file.
    """
    from ..runtime.torch.training.recipe import Recipe
    from ..runtime.torch.training.recipe_file import read_recipe
    from .scores import numbers

    chosen: dict[str, Any] = {**said, "seed": given["seed"]}
    if given.get("recipe_file") is not None:
        chosen |= read_recipe(given["recipe_file"])
    chosen |= {name: given[name] for name in (*_NUMBERS, *_WORDS) if given.get(name) is not None}
    if given.get("milestones") is not None:
        chosen["milestones"] = tuple(numbers(given["milestones"], "--milestones", float))
    if chosen.get("milestones"):
        chosen.setdefault("schedule_rate", "steps")
    if given.get("augment") is not None:
        chosen["augment"] = tuple(word for word in given["augment"].split(",") if word not in ("", "none"))
    if given.get("scratch"):
        chosen["scratch"] = True
    if given.get("frozen_statistics") is not None:
        chosen["frozen_statistics"] = given["frozen_statistics"]
    if given.get("frozen_batch_norm"):
        chosen["batch_norm"] = False
    return Recipe(**chosen)
