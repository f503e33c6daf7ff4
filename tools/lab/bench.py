"""What a run costs, measured so that anybody can repeat it: `python -m onnx_prune.tools.lab.bench WHAT MODEL`.

`pass`: load to save in one process, without latency and without interpreter start, beside a peer if it is installed.
`command`: the whole command in a process of its own, with its peak memory. `latency`: models on one thread, in turns.
`calibrate`: moments of all layers beside a plain forward pass, and what choosing and refitting cost after it.
`calibrated`: a whole pruning with data beside a plain forward pass.
`finetune`: an epoch on the graph beside one of the same network written in torch by hand.
Times are medians; wall time suffers from whatever else the machine does, CPU time less.
"""

from __future__ import annotations

import contextlib
import importlib
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

import click
from rich.console import Console
from rich.table import Table
from threadpoolctl import threadpool_limits

from ..options import IMAGES, preprocessing

if TYPE_CHECKING:
    from ...passes.selection.ranking import Evidence

Run = tuple[float, float]  # seconds: wall, CPU


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table: what ran, its medians in seconds, and its peak memory in bytes where that was measured."""

    name: str
    wall: float
    cpu: float
    peak: int | None = None


_model = click.argument("model", type=click.Path(path_type=Path, exists=True, dir_okay=False))
_runs = click.option("--runs", default=7, show_default=True, help="Measured runs, after one that is not.")


@click.group()
def bench() -> None:
    """Times and memory of onnx-prune."""


@bench.command("pass")
@_model
@_runs
@click.option("--macs", default="50%", show_default=True)
@click.option("--criterion", default="l1", show_default=True)
def pass_command(model: Path, runs: int, macs: str, criterion: str) -> None:
    """Load, label, choose, cut, prove and save MODEL; onnxsim's structured pruning in turns with it, if installed."""
    from ...passes.selection.budget import Budget
    from ...pipeline.prune import prune

    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / model.name

        def ours() -> None:
            prune(model, budget=Budget(macs=macs), criterion=criterion, measure=False).save(target)

        jobs = {"onnx-prune": ours}
        peer = _onnxsim(model, target)
        if peer is not None:
            jobs["onnxsim apply_structured_pruning"] = peer
        _show(f"pass, load to save: {model.name}", _in_turns(jobs, runs))


@bench.command("command", context_settings={"ignore_unknown_options": True})
@_model
@_runs
@click.argument("options", nargs=-1, type=click.UNPROCESSED)
def whole_command(model: Path, runs: int, options: tuple[str, ...]) -> None:
    """The whole command `onnx-prune MODEL OPTIONS`, interpreter start and latency measurement included."""
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / model.name
        command = [sys.executable, "-m", "onnx_prune.tools.cli", str(model), "-o", str(target), "--json", *options]
        measured = [child(command) for _ in range(runs + 1)][1:]
    row = Row(
        " ".join(["onnx-prune", model.name, *options]),
        median(wall for wall, _, _ in measured),
        median(cpu for _, cpu, _ in measured),
        max(peak for _, _, peak in measured),
    )
    _show(f"whole command: {model.name}, {model.stat().st_size / 1e6:.1f} MB", [row])


@bench.command()
@click.argument("models", nargs=-1, required=True, type=click.Path(path_type=Path, exists=True, dir_okay=False))
@click.option("--runs", default=100, show_default=True)
def latency(models: tuple[Path, ...], runs: int) -> None:
    """Run MODELS in ONNX Runtime in turns, on random input and one thread, so that CPU time is that of the work."""
    from ...runtime.data.random_feeds import runnable_feeds
    from ...runtime.session import open_session

    feeds = runnable_feeds(models[0], batch=1)
    sessions = {str(model): open_session(model, device="cpu", threads=1) for model in models}
    jobs = {name: partial(session.run, feeds) for name, session in sessions.items()}
    _show("latency, one thread", _in_turns(jobs, runs), unit=1e-3)


@bench.command()
@_model
@click.argument("data")
@_runs
@click.option("--samples", default=2048, show_default=True)
@IMAGES
def calibrate(model: Path, data: str, runs: int, samples: int, **options: Any) -> None:  # noqa: ANN401
    """One calibration of MODEL on DATA, in turns with a plain forward pass over the same decoded images."""
    from ...passes.selection.ranking import Evidence
    from ...runtime.analysis import analyse
    from ...runtime.data.inputs import model_inputs
    from ...runtime.data.open import open_data
    from ...runtime.measure.calibrate import calibrate as measure
    from ...runtime.session import open_session

    analysis = analyse(model)
    inputs = model_inputs(analysis.graph.source)
    batches = list(open_data(data, inputs, preprocessing(options), samples=samples))
    labelled = analysis.groups.labelled

    def forward() -> None:
        session = open_session(analysis.graph.source)
        for batch in batches:
            session.run(batch.feeds)

    rows = _in_turns({"forward": forward, "calibrate": lambda: measure(labelled, batches)}, runs)
    moments = measure(labelled, batches)
    evidence = Evidence(analysis.groups, moments=moments)
    rows += [_choice(word, evidence) for word in ("thinet", "obs")]
    _show(f"calibration: {model.name}, {sum(len(b.feeds[inputs[0].name]) for b in batches)} images", rows)


