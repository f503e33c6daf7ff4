"""Pruning and fine-tuning in turns, as a schedule says; what is done is kept, and continued after a stop."""

from __future__ import annotations

import shutil
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import onnx

from ...passes.errors import ReadError, UsageError
from ...passes.graph.export import infer_shapes
from ...passes.graph.files import save_model, write_text
from ...passes.graph.model import ModelLike, load
from ...passes.graph.reading import read_model
from ...passes.graph.spill import file_bytes
from ...passes.kept import kept_text
from ...passes.selection.budget import Budget
from ...passes.selection.plans.plan import Plan
from ...runtime.data.given import repeatable
from ...runtime.processes.together import Together, together
from ...runtime.progress import is_first
from ...runtime.proof.saved import shown
from ..prune import apply, prune
from ..read import read_alone
from ..refit import added_elements
from ..settings import Settings, make_settings
from ..write import Result
from .rounds import Round, Schedule, exact_widths, planned_rounds

if TYPE_CHECKING:
    from ...runtime.device import Device
    from ...runtime.torch.training.finetune import AfterEpoch
    from ...runtime.torch.training.recipe import Recipe
    from ...runtime.torch.training.run import Examples, FineTuned, Keeping, Watch

_OF_APPLY = (
    "seed",
    "device",
    "inexact",
    "replace_head",
    "measure",
    "threads",
    "latency_batch",
)  # settings that `apply` heeds

_OF_ZEROS = (None, "none", "bias")  # refits of a network whose filters are zero: constants are all that goes


@dataclass(frozen=True, slots=True)
class Trained:
    """The pruned and fine-tuned model, and every training that it took."""

    result: Result
    rounds: tuple[FineTuned, ...]


def prune_and_finetune(
    model: ModelLike,
    examples: Examples,
    recipe: Recipe | None = None,
    *,
    schedule: Schedule | None = None,
    budget: Budget | None = None,
    keeping: Keeping | None = None,
    watch: Watch | None = None,
    **settings: Any,  # noqa: ANN401 - those of prune
) -> Trained:
    """Cut and train in turns; the model itself is the teacher. settings: of `pipeline.prune`.

    Without calibration data the training data are taken; without a schedule it is once, that of the preset sfp soft.
    plan and report are those of one cut of the original to the same channels, which is proven. Raises what `prune` and
    `finetune` raise.
    """
    from ...runtime.torch.training.checkpoint import run_key
    from ...runtime.torch.training.recipe import Recipe
    from ...runtime.torch.training.run import Keeping, Watch

    start = time.perf_counter()
    source, recipe = load(model), recipe or Recipe()
    schedule = schedule or Schedule("soft" if settings.get("preset") == "sfp" else "once")
    examples = replace(examples, train=repeatable(examples.train), evaluation=repeatable(examples.evaluation))
    settings = {"calibration": examples.train, "preprocessing": examples.preprocessing, **settings}
    schedule.check(settings)
    words = {name: str(value) for name, value in settings.items()}
    run = _Turns(
        model=model,
        original=source.source,
        examples=replace(examples, teacher=source.source),
        recipe=recipe,
        budget=budget,
        keeping=keeping or Keeping(),
        watch=watch or Watch(),
        settings=settings,
        key=run_key([source.source], str(schedule), str(budget), str(recipe), words),
    )
    run.check()
    trained = run.softly() if schedule.kind == "soft" else run.in_rounds(schedule)
    report = replace(trained.result.report, seconds=time.perf_counter() - start)
    epochs = tuple(epoch for tuned in trained.rounds for epoch in tuned.epochs)
    result = replace(trained.result, external=source.external, report=report, epochs=epochs)
    return replace(trained, result=result)


