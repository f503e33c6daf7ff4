"""Where passes and runtime meet: read, decide, write, in the order of docs/architecture.md."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace

from ..passes.errors import UsageError
from ..passes.graph.model import ModelLike
from ..passes.selection.budget import Budget, as_budget
from ..passes.selection.frames import Align
from ..passes.selection.methods import Method
from ..passes.selection.plans.plan import Plan
from ..passes.selection.ranking import Criterion
from ..runtime.analysis import Analysis, analyse
from ..runtime.data.open import DataSource
from ..runtime.data.preprocess import Preprocessing
from ..runtime.device import Device
from ..runtime.effort import NORMAL
from ..runtime.measure.metric import Evaluation, MetricLike
from ..runtime.measure.sensitivity import LEVELS, Sensitivities
from ..runtime.progress import Stage, silent
from .arguments import checked
from .decide import sensitivities
from .goal import Goal
from .job import prepare, smallest_within, within_budget
from .measure import moments_of
from .read import read, read_alone
from .settings import Settings, make_settings
from .write import Result, write

inspect = checked(analyse)


@checked
def prune(  # noqa: PLR0913 - each argument is a flag of the command line
    model: ModelLike,
    *,
    budget: Budget | float | str | None = None,
    preset: str | None = None,
    criterion: str | Criterion | None = None,
    allocation: str | Method | None = None,
    reconstruct: str | None = None,
    calibration: DataSource | None = None,
    samples: int = 1024,
    preprocessing: Preprocessing | None = None,
    moments: str | os.PathLike[str] | None = None,
    save_moments: str | os.PathLike[str] | None = None,
    align: Align = "auto",
    exclude: str | None = None,
    keep_blocks: bool = False,
    replace_head: str | None = None,
    inexact: bool = False,
    effort: str = NORMAL,
    seed: int = 0,
    device: Device = "auto",
    measure: bool = True,
    threads: int | None = 1,
    latency_batch: int = 1,
    sizes: Mapping[str, int] | None = None,
    evaluate: DataSource | None = None,
    evaluate_samples: int | None = None,
    metric: MetricLike | None = None,
    max_drop: float | str | None = None,
    smallest: str = "macs",
    progress: Stage = silent,
) -> Result:
    """Remove channels until the budget holds, prove the result against the original, refit and measure it.

    Args:
        model: the path of an .onnx file, its bytes, or a ModelProto.
        budget: what is kept: a Budget; a number or text is a share or a number of MACs (0.5, "50%", "300M"). Default:
            half of the MACs.
        preset: a strategy of a paper ("thinet", "li", "apoz"): says what is not said here.
        criterion: which channels go: a word such as "obs:swaps=20", or an object that ranks (docs/methods.md).
        allocation: how many go where: "uniform", "global", "error", "sensitivity", "trim",
            "amc:episodes=400".
        reconstruct: how what stays is refitted: "none", "bias", "channel", "full", "sequential", "blocks", "distill".
        calibration: images or arrays, see `runtime.data.open.open_data`; "synthetic" or "none".
        samples: calibration samples that are used at most.
        preprocessing: of images.
        moments: a file that `save_moments` wrote, instead of data.
        save_moments: where the measured moments are kept (.npz).
        align: kept counts are multiples of it; "auto": of what the hardware likes.
        exclude: a regular expression of the names of groups that stay whole.
        keep_blocks: whether every group keeps a unit; else blocks and branches may go entirely, where that costs least.
        replace_head: "gap": global average pooling and one linear layer in the place of the last layers.
        inexact: whether LayerNorm and the like lose channels as well.
        effort: how much is computed with data: "quick", "normal" or "thorough" (docs/methods.md).
        seed: of everything that is drawn.
        device: "auto", "cpu" or "cuda".
        measure: whether latency is measured.
        threads: of one operator while it is; None: all cores.
        latency_batch: samples in a run while it is, where the model leaves that open.
        sizes: values of free dimensions of the inputs, by name.
        evaluate: data to measure the accuracy on, before and after; with labels, unless the metric needs none.
        evaluate_samples: so many of them; all by default.
        metric: "top1", "top5", "agreement", "module:function", or a function: see `runtime.measure.metric`.
        max_drop: by how much the metric may fall, 0.01 or "1%". Without a budget the smallest model that keeps it is
            found; with one the run fails where the budget's model does not.
        smallest: what is smallest then: "macs", "params", "size" or "latency".
        progress: is told each stage, in words.

    Raises:
        AccuracyError: no model keeps the metric, or the budget's does not; `values["plan"]` is what was tried last.
        UsageError, ReadError: what is asked for makes no sense, or cannot be read.
        BudgetError: the budget cannot be met; the message says what can.
        ProofError: the result does not compute what it must.
    """
    limit = as_budget(budget)
    evaluation = Evaluation(evaluate, evaluate_samples, preprocessing, seed, device)
    goal = Goal(evaluation, metric, max_drop, smallest)
    settings = Settings(
        preset=preset,
        criterion=criterion,
        allocation=allocation,
        reconstruct=reconstruct,
        calibration=calibration,
        samples=samples,
        preprocessing=preprocessing,
        moments=moments,
        save_moments=save_moments,
        align=align,
        exclude=exclude,
        keep_blocks=keep_blocks,
        replace_head=replace_head,
        inexact=inexact,
        effort=effort,
        seed=seed,
        device=device,
        measure=measure,
        threads=threads,
        latency_batch=latency_batch,
    )
    job = prepare(model, settings, goal, sizes, progress)
    if job.limit is not None and max_drop is not None and limit is None:
        return smallest_within(job, job.limit, smallest)
    return within_budget(job, limit)


@checked
def sensitivity(  # noqa: PLR0913 - each argument is a flag of the command line
    model: ModelLike,
    *,
    calibration: DataSource | None = None,
    samples: int = 1024,
    preprocessing: Preprocessing | None = None,
    criterion: str | Criterion | None = None,
    reconstruct: str | None = None,
    exclude: str | None = None,
    inexact: bool = False,
    seed: int = 0,
    device: Device = "auto",
    sizes: Mapping[str, int] | None = None,
    levels: Sequence[float] = LEVELS,
    progress: Stage = silent,
) -> tuple[Analysis, Sensitivities]:
    """What was read, and how far the outputs move when one group alone loses a share of its units.

    The units go in the order of the criterion, and what is left of the group's consumers is refitted on the moments,
    unless reconstruct="none". levels: the shares. Data with labels tell the accuracy as well. The other arguments are
    those of `prune`. Raises UsageError where there are no data, or for a level that is no share.
    """
    wrong = [level for level in levels if not 0 < level < 1]
    if wrong or not len(levels):
        raise UsageError(
            f"{wrong[0] if wrong else 'nothing'} is no share of a group",
            where="--levels",
            fix="give some such as 10%,50%,90%",
        )
    settings = Settings(
        criterion=criterion,
        reconstruct=reconstruct,
        calibration=calibration,
        samples=samples,
        preprocessing=preprocessing,
        exclude=exclude,
        inexact=inexact,
        seed=seed,
        device=device,
    )
    run = read(model, make_settings(settings), progress, sizes)
    if run.data is None:
        raise UsageError("sensitivity is measured on data", where="--calibration", fix="give images or arrays")
    return run.analysis, sensitivities(run, moments_of(run), sorted(set(levels)))


@checked
def apply(  # noqa: PLR0913 - each argument is a flag of the command line
    model: ModelLike,
    plan: Plan | str | os.PathLike[str],
    *,
    replace_head: str | None = None,
    inexact: bool = False,
    seed: int = 0,
    device: Device = "auto",
    measure: bool = True,
    threads: int | None = 1,
    latency_batch: int = 1,
    progress: Stage = silent,
) -> Result:
    """Redo a plan, on its model or another checkpoint of the same graph, with proof and measurement.

    plan: a Plan, or the path of a plan.json. The other arguments are those of `prune`. Raises ReadError for what cannot
    be read, UsageError where plan and model do not belong together, ProofError as `prune`.
    """
    chosen = Settings(
        replace_head=replace_head,
        inexact=inexact,
        seed=seed,
        device=device,
        measure=measure,
        threads=threads,
        latency_batch=latency_batch,
    )
    settings = make_settings(chosen)
    loaded = plan if isinstance(plan, Plan) else Plan.load(plan)
    run = read_alone(model, settings, progress, extra=loaded.extra)
    return write(run, replace(loaded, model=run.analysis.name, reconstruct="none"))
