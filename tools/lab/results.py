"""Criteria beside one another without fine-tuning: `python -m onnx_prune.tools.lab.results` fills docs/results.md.

Half of the MACs of a ResNet trained on CIFAR-10 go; each criterion chooses which channels, each kind of reconstruction
refits what stays, and all 10,000 test images are counted. Rows are kept as JSON lines beside the page, and an
interrupted run goes on where it stopped.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path

import click
from threadpoolctl import threadpool_limits

from ...passes.algebra.moments import MomentsSet
from ...passes.channels.apply_removal import apply_removal
from ...passes.graph.export import to_model
from ...passes.rewrite.one_shot import KINDS, refit_once
from ...passes.selection.budget import Budget
from ...passes.selection.plan import Plan, removed_from_plan
from ...pipeline.decide import decide
from ...pipeline.read import JUDGED
from ...pipeline.run import Run
from ...pipeline.settings import Settings, make_strategy
from ...runtime.analysis import Analysis, analyse
from ...runtime.data.inputs import model_inputs
from ...runtime.data.open import Data, open_data
from ...runtime.data.preprocess import Preprocessing
from ...runtime.measure.calibrate import Calibration, calibrate
from ...runtime.measure.evaluate import accuracy
from ...runtime.progress import silent
from ...runtime.reconstruct import refit_sequentially

MODELS = ("resnet56-cifar10", "resnet20-cifar10")
CRITERIA = (
    "random",
    "l1",
    "l2",
    "fpgm",
    "apoz",
    "mean-activation",
    "nisp",
    "taylor:form=activation",
    "taylor",
    "fisher",
    "ccp",
    "ccp:labels=no",
    "ccp-ac",
    "fluctuation",
    "lasso",
    "thinet-omp",
    "thinet",
    "obs",
)
_DEFAULT = ("sensitivity", "sequential")  # allocation and reconstruction where there are data
_PREPROCESSING = Preprocessing(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
_POSITIONS = 32  # an image, as the pipeline refits
_KINDS = tuple(kind for kind in KINDS if kind not in ("blocks", "distill"))  # these have a table of their own
_BEGIN, _END = "<!-- table: python -m onnx_prune.tools.lab.results -->", "<!-- end of table -->"
_PAGE = f"""# Results

Half of the MACs of a ResNet trained on CIFAR-10 go, without fine-tuning. Top-1 in per cent on the 10,000 test images;
calibration on 1,024 images of the training set, whose labels the criteria on gradients use. In the first columns every
criterion has the same widths (`--allocation uniform`, residual streams whole), so that only the choice of channels
differs, and what stays is refitted as the heading says; the last column is what a run does by default. See
[methods](methods.md) for the words. Made by `python -m onnx_prune.tools.lab.results --shared ../shared`.

