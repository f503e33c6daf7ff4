"""`onnx-prune bench`: how long models take, and where the time of one goes."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from .endings import print_json
from .options import DEVICE, JSON, SIZES, free_sizes
from .progress import progress_shown

if TYPE_CHECKING:
    from ..runtime.analysis import Analysis


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
    from ..runtime.measure.latency import compare, machine
    from .show_latency import print_latencies

    device, threads = options["device"], options["threads"]
    with progress_shown() as progress:
        progress("measuring latency")
        sizes = free_sizes(options["sizes"])
        feeds = runnable_feeds(models[0], batch=options["batch"], sizes=sizes, device=device)
        timings = compare(models, feeds, seconds=options["seconds"], device=device, threads=threads)
    if as_json:
        rows = [{"model": str(m), "latency": t.wall, **asdict(t)} for m, t in zip(models, timings, strict=True)]
        print_json({"machine": machine(), "threads": threads, "models": rows})
    else:
        print_latencies([str(model) for model in models], timings)


def _bench_nodes(models: tuple[Path, ...], options: dict[str, Any], as_json: bool) -> None:
    from ..passes.errors import UsageError
    from ..pipeline.latency.within import timing_layers
    from ..runtime.latency.per_node import per_node
    from ..runtime.measure.latency import machine
    from .show_latency import print_nodes

    if len(models) != 1:
        raise UsageError("--per-node looks at one model", where=" ".join(map(str, models)), fix="give one")
    with progress_shown() as progress:
        progress("reading the model")
        place = _place(options, timing_layers(progress))
        analysis = _analysis(models[0], options)
        found = per_node(analysis, place)
    if as_json:
        context = {"model": str(models[0]), "machine": machine(), "threads": options["threads"]}
        print_json({**context, "batch": options["batch"], **asdict(found)})
    else:
        print_nodes(found, threads=options["threads"], batch=options["batch"])


def _analysis(model: Path, options: dict[str, Any]) -> Analysis:
    from ..runtime.analysis import analyse
    from ..runtime.latency.batched import of_batch

    read = analyse(model, device=options["device"], sizes=free_sizes(options["sizes"]))
    return of_batch(read, options["batch"])


def _place(options: dict[str, Any], progress: Any) -> Any:  # noqa: ANN401 - imported late
    from ..runtime.latency.model import Place

    return Place(options["device"], options["threads"], progress)