@dataclass(frozen=True, slots=True)
class _Turns:
    model: ModelLike
    original: onnx.ModelProto
    examples: Examples
    recipe: Recipe
    budget: Budget | None
    keeping: Keeping
    watch: Watch
    settings: Mapping[str, Any]
    key: str

    def check(self) -> None:
        """Raise UsageError where a folder holds another run, or one that is not to be continued."""
        folder = self.keeping.folder
        if folder is None or not is_first():
            return
        file = folder / "run"
        if file.exists() and not self.keeping.resume:
            raise UsageError(
                "a fine-tuning run of this output is not finished",
                where=str(folder),
                fix="continue it with --resume, or remove that folder",
            )
        if file.exists() and kept_text(file) != self.key:
            raise UsageError(
                "the unfinished run has another model, other data or other options",
                where=str(folder),
                fix="give the same as before, or remove that folder",
            )

    # ---- rounds

    def in_rounds(self, schedule: Schedule) -> Trained:
        model, plans, tuned, made = self.original, [], [], []
        rounds = planned_rounds(
            schedule, self.original, self.budget, self.recipe, self.settings, progress=self.watch.stage
        )
        for number, step in enumerate(rounds, 1):
            cut, plan = self._cut(model, step, number, made)
            if plans and not plan.removed:
                if schedule.kind == "trim":
                    break  # nothing is left to trim
                if number < len(rounds):
                    continue  # the cut before went as far already
            plans.append(plan)
            tuned.append(self._tuned(cut, step, number))
            model = tuned[-1].model
        return Trained(_decided(self._result(model, plans), made), tuple(tuned))

    def _cut(
        self, model: onnx.ModelProto, step: Round, number: int, made: list[Result]
    ) -> tuple[onnx.ModelProto, Plan]:
        """The round's cut: made, and kept in `made`, or read where an earlier process has made it."""
        folder, group = self._folder(number), together()
        if group.same(folder is not None and (folder / "plan.json").exists()):
            return _read_cut(folder, group)
        result = prune(model, budget=step.budget, progress=self.watch.stage, **{**step.settings, "measure": False})
        made.append(result)
        if folder is not None and is_first():
            save_model(result.model, folder / "cut.onnx", external=result.external)
            result.plan.save(folder / "plan.json")
        return group.same((result.model, result.plan))

    def _tuned(
        self, cut: onnx.ModelProto, step: Round, number: int, after_epoch: AfterEpoch | None = None
    ) -> FineTuned:
        from ...runtime.torch.training.finetune import finetune

        return finetune(
            cut,
            self.examples if step.judged else replace(self.examples, evaluation=None),
            step.recipe,
            keeping=replace(self.keeping, folder=self._folder(number)),
            device=cast("Device", self.settings.get("device", "auto")),
            watch=self.watch,
            after_epoch=after_epoch,
        )

    def _folder(self, number: int) -> Path | None:
        if self.keeping.folder is None:
            return None
        folder = self.keeping.folder / str(number)
        if is_first():
            self.keeping.folder.mkdir(exist_ok=True)
            write_text(self.keeping.folder / "run", self.key)
            folder.mkdir(exist_ok=True)
        return folder

    def _result(self, model: onnx.ModelProto, plans: list[Plan]) -> Result:
        """The model with the plan and the report of one cut of the original to the same channels."""
        plan = plans[0] if len(plans) == 1 else composed(plans)
        settings: dict[str, Any] = {name: value for name, value in self.settings.items() if name in _OF_APPLY}
        proven = apply(self.model, plan, progress=self.watch.stage, **settings)
        plan = replace(proven.plan, budget=self.budget or plan.budget, reconstruct=plan.reconstruct)
        model = infer_shapes(model)
        params = (proven.report.params[0], proven.report.params[1] + added_elements(proven.model, model))
        size = (proven.report.size[0], file_bytes(model))
        report = replace(proven.report, params=params, size=size)
        assert proven.shown is not None, "apply proves"
        tuned = shown(model, proven.shown.feeds, proven.shown.device)
        return replace(proven, model=model, plan=plan, report=report, shown=tuned)

    # ---- soft filter pruning

    def softly(self) -> Trained:
        from ...runtime.torch.training.soften import softener

        settings = {**self.settings, "preset": self.settings.get("preset") or "sfp", "criterion": "l2"}
        fast = {"allocation": "uniform", "reconstruct": "none", "calibration": "none", "measure": False}
        plan = prune(self.original, **{**settings, **fast}, budget=self.budget, progress=self.watch.stage).plan
        alone = Settings(**{name: settings[name] for name in ("device", "seed", "inexact") if name in settings})
        groups = read_alone(self.original, make_settings(alone), self.watch.stage, extra=plan.extra).analysis.groups
        recipe = replace(self.recipe, average=0.0)
        after_epoch = softener(groups, plan, spare_last=settings.get("reconstruct") not in _OF_ZEROS)
        tuned = self._tuned(self.original, Round(self.budget, recipe, settings), 1, after_epoch)
        widths = exact_widths(plan.groups)
        return Trained(prune(tuned.model, budget=widths, progress=self.watch.stage, **settings), (tuned,))


def _decided(result: Result, made: list[Result]) -> Result:
    """The result with what the first cut was chosen by: data and curves."""
    if not made:
        return result
    first = made[0]
    return replace(result, curves=first.curves, report=replace(result.report, data=first.report.data))


def _read_cut(folder: Path | None, group: Together) -> tuple[onnx.ModelProto, Plan]:
    """What the first process finds in the folder."""
    assert folder is not None, "what was kept lies in it"
    kept = (read_model(folder / "cut.onnx")[0], Plan.load(folder / "plan.json")) if is_first() else None
    found = group.same(kept)
    assert found is not None, "the first one has it"
    return found


def composed(plans: list[Plan]) -> Plan:
    """The plan of one cut that does what several have done, one after another."""
    removed = {group.name: set() for group in plans[0].groups}
    for plan in plans:
        for group in plan.groups:
            left = [unit for unit in range(_units(plans[0], group.name)) if unit not in removed[group.name]]
            removed[group.name] |= {left[unit] for unit in group.removed}
    groups = tuple(replace(group, removed=tuple(sorted(removed[group.name]))) for group in plans[0].groups)
    return replace(plans[0], groups=groups, slices=None)


def _units(plan: Plan, name: str) -> int:
    units = next((group.units for group in plan.groups if group.name == name), None)
    if units is None:
        raise ReadError("a group has changed its name between two cuts", where=f"'{name}'", fix="cut once")
    return units


def forget(folder: Path) -> None:
    """Remove what a finished run has kept in its folder, and nothing that somebody else has put there."""
    if not (folder / "run").exists():
        return
    for part in folder.iterdir():
        if part.name.isdecimal() and part.is_dir() and not part.is_symlink():
            shutil.rmtree(part)
    (folder / "run").unlink()
    if not any(folder.iterdir()):
        folder.rmdir()
