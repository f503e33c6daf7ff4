"""The commands beside the main one."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from .checks import check_outputs
from .endings import finish, print_json, target_of
from .options import (
    DEVICE,
    IMAGES,
    JSON,
    LATENCY_BATCH,
    METRIC,
    MODEL,
    NO_LATENCY,
    OUTPUT,
    SEED,
    SIZES,
    THREADS,
    free_sizes,
    preprocessing,
)
from .progress import progress_shown

if TYPE_CHECKING:
    from rich.console import RenderableType

    from ..runtime.analysis import Analysis


@click.command()
@MODEL
@click.argument("data")
@click.option("--reference", type=click.Path(path_type=Path), help="Compare outputs with this model: no labels needed.")
@METRIC
@click.option("--samples", type=click.IntRange(min=1), help="Use so many. Default: all.")
@IMAGES
@SEED
@DEVICE
@JSON
def evaluate(model: Path, data: str, reference: Path | None, as_json: bool, **options: Any) -> None:  # noqa: ANN401
    """Measure MODEL on DATA: top-1 and top-5, a --metric, or how far its outputs are from --reference."""
    from ..pipeline.comparison.evaluate import evaluate as run
    from .show import print_score

    chosen = {k: options[k] for k in ("metric", "samples", "seed", "device")}
    with progress_shown() as progress:
        progress("evaluating")
        result = asdict(run(model, data, reference=reference, preprocessing=preprocessing(options), **chosen))
    if as_json:
        print_json(result)
    else:
        print_score(result)


@click.command()
@MODEL
@click.argument("plan", type=click.Path(path_type=Path))
@OUTPUT
@SEED
@DEVICE
@NO_LATENCY
@THREADS
@LATENCY_BATCH
@JSON
def apply(model: Path, plan: Path, output: Path | None, no_latency: bool, as_json: bool, **chosen: Any) -> None:  # noqa: ANN401
    """Redo a plan.json on MODEL, or on another checkpoint of the same graph."""
    from ..pipeline.prune import apply as run

    target = target_of(model, output)
    check_outputs([model, plan], target)
    with progress_shown() as progress:
        result = run(model, plan, progress=progress, measure=not no_latency, **chosen)
    finish(result, target, None, as_json, warning=_NOT_REFITTED)


_NOT_REFITTED = (
    "a plan says what goes, not how the rest is refitted: accuracy is not protected\n"
    "  fix:   evaluate the result, and fine-tune it"
)


@click.command()
@MODEL
@DEVICE
@SIZES
@JSON
@click.option("--members", is_flag=True, help="List every weight axis of every group.")
def inspect(model: Path, device: str, sizes: tuple[str, ...], as_json: bool, members: bool) -> None:
    """Show the channel groups of MODEL, what they cost, and why each pinned one is pinned."""
    from ..pipeline.prune import inspect as run
    from .show import inspection_dict, print_inspection

    with progress_shown():
        analysis = run(model, device=device, sizes=free_sizes(sizes))  # type: ignore[arg-type]
    if as_json:
        print_json(inspection_dict(analysis))
    else:
        print_inspection(analysis, members=members)


@click.command()
@OUTPUT
@NO_LATENCY
@JSON
def demo(output: Path | None, no_latency: bool, as_json: bool) -> None:
    """Prune the small trained model that comes with the package, and print its accuracy before and after."""
    from ..models import digits_data, digits_model
    from ..pipeline.prune import prune

    target = output or Path("digits.pruned.onnx")
    check_outputs([], target)
    with progress_shown() as progress:
        test, calibration = map(str, digits_data())
        result = prune(
            digits_model(),
            budget=0.5,
            calibration=calibration,
            evaluate=test,
            progress=progress,
            measure=not no_latency,
        )
    finish(result, target, None, as_json)


@click.command()
@MODEL
@click.option("--calibration", required=True, help="Folder or zip of images, .npz, .npy, or module:function.")
@click.option(
    "--samples", type=click.IntRange(min=1), default=1024, show_default=True, help="Calibration samples to use."
)
@IMAGES
@click.option("--criterion", help="Which channels go. Default: obs.")
@click.option("--reconstruct", help="none: what is left of the next layers is not refitted.")
@click.option(
    "--levels", default="25%,50%,75%", show_default=True, help="Shares of a group that go, one after another."
)
@SEED
@DEVICE
@SIZES
@JSON
def sensitivity(model: Path, as_json: bool, **options: Any) -> None:  # noqa: ANN401
    """Show how far the outputs of MODEL move when one group of channels alone loses 25, 50 or 75 %.

    Where the data have labels, how accurate it is then stands beside it.
    """
    from ..pipeline.prune import sensitivity as run
    from .scores import shares
    from .show import print_sensitivity, sensitivity_dict

    given = ("calibration", "samples", "criterion", "reconstruct", "seed", "device")
    chosen = {name: options[name] for name in given if options[name] is not None}
    images, sizes, levels = preprocessing(options), free_sizes(options["sizes"]), shares(options["levels"], "--levels")
    with progress_shown() as progress:
        analysis, found = run(model, progress=progress, sizes=sizes, preprocessing=images, levels=levels, **chosen)
    if as_json:
        print_json(sensitivity_dict(analysis, found))
    else:
        print_sensitivity(analysis, found, levels)


@click.command()
@click.argument("models", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option(
    "--seconds",
    type=click.FloatRange(min=0),
    default=5,
    show_default=True,
    help="How long to measure, all models together.",
)
@click.option("--threads", type=click.IntRange(min=1), default=1, show_default=True, help="Threads of one operator.")
@click.option("--batch", type=click.IntRange(min=1), default=1, show_default=True, help="Samples in one run.")
@click.option(
    "--per-node",
    is_flag=True,
    help="Show where the time of one model goes, and how well its latency at other widths is predicted.",
)
@DEVICE
@SIZES
@JSON
def bench(models: tuple[Path, ...], as_json: bool, per_node: bool, **options: Any) -> None:  # noqa: ANN401
    """Measure the latency of MODELS in ONNX Runtime, on the first one's random input, in turns."""
    if per_node:
        _bench_nodes(models, options, as_json)
    else:
        _bench_models(models, options, as_json)