{_BEGIN}
{_END}
"""


@dataclass(frozen=True, slots=True)
class Row:
    """One measurement; the original is the row of the criterion "".

    top1: share of the test images
    macs: share that is kept
    """

    model: str
    criterion: str
    allocation: str
    reconstruct: str
    top1: float
    macs: float = 1.0

    @property
    def key(self) -> tuple[str, str, str, str]:
        return self.model, self.criterion, self.allocation, self.reconstruct


@click.command()
@click.option(
    "--shared",
    type=click.Path(path_type=Path, file_okay=False, exists=True),
    default="../shared",
    envvar="ONNX_PRUNE_SHARED",
    show_default=True,
)
@click.option("--model", "models", type=click.Choice(MODELS), multiple=True, help="Models; ResNet-56 by default.")
@click.option("--criterion", "criteria", multiple=True, help="Criteria; all of the table by default.")
@click.option("--samples", default=1024, show_default=True, help="Images of the training set.")
@click.option("--tests", type=int, help="Images of the test set, for a quick look; all by default.")
@click.option("-o", "--output", type=click.Path(path_type=Path, dir_okay=False), default="docs/results.md")
def results(
    shared: Path, models: Sequence[str], criteria: Sequence[str], samples: int, tests: int | None, output: Path
) -> None:
    """Run what is missing, and write the tables.

    Rows do not say how many images they were made with: give other numbers another page.
    """
    kept = output.with_suffix(".jsonl")
    rows = read_rows(kept)
    for model in models or MODELS[:1]:
        for row in missing(Experiment(shared, model, samples, tests), criteria or CRITERIA, rows):
            rows[row.key] = row
            with kept.open("a") as lines:
                lines.write(json.dumps(asdict(row)) + "\n")
            click.echo(f"{' '.join(row.key)}: {row.top1:.2%}", err=True)
            write_page(output, rows)
    write_page(output, rows)


@dataclass
class Experiment:
    """One model with its data, all in memory: calibration images of the training set, and those of the test set.

    tests: so many of the latter, all of them by default.
    """

    shared: Path
    model: str
    samples: int = 1024
    tests: int | None = None
    seed: int = 0

    @cached_property
    def analysis(self) -> Analysis:
        return analyse(self.shared / "models" / f"{self.model}.onnx")

    @cached_property
    def data(self) -> Data:
        return self._open("train", self.samples)

    @cached_property
    def test(self) -> Data:
        return self._open("test", self.tests)

    @cached_property
    def moments(self) -> MomentsSet:
        how = Calibration(seed=self.seed, activations=True)
        return calibrate(self.analysis.groups.labelled, self.data, settings=how)

    @cached_property
    def streams(self) -> str:
        """The groups that several layers make, as a regular expression: they stay whole where the cut is uniform."""
        return "|".join(re.escape(g.name) for g in self.analysis.groups.free if len(g.produced) > 1)

    def _open(self, part: str, samples: int | None) -> Data:
        path = self.shared / "data" / f"cifar10-{part}.zip"
        inputs = model_inputs(self.analysis.graph.source)
        aside = JUDGED if part == "train" else 0  # as a run of the pipeline does
        data = open_data(str(path), inputs, _PREPROCESSING, samples=samples, seed=self.seed, held_out=aside)
        batches = list(data)
        return replace(data, batches=lambda: iter(batches))

    def plan(self, criterion: str, allocation: str) -> Plan:
        """Half of the MACs; `uniform` spares the residual streams, as the default does by itself."""
        chosen = Settings(
            criterion=criterion,
            allocation=allocation,
            reconstruct="sequential",
            exclude=self.streams if allocation == "uniform" else None,
            seed=self.seed,
            align=1,  # as all rows of the page
        )
        run = Run(self.analysis, chosen, make_strategy(chosen, data=True), silent, start=0.0, data=self.data)
        return decide(run, Budget(macs=0.5), self.moments)

    def top1(self, plan: Plan | None, kind: str) -> float:
        """Of the original, or of the model that the plan and this refit make."""
        if plan is None:
            return accuracy(self.analysis.graph.source, self.test, threads=1).top1
        labelled, removed = self.analysis.groups.labelled, removed_from_plan(self.analysis.groups, plan)
        cut = apply_removal(labelled, removed)
        with threadpool_limits(1):
            if kind == "sequential":
                how = Calibration(positions=_POSITIONS, seed=self.seed)
                refit_sequentially(labelled, removed, cut, self.data, how)
            elif kind != "none":
                refit_once(labelled, removed, cut, self.moments, kind)
        return accuracy(to_model(cut), self.test, threads=1).top1


def missing(
    experiment: Experiment, criteria: Sequence[str], rows: dict[tuple[str, str, str, str], Row]
) -> Iterator[Row]:
    """What is not there yet: the original, each criterion at equal widths, and with the default allocation."""
    name = experiment.model
    if (name, "", "", "") not in rows:
        yield Row(name, "", "", "", experiment.top1(None, "none"))
    jobs = [(c, "uniform", _KINDS) for c in criteria] + [(c, _DEFAULT[0], _DEFAULT[1:]) for c in criteria]
    for criterion, allocation, kinds in jobs:
        wanted = [kind for kind in kinds if (name, criterion, allocation, kind) not in rows]
        if not wanted:
            continue
        plan = experiment.plan(criterion, allocation)
        for kind in wanted:
            top1 = experiment.top1(plan, kind)
            yield Row(name, criterion, allocation, kind, top1, plan.macs[1] / plan.macs[0])


def read_rows(path: Path) -> dict[tuple[str, str, str, str], Row]:
    """The rows of that file by their keys; none where there is no file."""
    lines = path.read_text().splitlines() if path.exists() else []
    rows = [Row(**json.loads(line)) for line in lines]
    return {row.key: row for row in rows}


def write_page(path: Path, rows: dict[tuple[str, str, str, str], Row]) -> None:
    """Put the tables between the marks of the page, whose other text stays; a page of its own where there is none."""
    text = path.read_text() if path.exists() else _PAGE
    before, _, rest = text.partition(_BEGIN)
    _, _, after = rest.partition(_END)
    path.write_text(f"{before}{_BEGIN}\n\n{tables(rows)}\n{_END}{after}")


def tables(rows: dict[tuple[str, str, str, str], Row]) -> str:
    """One table a model, as Markdown."""
    columns = [("uniform", kind) for kind in _KINDS] + [_DEFAULT]
    heads = [*_KINDS, f"`{_DEFAULT[0]}`, {_DEFAULT[1]}"]
    parts = []
    for model in MODELS:
        named = dict.fromkeys(row.criterion for row in rows.values() if row.model == model and row.criterion)
        if not named:
            continue
        order = sorted(named, key=lambda c: CRITERIA.index(c) if c in CRITERIA else len(CRITERIA))
        base = rows.get((model, "", "", ""))
        title = f"{model}: {base.top1:.2%} before" if base else model
        lines = [f"| {title} | {' | '.join(heads)} |", f"|---|{'---|' * len(heads)}"]
        for criterion in order:
            cells = [rows.get((model, criterion, *column)) for column in columns]
            lines.append(f"| `{criterion}` | {' | '.join(f'{100 * r.top1:.2f}' if r else '' for r in cells)} |")
        parts.append("\n".join(lines) + "\n")
    return "\n".join(parts)


if __name__ == "__main__":
    results()
