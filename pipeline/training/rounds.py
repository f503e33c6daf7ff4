"""Which cuts and trainings a schedule comes to: at once, in steps, layer by layer, by trimming, or softly."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from itertools import groupby
from typing import TYPE_CHECKING, Any, Literal

import onnx

from ...passes.errors import UsageError
from ...passes.graph.spill import file_bytes
from ...passes.selection.budget import Budget
from ...passes.selection.criteria import make_criterion
from ...passes.selection.layers import blocks_of_groups
from ...passes.selection.plans.plan import PlannedGroup
from ...passes.selection.presets import Preset, make_preset
from ...passes.selection.words import word
from ...runtime.analysis import analyse
from ...runtime.progress import Stage
from ..prune import prune

if TYPE_CHECKING:
    from ...runtime.torch.training.recipe import Recipe

Kind = Literal["once", "steps", "layers", "trim", "soft"]
KINDS = ("once", "steps", "layers", "trim", "soft")
_RELATIVE = ("macs", "params", "size")  # budgets that can be approached in steps


@dataclass(frozen=True, slots=True)
class Schedule:
    """How cuts and training take turns.

    once: one cut, then the training.
    steps: `steps` cuts, each followed by the training; what is kept goes down geometrically. Where the recipe says
        `updates`, so many steps follow each cut but the last, and its epochs the last (Molchanov et al., ICLR 2017,
        section 2: few maps, a few updates, again).
    layers: the widths of one cut, a group or residual block at a time from the input on, one epoch after each and the
        whole training after the last (ThiNet, Luo et al. 2017, sections 3.3 and 4).
    trim: `steps` times the units go whose share of zeros is above mean + one standard deviation of their layer (Network
        Trimming, Hu et al. 2016, section 3).
    soft: the whole network is trained; after each epoch the filters of smallest l2 norm of every convolution become
        zero and may regrow, and in the end they are cut (Soft Filter Pruning, He et al. 2018). The preset is sfp: where
        layers add up a residual stream each loses filters of its own, and the stream keeps its width.
    """

    kind: Kind = "once"
    steps: int = 1

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise UsageError(f"there is no '{self.kind}'", where="--schedule", fix=f"choose one of {', '.join(KINDS)}")
        if self.steps < 1 or (self.steps > 1 and self.kind not in ("steps", "trim")):
            raise UsageError(
                f"{self.steps} steps of '{self.kind}'", where="--steps", fix="give --schedule steps or trim"
            )

    def check(self, settings: Mapping[str, Any]) -> None:
        """Raise UsageError for what these settings of `prune` do not go with.

        A preset that puts nodes of its own into the graph (passes/channels/extras.py) does so in one cut: after a
        second one the groups would be others than those of the plan.
        """
        if self.kind not in {"once", "layers"} and settings.get("replace_head"):
            raise UsageError(
                f"'{self.kind}' does not replace the head",
                where="--replace-head",
                fix="give --schedule once or layers",
            )
        preset = settings.get("preset")
        implied = None if preset is None else make_preset(preset)
        extra = None if implied is None else implied.extra
        fitting = {None: KINDS, "samplers": ("once",), "placers": ("once", "soft")}[extra]
        if self.kind not in fitting:
            raise UsageError(
                f"'{preset}' is one cut, before which the graph gets channel {extra}",
                where=f"--schedule {self.kind}",
                fix=f"give --schedule {' or '.join(fitting)}",
            )
        asked = settings.get("criterion") or (implied and implied.criterion)
        said = None if asked is None else word(make_criterion(asked))
        norms = {None, "l2"} if settings.get("criterion") else {None, "l1", "l2"}  # a preset of norms says which layers
        if self.kind == "soft" and said not in norms:
            raise UsageError(
                f"'soft' zeroes the filters of least l2 norm, and would not look at '{said}'",
                where="--criterion" if settings.get("criterion") else f"--preset {preset}",
                fix="leave it out, or give --schedule once",
            )


@dataclass(frozen=True, slots=True)
class Round:
    """One cut, and the training that follows it.

    budget: of the cut
    recipe: of the training
    settings: of `prune`
    judged: whether its best epoch is looked for on the evaluation data
    """

    budget: Budget | None
    recipe: Recipe
    settings: Mapping[str, Any]
    judged: bool = True


def planned_rounds(
    schedule: Schedule,
    original: onnx.ModelProto,
    budget: Budget | None,
    recipe: Recipe,
    settings: Mapping[str, Any],
    *,
    progress: Stage,
) -> list[Round]:
    """The rounds of every schedule but soft.

    Raises UsageError where the budget cannot be approached in steps, or where each training would begin from nothing.
    """
    if recipe.scratch and schedule.kind != "once":
        raise UsageError(
            f"'{schedule.kind}' builds on what was trained before",
            where="--scratch",
            fix="give --schedule once or soft",
        )
    if schedule.kind == "layers":
        return _by_layers(original, budget, recipe, settings, progress)
    if schedule.kind == "trim":
        return [Round(budget, recipe, {"preset": "apoz", **settings})] * schedule.steps
    if schedule.steps == 1:
        return [Round(budget, recipe, settings)]
    *between, last = _shares(original, budget or Budget(), schedule.steps)
    some = replace(recipe.between(), updates=recipe.updates) if recipe.updates else recipe
    rounds = [Round(share, some, settings, judged=not recipe.updates) for share in between]
    return [*rounds, Round(last, replace(recipe, updates=0), settings)]


def _shares(original: onnx.ModelProto, budget: Budget, steps: int) -> list[Budget]:
    """Budgets of which each keeps the same share of what the one before has left."""
    if budget.kind not in _RELATIVE:
        raise UsageError(
            f"--{budget.kind} is not approached in steps",
            where="--schedule steps",
            fix="give --macs, --params or --size",
        )
    whole = _whole(original, budget.kind)
    share = budget.limit(whole) / whole
    limits = [whole * share ** ((step + 1) / steps) for step in range(steps)]
    return [Budget(**{budget.kind: round(limit)}) for limit in limits]


def _whole(original: onnx.ModelProto, kind: str) -> float:
    if kind == "size":
        return float(file_bytes(original))
    cost = analyse(original).cost
    return float(getattr(cost, kind)(cost.units))


def _by_layers(
    original: onnx.ModelProto, budget: Budget | None, recipe: Recipe, asked: Mapping[str, Any], progress: Stage
) -> list[Round]:
    """A round a layer, or a residual block: both of its inner layers go together, as in ThiNet."""
    settings = {**asked, "measure": False, "replace_head": None}
    plan = prune(original, budget=budget, progress=progress, **settings).plan
    block = blocks_of_groups(analyse(original).groups)
    cut = [group for group in plan.groups if group.removed]
    parts = [list(part) for _, part in groupby(cut, lambda group: block.get(group.name, group.name))]
    strategy = _of_known_widths(asked, make_preset(asked.get("preset") or "thinet"))
    between = Round(None, recipe.between(), {**settings, **strategy})
    rounds = [replace(between, budget=exact_widths(part)) for part in parts]
    head = {"replace_head": asked.get("replace_head")}
    return [*rounds[:-1], replace(rounds[-1], recipe=recipe, settings={**between.settings, **head})]


def _of_known_widths(settings: Mapping[str, Any], preset: Preset) -> dict[str, Any]:
    """Criterion and refit of widths that are known: what is said, else the preset's, which then says no more."""
    chosen = {name: settings.get(name) or getattr(preset, name) for name in ("criterion", "reconstruct")}
    return {**chosen, "allocation": "uniform", "preset": None}


def exact_widths(groups: Iterable[PlannedGroup]) -> Budget:
    """The budget that keeps as many units of these groups as they keep, and all others whole."""
    kept = {re.escape(g.name): (g.units - len(g.removed) + 0.25) / g.units for g in groups if g.removed}
    return Budget(channels=kept)