def _bench_models(models: tuple[Path, ...], options: dict[str, Any], as_json: bool) -> None:
    from ..runtime.data.random_feeds import runnable_feeds
    from ..runtime.latency.batched import check_batch
    from ..runtime.measure.latency import compare, machine
    from .report.latencies import of_models

    device, threads = options["device"], options["threads"]
    with progress_shown() as progress:
        progress("measuring latency")
        sizes = free_sizes(options["sizes"])
        feeds = runnable_feeds(models[0], batch=options["batch"], sizes=sizes, device=device)
        check_batch(feeds, options["batch"])
        timings = compare(models, feeds, seconds=options["seconds"], device=device, threads=threads)
    shapes = {name: array.shape for name, array in feeds.items()}
    if as_json:
        rows = [{"model": str(m), "latency": t.wall, **asdict(t)} for m, t in zip(models, timings, strict=True)]
        print_json({"machine": machine(), "threads": threads, "inputs": shapes, "models": rows})
    else:
        _print(of_models([str(model) for model in models], timings, threads=threads, shapes=shapes))


def _bench_nodes(models: tuple[Path, ...], options: dict[str, Any], as_json: bool) -> None:
    from ..passes.errors import UsageError
    from ..pipeline.latency.within import timing_layers
    from ..runtime.latency.per_node import per_node
    from ..runtime.measure.latency import machine
    from .report.latencies import of_nodes

    if len(models) != 1:
        raise UsageError("--per-node looks at one model", where=" ".join(map(str, models)), fix="give one")
    with progress_shown() as progress:
        progress("reading the model")
        place = _place(options, timing_layers(progress))
        analysis = _analysis(models[0], options)
        found = per_node(analysis, place)
    shapes = {name: array.shape for name, array in analysis.feeds.items()}
    if as_json:
        context = {"model": str(models[0]), "machine": machine(), "threads": options["threads"]}
        print_json({**context, "batch": options["batch"], "inputs": shapes, **asdict(found)})
    else:
        _print(of_nodes(found, threads=options["threads"], shapes=shapes))


def _analysis(model: Path, options: dict[str, Any]) -> Analysis:
    from ..runtime.analysis import analyse
    from ..runtime.latency.batched import of_batch

    read = analyse(model, device=options["device"], sizes=free_sizes(options["sizes"]))
    return of_batch(read, options["batch"])


def _place(options: dict[str, Any], progress: Any) -> Any:  # noqa: ANN401 - imported late
    from ..runtime.latency.model import Place

    return Place(options["device"], options["threads"], progress)


def _print(lines: Iterable[RenderableType]) -> None:
    from .process.console import terminal

    out = terminal()
    for line in lines:
        out.print(line)


COMMANDS = (apply, bench, demo, evaluate, inspect, sensitivity)