@bench.command()
@_model
@click.argument("data")
@click.option("--samples", default=2048, show_default=True)
@click.option("--effort", default="normal", show_default=True)
@click.option("--align", default=1, show_default=True)
@IMAGES
def calibrated(model: Path, data: str, samples: int, effort: str, align: int, **options: Any) -> None:  # noqa: ANN401
    """One pruning of MODEL with DATA, load to report, beside a forward pass over as many images on one thread."""
    from ...passes.graph.model import load
    from ...pipeline.prune import prune
    from ...runtime.data.inputs import model_inputs
    from ...runtime.data.open import open_data
    from ...runtime.measure.evaluate import outputs

    how = preprocessing(options)
    batches = list(open_data(data, model_inputs(load(model).source), how, samples=samples))
    plain = _timed(lambda: list(outputs(str(model), batches, threads=1)))
    chosen = {"samples": samples, "preprocessing": how, "effort": effort, "align": align}
    whole = _timed(lambda: prune(model, calibration=data, **chosen))
    rows = [Row("a forward pass", *plain), Row(f"{effort} effort", *whole)]
    _show(f"calibrated: {model.name}, {samples} images", rows)


def _choice(word: str, evidence: Evidence) -> Row:
    """All groups ranked by a criterion, half of each cut, and what is left refitted once."""
    from ...passes.channels.apply_removal import apply_removal
    from ...passes.rewrite.one_shot import refit_once
    from ...passes.selection.criteria import make_criterion
    from ...passes.selection.ranking import rank_groups

    groups, moments = evidence.groups, evidence.moments
    assert moments is not None

    def choose() -> None:
        rankings = rank_groups(make_criterion(word), evidence)
        removed = groups.removed_labels({g.name: rankings[g.name].order[: g.units // 2] for g in groups.free})
        refit_once(groups.labelled, removed, apply_removal(groups.labelled, removed), moments, "full")

    with threadpool_limits(1):  # as in pipeline/decide.py
        return Row(f"{word}, all groups, and a full refit", *_timed(choose))


@bench.command()
@click.option("--depth", default=56, show_default=True, help="Of a ResNet for CIFAR.")
@click.option("--steps", default=20, show_default=True, help="An epoch of so many steps of 128 images.")
@click.option("--runs", default=3, show_default=True, help="Measured epochs, after one that is not.")
def finetune(depth: int, steps: int, runs: int) -> None:
    """A fine-tuning epoch of a ResNet on its graph, in turns with one of a ResNet that is written in torch by hand."""
    from ...models.resnet import resnet_cifar
    from ...runtime.torch.training.recipe import Recipe
    from .hand_written import epochs_to_compare

    recipe = Recipe(augment=("crop", "flip"), rate=1e-3)
    jobs = epochs_to_compare(resnet_cifar(depth), depth, recipe, steps)  # type: ignore[arg-type]
    _show(f"fine-tuning: ResNet-{depth}, {steps} steps of {recipe.batch} images", _in_turns(jobs, runs))


# Run in a small process of its own: on Linux a child's peak starts with the memory of the process it was forked from.
_LAUNCH = """
import os, subprocess, sys, time
start = time.perf_counter()
process = subprocess.Popen(sys.argv[1:], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
_, status, usage = os.wait4(process.pid, 0)
wall = time.perf_counter() - start
process.returncode = os.waitstatus_to_exitcode(status)
print(process.returncode, wall, usage.ru_utime + usage.ru_stime, usage.ru_maxrss)
"""


def child(command: list[str]) -> tuple[float, float, int]:
    """Run a command to its end: seconds of wall and CPU time, and its peak resident memory in bytes. POSIX only.

    Raises click.ClickException where it fails.
    """
    launcher = [sys.executable, "-c", _LAUNCH, *command]
    printed = subprocess.run(launcher, check=True, capture_output=True, text=True).stdout.split()  # noqa: S603 - ours
    if int(printed[0]):
        raise click.ClickException(f"exit code {printed[0]} from: {' '.join(command)}")
    unit = 1 if sys.platform == "darwin" else 1024
    return float(printed[1]), float(printed[2]), int(printed[3]) * unit


def _in_turns(jobs: Mapping[str, Callable[[], object]], runs: int) -> list[Row]:
    """Medians of each job, all of them once unmeasured, then in turns, so that noise falls on all alike."""
    rounds = [{name: _timed(job) for name, job in jobs.items()} for _ in range(runs + 1)][1:]
    return [Row(name, median(r[name][0] for r in rounds), median(r[name][1] for r in rounds)) for name in jobs]


def _timed(job: Callable[[], object]) -> Run:
    wall, cpu = time.perf_counter(), time.process_time()
    job()
    return time.perf_counter() - wall, time.process_time() - cpu


def _onnxsim(model: Path, target: Path) -> Callable[[], None] | None:
    """The peer's pass from file to file at the same kept share of channels, which is not the same share of MACs."""
    with contextlib.suppress(ImportError):
        import onnx

        peer = importlib.import_module("onnxsim.pruning")

        def run() -> None:
            onnx.save(peer.apply_structured_pruning(str(model), sparsity=0.3, importance_norm="l1"), target)

        return run
    return None


def _show(title: str, rows: list[Row], unit: float = 1.0) -> None:
    word = "s" if unit == 1 else "ms"
    table = Table(title=title, title_justify="left", show_edge=False, pad_edge=False)
    table.add_column("", overflow="fold")
    for heading in ("wall", "CPU", "peak memory", "CPU ratio"):
        table.add_column(heading, justify="right")
    for row in rows:
        peak = "" if row.peak is None else f"{row.peak / 1e6:.0f} MB"
        ratio = f"{row.cpu / rows[0].cpu:.2f}" if len(rows) > 1 else ""
        table.add_row(row.name, f"{row.wall / unit:.3f} {word}", f"{row.cpu / unit:.3f} {word}", peak, ratio)
    Console(highlight=False).print(table)


if __name__ == "__main__":
    bench()
