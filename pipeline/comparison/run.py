"""Make the rows that are missing, one at a time."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import onnx

from ...passes.errors import OnnxPruneError, UsageError
from ...passes.graph.files import write_text
from ...passes.graph.model import ModelLike, load
from ...passes.kept import kept_json, unreadable
from ...passes.selection.budget import Budget
from ...passes.selection.plans.plan import Plan
from ...passes.selection.presets import make_preset
from ...runtime.data.batches import Data
from ...runtime.data.inputs import model_inputs
from ...runtime.data.open import open_data
from ...runtime.measure.evaluate import accuracy, classifies
from ...runtime.processes.together import together
from ...runtime.progress import Stage, is_first, silent
from ..arguments import check_kinds
from ..prune import prune
from ..settings import Settings, make_settings, make_strategy
from ..training.finetune import finetune
from ..training.in_turns import prune_and_finetune
from ..training.rounds import Schedule
from ..write import Result
from .contenders import Contender, Terms
from .rows import Failed, Row, Scores, Store, is_pair

if TYPE_CHECKING:
    from ...runtime.torch.training.run import FineTuned


@dataclass(frozen=True, slots=True)
class Outcome:
    """What has become of a method: its row, or what ended it; neither where another process makes it.

    error: what was raised, where this process has made the row
    """

    contender: Contender
    row: Row | None = None
    failed: Failed | None = None
    error: OnnxPruneError | None = None


def compare(terms: Terms, methods: Sequence[Contender], folder: Path, progress: Stage = silent) -> Iterator[Outcome]:
    """Yield each method's outcome as soon as it is known: rows that are finished already, then those that are made.

    Several processes with the same folder share the work. What a kill leaves of a row (its cut, its epochs) is gone on
    from. Raises UsageError where the folder holds a comparison on other terms, or the data have no labels.
    """
    _check(terms, methods)
    store, group = Store(folder, terms.key), together()
    if is_first():
        store.open()
        store.forget(method.key for method in methods)
    missing = []
    for method in methods:
        row = group.same(store.row(method.key) if is_first() else None)
        if row is None:
            missing.append(method)
        else:
            yield Outcome(method, row)
    taken = []
    for method in missing:
        outcome = _outcome(terms, method, store, progress)
        if outcome is None:
            taken.append(method)
        else:
            yield outcome
    for method in taken:  # by others, who may have finished meanwhile, or have been killed
        yield _outcome(terms, method, store, progress) or Outcome(method)


def _outcome(terms: Terms, method: Contender, store: Store, progress: Stage) -> Outcome | None:
    """What has become of a method, which is made if nobody else is at it; None where somebody is."""
    group = together()
    with store.claimed(method.key) if is_first() else nullcontext(False) as claimed:
        # it may have been finished meanwhile, or have failed
        ended = (store.row(method.key), store.failure(method.key)) if is_first() else (None, None)
        (row, failed), mine = group.same((ended, claimed))
        if row is not None or failed is not None:
            return Outcome(method, row, failed)
        if not mine:
            return None
        try:
            row = _Making(terms, method, store, lambda stage: progress(f"{method.name}: {stage}")).row()
        except OnnxPruneError as error:
            failed = Failed(method.name, error.what, error.where, error.fix)
            if is_first():
                store.fail(method.key, failed)
            return Outcome(method, failed=failed, error=error)
        if is_first():
            store.keep(method.key, row)
            shutil.rmtree(store.work(method.key))
        return Outcome(method, row)


def _check(terms: Terms, methods: Sequence[Contender]) -> None:
    """Raise before the work where a method says what there is not, or the data cannot be read or have no labels."""
    for method in methods:
        _check_words(method, {**terms.settings, **method.settings}, method.schedule or terms.schedule)
    model = load(terms.model).source
    data = _evaluation(terms, model)
    if not data.labelled and data.samples is not None:
        raise UsageError("accuracy needs labels", where="--evaluate", fix="put the images in one folder a class")
    if not classifies(model, next(iter(data)), device=terms.settings.get("device", "auto")):
        raise UsageError(
            "methods are compared by top-1, and no output of the model has the form (samples, classes)",
            where=str(terms.model),
            fix="prune it by each method with onnx-prune --evaluate DATA --metric miou, map or agreement",
        )
    turns = [method.name for method in methods if (method.schedule or terms.schedule).kind != "once"]
    if turns and terms.train is None:
        raise UsageError(f"'{turns[0]}' cuts and trains in turns", where="the methods", fix="give --finetune DATA")


def _evaluation(terms: Terms, model: onnx.ModelProto) -> Data:
    """What accuracy is measured on, the same samples for every model."""
    seed = terms.settings.get("seed", 0)
    return open_data(
        terms.evaluation, model_inputs(model), terms.preprocessing, samples=terms.evaluate_samples, seed=seed
    )


def _check_words(method: Contender, settings: Mapping[str, Any], schedule: Schedule) -> None:
    """Raise UsageError for a word that names nothing, or a value of another kind, with the method that has it."""
    try:
        check_kinds(**settings)
        make_strategy(make_settings(Settings(**settings)), data=True)
        schedule.check(settings)
    except UsageError as error:
        raise UsageError(error.what, where=f"the method '{method.name}', {error.where}", fix=error.fix) from None


@dataclass(frozen=True, slots=True)
class _Making:
    """One row in the making."""

    terms: Terms
    method: Contender
    store: Store
    progress: Stage

    def row(self) -> Row:
        before = self._original()
        schedule = self.method.schedule or self.terms.schedule
        if schedule.kind != "once":
            return self._in_turns(before)
        facts = self._cut()
        model, tuned = self._folder / "cut.onnx", None
        minutes = facts["seconds"] / 60
        if self.terms.train is not None:
            trained = self._tuned(model)
            tuned = self._scores(trained.model)
            minutes += sum(epoch.seconds for epoch in trained.epochs) / 60
        return self._row(facts, before, tuple(facts["scores"]), tuned, minutes)

    def _row(
        self, facts: dict[str, Any], before: Scores, cut: Scores | None, tuned: Scores | None, minutes: float
    ) -> Row:
        latency = facts["latency"]
        return Row(
            name=self.method.name,
            words=facts["words"],
            before=before,
            cut=cut,
            tuned=tuned,
            macs=tuple(facts["macs"]),
            params=tuple(facts["params"]),
            milliseconds=None if latency is None else tuple(latency),
            minutes=minutes,
            published=None if self.method.published is None else asdict(self.method.published),
        )

    @property
    def _folder(self) -> Path:
        return self.store.work(self.method.key)

    @property
    def _settings(self) -> dict[str, Any]:
        return {**self.terms.settings, "preprocessing": self.terms.preprocessing, **self.method.settings}

    @property
    def _budget(self) -> Budget | None:
        """The method's own, else the common one, but for presets that say what every layer keeps."""
        preset = self._settings.get("preset")
        own = preset is not None and make_preset(preset).shares is not None
        return self.method.budget or (None if own else self.terms.budget)

    def _original(self) -> Scores:
        """Of the model as it is, measured once for all rows."""
        return _pair(self._kept(file := self.store.folder / "original.json", self._measured_original), file)

    def _measured_original(self) -> Scores:
        self.progress("evaluating the original")
        return self._scores(self.terms.model)

    def _kept(self, file: Path, made: Callable[[], Any]) -> Any:  # noqa: ANN401 - what JSON holds
        """What the file says; it is made and written first where there is none. All processes get the same."""
        group = together()
        if not group.same(file.exists()):
            found = made()
            if is_first():
                write_text(file, json.dumps(found))
        return group.same(kept_json(file) if is_first() else None)

    def _scores(self, model: ModelLike) -> Scores:
        proto = load(model).source
        found = accuracy(
            proto, _evaluation(self.terms, proto), device=self._settings.get("device", "auto"), group=together()
        )
        return found.top1, found.top5

    def _cut(self) -> dict[str, Any]:
        """What the cut has brought; made, or read where an earlier process has made it."""
        facts = self._kept(file := self._folder / "cut.json", self._made_cut)
        if not isinstance(facts, dict) or not isinstance(facts.get("seconds"), int | float):
            raise unreadable(file, "it does not say what the cut brought")
        for name in ("macs", "params", "scores"):
            _pair(facts.get(name), file)
        if facts.setdefault("latency", None) is not None:
            _pair(facts["latency"], file)
        return {"words": "", **facts}

    def _made_cut(self) -> dict[str, Any]:
        start = time.perf_counter()
        result = prune(self.terms.model, budget=self._budget, progress=self.progress, **self._settings)
        seconds = time.perf_counter() - start
        if is_first():
            result.save(self._folder / "cut.onnx")
        self.progress("evaluating the cut model")
        return {**_facts(result), "seconds": seconds, "scores": self._scores(result.model)}

    def _tuned(self, model: Path) -> FineTuned:
        """The cut model, trained by the common recipe; the original teaches unless labels alone do."""
        from ...runtime.torch.training.recipe import Recipe

        recipe = self.terms.recipe or Recipe()
        alone = recipe.labels == 1 and not recipe.features
        assert self.terms.train is not None
        return finetune(
            model,
            self.terms.train,
            teacher=None if alone else self.terms.model,
            recipe=recipe,
            preprocessing=self.terms.preprocessing,
            folder=self._folder / "training",
            resume=True,
            device=self._settings.get("device", "auto"),
            progress=self.progress,
        )

    def _in_turns(self, before: Scores) -> Row:
        from ...runtime.torch.training.run import Examples, Keeping, Watch

        assert self.terms.train is not None, "a schedule needs data to train on"
        trained = prune_and_finetune(
            self.terms.model,
            Examples(self.terms.train, None, self.terms.preprocessing),
            self.terms.recipe,
            schedule=self.method.schedule or self.terms.schedule,
            budget=self._budget,
            keeping=Keeping(self._folder / "training", resume=True),
            watch=Watch(stage=self.progress),
            **self._settings,
        )
        facts = {**_facts(trained.result), "seconds": trained.result.report.seconds}
        return self._row(facts, before, None, self._scores(trained.result.model), facts["seconds"] / 60)


def _pair(found: Any, file: Path) -> tuple[float, float]:  # noqa: ANN401 - what JSON holds
    """Two numbers that were kept. Raises ReadError where they are none."""
    if not is_pair(found):
        raise unreadable(file, "it does not hold a pair of numbers")
    return found[0], found[1]


def _facts(result: Result) -> dict[str, Any]:
    """What a row says of a cut, as JSON."""
    report, plan = result.report, result.plan
    return {"words": _words(plan), "macs": report.macs, "params": report.params, "latency": report.latency}


def _words(plan: Plan) -> str:
    return f"{plan.criterion}, {plan.allocation}, {plan.reconstruct}"
