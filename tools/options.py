"""Flags that several commands share, and what is made of them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from ..runtime.data.preprocess import Preprocessing


def options(*decorators: Callable[[Any], Any]) -> Callable[[Any], Any]:
    def decorate(function: Any) -> Any:  # noqa: ANN401 - click's decorators are untyped
        for decorator in reversed(decorators):
            function = decorator(function)
        return function

    return decorate


class _Alignment(click.ParamType):
    """A whole number, or auto."""

    name = "integer|auto"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:  # noqa: ANN401
        return value if value == "auto" else click.INT.convert(value, param, ctx)


MODEL = click.argument("model", type=click.Path(path_type=Path))
DEVICE = click.option("--device", type=click.Choice(["auto", "cpu", "cuda"]), default="auto", show_default=True)
JSON = click.option(
    "--json", "as_json", is_flag=True, help="The result as JSON on standard output, nothing else there."
)
SEED = click.option(
    "--seed",
    type=click.IntRange(min=0),
    default=0,
    show_default=True,
    help="Seed of everything that is drawn at random.",
)
SIZES = click.option(
    "--size-of",
    "sizes",
    multiple=True,
    metavar="NAME=N",
    help="Size of a free dimension of an input, for models that run at none of the sizes that are tried.",
)
ALIGN = click.option(
    "--align",
    type=_Alignment(),
    default="auto",
    show_default=True,
    help="Kept channel counts are multiples of this; auto: of 4, 8, 16 or 32, by the width of the group; 1: any count.",
)
ALIGN_ANY = click.option(
    "--align",
    type=_Alignment(),
    default=1,
    show_default=True,
    help="Kept channel counts are multiples of this, or auto.",
)
OUTPUT = click.option(
    "-o", "--output", type=click.Path(path_type=Path), help="Default: MODEL's name with .pruned.onnx."
)
THREADS = click.option(
    "--threads",
    type=click.IntRange(min=1),
    default=1,
    show_default=True,
    help="Threads of one operator while latency is measured.",
)
LATENCY_BATCH = click.option(
    "--latency-batch", type=click.IntRange(min=1), default=1, show_default=True, help="Samples in a run that is timed."
)
NO_LATENCY = click.option("--no-latency", is_flag=True, help="Do not measure latency before and after.")
METRIC = click.option(
    "--metric",
    help="top1, top5, agreement (with the original's outputs; no labels), miou (masks), map or map50 (boxes), or "
    "module:function of (outputs, labels) or of a model's path: more is better. Options follow a colon: miou:ignore=0, "
    "map:decoder=yolox. Default: top1 where there are labels, else agreement.",
)
EVALUATION = options(
    click.option("--evaluate", "evaluation", help="Data to measure the accuracy on, before and after."),
    click.option("--evaluate-samples", type=click.IntRange(min=1), help="Use so many of them. Default: all."),
    METRIC,
)
REPORT = click.option(
    "--report",
    type=click.Path(path_type=Path),
    help="Write the run as one HTML file: tables, charts, settings, the plan (needs the extra 'report').",
)
BUDGETS = options(
    click.option("--macs", help="Multiply-accumulates to keep: 50% (the default) or 2G."),
    click.option("--params", help="Parameters to keep: 50% or 10M."),
    click.option("--size", help="File size to reach: 50% or 20MB."),
    click.option("--latency", help="Latency in ONNX Runtime to reach, on this machine: 50% or 5ms."),
    click.option("--channels", multiple=True, help="Channels to keep: 50%, or PATTERN=40% by group name, repeatable."),
)


IMAGES = options(
    click.option("--mean", help="Mean of each channel, of pixels scaled to 0..1: 0.485,0.456,0.406."),
    click.option("--std", help="Standard deviation of each channel, likewise."),
    click.option("--resize", help="Pixels of the shorter side, or HEIGHT,WIDTH."),
    click.option("--crop", help="The part in the middle: pixels, or HEIGHT,WIDTH. Default: what the model fixes."),
    click.option(
        "--scale", type=float, help="Factor that pixels are multiplied by. Default: 1/255 for models that read floats."
    ),
    click.option("--layout", type=click.Choice(["NCHW", "NHWC"]), help="Default: what the model's input looks like."),
)


def preprocessing(options: Any) -> Preprocessing | None:  # noqa: ANN401
    """None where no flag of it is given."""
    from .scores import numbers

    given = {k: options[k] for k in ("mean", "std", "resize", "crop", "scale", "layout") if options[k] is not None}
    if not given:
        return None
    from ..runtime.data.preprocess import Preprocessing

    for name in ("mean", "std"):
        if name in given:
            given[name] = numbers(given[name], f"--{name}", float)
    for name in ("resize", "crop"):
        if name in given:
            sizes = numbers(given[name], f"--{name}", int)
            given[name] = sizes[0] if len(sizes) == 1 else sizes
    return Preprocessing(**given)


def free_sizes(given: tuple[str, ...]) -> dict[str, int]:
    from ..passes.errors import UsageError

    sizes = {}
    for text in given:
        name, _, number = text.rpartition("=")
        if not name or not number.isdigit():
            raise UsageError("--size-of wants NAME=N", where=text, fix="for example --size-of height=320")
        sizes[name] = int(number)
    return sizes
