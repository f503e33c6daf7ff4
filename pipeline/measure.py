"""What criterion, allocation and refit need, measured or chosen on data: the one place that turns needs into runs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING

import numpy as np
import onnx
from threadpoolctl import threadpool_limits

from ..passes.algebra.moments import MomentsSet
from ..passes.algebra.moments_file import load_moments
from ..passes.channels.measured import check_moments
from ..passes.needs import OF_MOMENTS, needs_of
from ..passes.selection.allocate import select
from ..passes.selection.budget import Budget
from ..passes.selection.criteria.gradients.dcp import Dcp
from ..passes.selection.methods import Method
from ..passes.selection.ranking import Evidence, Ranking, Rankings
from ..passes.selection.tradeoff import savings
from ..runtime.analysis import analyse
from ..runtime.data.batches import Data, part
from ..runtime.data.open import LARGEST_BATCH
from ..runtime.data.sources import Batch
from ..runtime.effort import make_effort
from ..runtime.measure.calibrate import Calibration, calibrate
from ..runtime.measure.sensitivity import Levels, Sensitivities, measure_sensitivity
from ..runtime.processes.together import Alone, Together, together
from ..runtime.progress import counted
from ..runtime.select_on_pruned import select_on_pruned
from .run import Run

if TYPE_CHECKING:
    from ..runtime.torch.discrimination.stages import Discriminated

Removed = Mapping[str, tuple[int, ...]]

_SENSITIVITY_IMAGES, _SENSITIVITY_MACS = (64, 256), 64 << 30  # images, the fewest and the most; in one pass over them
_NEXT_TO_NOTHING = 16 << 30  # MACs of all runs of a measurement, a second or two: at least 64 images while it is below


def moments_of(run: Run) -> MomentsSet | None:
    """Moments of all consumers, from a file or measured on the data; None where nothing looks at them."""
    settings, data = run.settings, run.data
    if settings.moments is not None:
        moments = load_moments(settings.moments, run.analysis.graph.sha256())
        check_moments(run.analysis.groups.labelled, moments, str(settings.moments))
        return moments
    if data is None or not (run.strategy.may_use(OF_MOMENTS) or settings.save_moments is not None):
        return None
    data = data.first(make_effort(settings.effort).moments)
    group = _sharing(data)
    moments = calibrate(
        run.analysis.groups.labelled,
        data if group.count == 1 else data.picked(lambda number: number % group.count == group.rank),
        settings=Calibration(
            seed=settings.seed, device=settings.device, activations="activations" in needs_of(run.strategy.criterion)
        ),
        progress=counted(run.progress, "calibrating", "samples", of=(data.samples or 0) // group.count or None),
        group=group,
    )
    if settings.save_moments is not None:
        moments.save(settings.save_moments)
    return moments


def _sharing(data: Data) -> Together:
    """The processes that take turns with the batches: all, where each gets one at least."""
    group = together()
    enough = data.samples is not None and data.samples >= group.count * LARGEST_BATCH
    return group if enough else Alone()


def evidence_of(run: Run, moments: MomentsSet | None) -> Evidence:
    """What the criterion may look at; gradients are taken where it needs them."""
    return Evidence(run.analysis.groups, seed=run.settings.seed, moments=moments, gradients=_gradients(run))


def _gradients(run: Run) -> Mapping[str, np.ndarray] | None:
    """Of the groups' gates; the criterion's fields of the names of `Wanted` say of which loss. Needs torch."""
    criterion = run.strategy.criterion
    if "gradients" not in needs_of(criterion):
        return None
    assert run.data is not None, "make_strategy has looked"
    from ..runtime.torch.gates.gradients import Wanted, gate_gradients

    asked = {f.name: getattr(criterion, f.name) for f in fields(Wanted) if hasattr(criterion, f.name)}
    return gate_gradients(
        run.analysis.groups,
        run.data,
        replace(Wanted(**asked), seed=run.settings.seed),
        device=run.settings.device,
        progress=counted(run.progress, "taking gradients", "samples"),
    )


def sensitivities_of(
    run: Run, rankings: Mapping[str, Ranking], moments: MomentsSet | None, shares: Sequence[float] | None = None
) -> Sensitivities:
    """How far the outputs move when one of these groups alone is cut, refitted where there are moments.

    Those that may go entirely are also measured so, unless blocks are kept. shares: of a group's units, one after
    another, on all samples that have labels; else what the run's effort says.
    """
    assert run.data is not None, "make_strategy has looked"
    macs = run.analysis.cost.macs(run.analysis.cost.units)
    most = int(np.clip(_SENSITIVITY_MACS // max(macs, 1), *_SENSITIVITY_IMAGES))
    effort = make_effort(run.settings.effort if shares is None else "thorough")
    images, levels = effort.probed(run.data.samples or most, len(rankings))
    each = max(macs * len(rankings) * len(levels) // 2, 1)  # a level of a group runs half of the network, on average
    images = max(images, min(_SENSITIVITY_IMAGES[0], int(_NEXT_TO_NOTHING // each)))
    if shares is not None:
        levels = tuple(shares)
        most = max(most, run.data.samples or 0) if run.data.labelled else most
        images = most
    group, names = together(), list(rankings)
    found = measure_sensitivity(
        run.analysis.groups,
        {name: rankings[name] for name in names[group.rank :: group.count]},
        moments,
        _few(run.data, min(images, most)),
        levels=Levels(levels, _may_go(run) if shares is not None or _whole(run) else (), logits=shares is None),
        device=run.settings.device,
        progress=counted(run.progress, "measuring sensitivity", "groups"),
    )
    every = group.gathered(found)
    kind = next((one.kind for one in every if one.kind), "")
    values = {name: curve for one in every for name, curve in one.values.items()}
    right = {name: curve for one in every for name, curve in one.top1.items()}
    return Sensitivities(kind, {n: values[n] for n in names}, {n: right[n] for n in names if n in right})


def _whole(run: Run) -> bool:
    """Whether groups may go entirely: where that is not measured for want of time, they do not."""
    if run.settings.keep_blocks:
        return False
    if run.data is None or "sensitivity" not in needs_of(run.strategy.allocation):
        return True
    samples = run.data.samples
    return samples is None or make_effort(run.settings.effort).affords_whole(samples, len(run.analysis.groups.free))


def _may_go(run: Run) -> list[str]:
    if run.settings.keep_blocks:
        return []
    return [name for name, reason in run.analysis.cost.vanishing.reasons.items() if reason is None]


def _few(data: Data, samples: int) -> Iterator[Batch]:
    """So many samples; a batch is cut where the model leaves its size open."""
    for batch in data.first(samples):
        whole = data.fixed or batch.size <= samples
        yield batch if whole else part(batch, np.arange(samples))
        samples -= batch.size


def priced(run: Run, budget: Budget | None) -> Method:
    """The run's allocation, with the costs of a unit of each group in the unit of the budget where it needs them.

    One that weighs harm against costs may let groups go entirely, unless blocks are kept.
    """
    method = run.strategy.allocation
    if "costs" not in needs_of(method):
        return method
    costs = savings(run.analysis.cost, "macs" if budget is None else budget.kind)
    return replace(method, costs=costs, whole=_whole(run))  # type: ignore[type-var]


# ---- which units go


@dataclass(frozen=True, slots=True, eq=False)
class Selected:
    """removed: group -> its units that go; trained: the network that they are to be cut from, where it is another."""

    removed: Removed
    trained: onnx.ModelProto | None = None


def selected(
    run: Run,
    kept: np.ndarray,
    ranked_by: tuple[Evidence, Rankings],
    exclude: frozenset[str],
    budget: Budget | None = None,
) -> Selected:
    """The units that go.

    kept: (groups,), at most so many stay; ranked_by: what ranks groups that the criterion does not try out; exclude:
    the groups that stay whole; budget: within which a criterion that ends by itself has the widths that it likes.
    """
    groups, needs = run.analysis.groups, needs_of(run.strategy.criterion)
    chosen: Removed = {}
    trained = None
    if "samples" in needs:
        chosen = _on_pruned(run, kept)
    elif "training" in needs:
        chosen, trained = _by_training(run, kept, exclude, budget)
    rest = np.where([g.name in chosen for g in groups.groups], run.analysis.cost.units, kept)
    ranked = select(groups, rest, run.strategy.criterion, *ranked_by)
    both = {**ranked, **chosen}
    return Selected({g.name: both[g.name] for g in groups.groups if both.get(g.name)}, trained)


def trained_run(run: Run, model: onnx.ModelProto) -> Run:
    """The run on a network of the same graph with other weights; its results are compared with the given one."""
    before, settings = run.analysis, run.settings
    analysis = analyse(
        model, example=dict(before.feeds), device=settings.device, seed=settings.seed, inexact=settings.inexact
    )
    pinned = {group.name: group.pinned for group in before.groups.groups}
    groups = tuple(replace(group, pinned=pinned[group.name]) for group in analysis.groups.groups)
    analysis = replace(analysis, name=before.name, trial=before.trial, groups=replace(analysis.groups, groups=groups))
    return replace(run, analysis=analysis, plain=run.original)


def _on_pruned(run: Run, kept: np.ndarray) -> Removed:
    groups, settings = run.analysis.groups, run.settings
    assert run.data is not None, "make_strategy has looked"
    counts = {g.name: n for g, n in zip(groups.groups, kept.tolist(), strict=True) if n < g.units}
    with threadpool_limits(1):
        return select_on_pruned(
            groups,
            counts,
            run.data,
            Calibration(seed=settings.seed, device=settings.device),
            counted(run.progress, "choosing channels on the pruned network", "layers"),
        )


def _by_training(
    run: Run, kept: np.ndarray, exclude: frozenset[str], budget: Budget | None
) -> tuple[Removed, onnx.ModelProto]:
    """A criterion that ends by itself looks at every group that may be cut, without a bound at first.

    Where what it leaves is beyond the budget, one threshold for all groups, read off the losses on the way, gives the
    widths of a second time, in which nothing else ends a layer (budgets in MACs and parameters); others bind it by
    `kept`.
    """
    groups, cost, ends = run.analysis.groups, run.analysis.cost, run.strategy.ends
    counts = {
        g.name: n
        for g, n in zip(groups.groups, kept.tolist(), strict=True)
        if g.pinned is None and g.name not in exclude and (n < g.units or ends)
    }
    price = {"macs": cost.macs, "params": cost.params}.get("" if budget is None else budget.kind)
    if not ends or budget is None or price is None:
        found = _discriminated(run, counts)
        return found.removed, found.model
    from ..runtime.torch.discrimination.thresholds import widths_within

    units = {name: groups[name].units for name in counts}
    limit = budget.limit(price(cost.units))

    def measure(widths: Mapping[str, int]) -> float:
        return price(
            np.array([widths.get(g.name, n) for g, n in zip(groups.groups, kept.tolist(), strict=True)], np.int64)
        )

    found = _discriminated(run, units)
    if measure({name: units[name] - len(gone) for name, gone in found.removed.items()}) > limit:
        at_once = getattr(run.strategy.criterion, "at_once", 1)
        widths = widths_within(found.losses, units, at_once, measure, limit)
        found = _discriminated(run, counts if widths is None else {**counts, **widths}, ends=False)
    return found.removed, found.model


def _discriminated(run: Run, counts: Mapping[str, int], *, ends: bool = True) -> Discriminated:
    """The channels of so many each at most. ends: with fewer where the criterion ends by itself."""
    from ..runtime.torch.discrimination.stages import select_discriminating

    criterion = run.strategy.criterion
    assert isinstance(criterion, Dcp), "it is chosen by training"
    if not ends:
        criterion = Dcp(**{option.name: getattr(criterion, option.name) for option in fields(Dcp)})
    assert run.data is not None, "make_strategy has looked"
    return select_discriminating(
        run.analysis.groups,
        counts,
        run.data,
        criterion,
        seed=run.settings.seed,
        device=run.settings.device,
        progress=counted(run.progress, "choosing channels by training", "layers"),
    )
