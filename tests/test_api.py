"""The public API is a promise: its names, what kind each is, and how it is called."""

from __future__ import annotations

import dataclasses
import importlib.metadata
import inspect
import re
import subprocess
import sys
import typing
from pathlib import Path

import onnx_prune
import pytest
from onnx_prune import Analysis, Budget, Plan, Report, Result, Settings, models
from onnx_prune.runtime.torch.training.recipe import Recipe
from onnx_prune.runtime.torch.training.run import Epoch, FineTuned

OF_DATA = ["calibration", "samples", "preprocessing"]
FUNCTIONS = {
    "prune": [
        "model", "budget", "preset", "criterion", "allocation", "reconstruct", *OF_DATA, "moments", "save_moments",
        "align", "exclude", "keep_blocks", "replace_head", "inexact", "effort", "seed", "device", "measure", "threads",
        "latency_batch", "sizes", "evaluate", "evaluate_samples", "metric", "max_drop", "smallest", "progress",
    ],
    "inspect": ["model", "device", "seed", "sizes", "example", "inexact"],
    "sensitivity": [
        "model", *OF_DATA, "criterion", "reconstruct", "exclude", "inexact", "seed", "device", "sizes", "levels",
        "progress",
    ],
    "sweep": [
        "model", "budgets", "evaluate", "evaluate_samples", "metric", "sizes", "progress", "**settings",
    ],
    "apply": [
        "model", "plan", "replace_head", "inexact", "seed", "device", "measure", "threads", "latency_batch", "progress",
    ],
    "evaluate": ["model", "data", "reference", "metric", "samples", "preprocessing", "seed", "device"],
    "finetune": [
        "model", "train", "teacher", "evaluation", "recipe", "preprocessing", "folder", "resume", "device",
        "progress", "watch",
    ],
}  # fmt: skip
FIELDS = {
    "Result": ["model", "plan", "report", "external", "original", "shown", "curves", "epochs"],
    "Analysis": ["name", "graph", "groups", "cost", "feeds", "trial"],
    "Settings": [
        "preset",
        "criterion",
        "allocation",
        "reconstruct",
        "calibration",
        "samples",
        "preprocessing",
        "moments",
        "save_moments",
        "align",
        "exclude",
        "keep_blocks",
        "replace_head",
        "inexact",
        "effort",
        "seed",
        "device",
        "measure",
        "threads",
        "latency_batch",
    ],
    "Budget": ["macs", "params", "size", "latency", "channels"],
    "Plan": [
        "model",
        "graph_sha256",
        "budget",
        "criterion",
        "allocation",
        "reconstruct",
        "seed",
        "macs",
        "params",
        "groups",
        "slices",
        "sampled",
        "placed",
        "settings",
        "computed",
        "nested",
    ],
    "Preprocessing": ["mean", "std", "resize", "crop", "scale", "layout"],
    "Report": [
        "model",
        "groups",
        "macs",
        "params",
        "size",
        "latency",
        "proof",
        "seconds",
        "data",
        "head",
        "compared",
        "inner",
        "latency_ratio",
        "measured_on",
        "same_class",
        "distance",
        "samples",
        "refit",
        "inputs",
        "free",
        "proved_at",
        "metric",
        "score",
        "tries",
        "gone",
        "doubt",
    ],
}
ERRORS = {
    "OnnxPruneError": 1,
    "UsageError": 2,
    "ReadError": 3,
    "BudgetError": 4,
    "ProofError": 5,
    "AccuracyError": 6,
}


def test_these_are_the_names():
    assert sorted(onnx_prune.__all__) == sorted([*FUNCTIONS, *FIELDS, *ERRORS])
    assert onnx_prune.__all__ == sorted(onnx_prune.__all__)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_function_is_called_with_these(name):
    parameters = inspect.signature(getattr(onnx_prune, name)).parameters.values()
    shown = [f"**{p.name}" if p.kind is p.VAR_KEYWORD else p.name for p in parameters]
    assert shown == FUNCTIONS[name]
    free = [p for p in parameters if p.kind is p.POSITIONAL_OR_KEYWORD and p.default is p.empty]
    assert [p.name for p in free] == [
        p for p in FUNCTIONS[name] if p in ("model", "plan", "data", "train", "budgets")
    ]  # the rest is optional


@pytest.mark.parametrize("name", FIELDS)
def test_a_value_has_these_fields_and_is_frozen(name):
    kind = getattr(onnx_prune, name)
    assert [field.name for field in dataclasses.fields(kind)] == FIELDS[name]
    assert kind.__dataclass_params__.frozen


@pytest.mark.parametrize("name", ERRORS)
def test_an_error_carries_its_exit_code(name):
    kind = getattr(onnx_prune, name)
    assert issubclass(kind, onnx_prune.OnnxPruneError)
    assert kind.exit_code == ERRORS[name]


def test_everything_has_a_docstring_and_types():
    for name in onnx_prune.__all__:
        found = getattr(onnx_prune, name)
        assert inspect.getdoc(found), name
        if name in FUNCTIONS:
            assert set(
                typing.get_type_hints(found, localns={"Recipe": Recipe, "FineTuned": FineTuned, "Epoch": Epoch})
            ) >= set(inspect.signature(found).parameters), name


def test_values_are_shown_in_a_line():
    model = models.digits_model()
    result, analysis = onnx_prune.prune(model, calibration="none", measure=False), onnx_prune.inspect(model)
    whole = (result, result.plan, result.report, analysis, analysis.graph, analysis.groups, analysis.groups.labelled)
    for value in whole:
        assert len(repr(value)) < 200, type(value)
    assert "digits.onnx" in repr(result)
    assert "6 groups" in repr(analysis)


def test_methods_of_the_values():
    assert {"save"} <= set(dir(Result))
    assert {"save", "load", "to_json", "from_json", "removed"} <= set(dir(Plan))
    assert {"as_dict"} <= set(dir(Report))
    assert {"limit", "kind", "amount"} <= set(dir(Budget))


def test_the_settings_are_keywords_of_prune_with_the_same_defaults():
    parameters = inspect.signature(onnx_prune.prune).parameters
    for field in dataclasses.fields(Settings):
        assert parameters[field.name].default == field.default, field.name


@pytest.mark.parametrize(
    ("given", "what"),
    [
        ({"budget": [0.5]}, "a list is not a budget"),
        ({"budget": True}, "True is not a budget"),
        ({"budget": "banana"}, "is not a budget"),
        ({"samples": 0}, "0 is not a whole number from 1 on"),
        ({"samples": "many"}, "'many' is not a whole number"),
        ({"seed": -1}, "-1 is not a whole number from 0 on"),
        ({"seed": 1.5}, "1.5 is not a whole number"),
        ({"exclude": 3}, "3 is not a text"),
        ({"criterion": 3}, "3 is not a criterion"),
        ({"device": "tpu"}, "there is no device 'tpu'"),
    ],
)
def test_what_makes_no_sense_is_our_error_with_a_fix(given, what):
    with pytest.raises(onnx_prune.UsageError, match=re.escape(what)) as caught:
        onnx_prune.prune(models.digits_model(), **{"calibration": "none", **given})
    assert caught.value.fix


@pytest.mark.parametrize("budget", [0.6, "60%", Budget(macs=0.6)])
def test_a_budget_is_a_number_a_text_or_a_budget(budget):
    result = onnx_prune.prune(models.digits_model(), budget=budget, calibration="none", measure=False)
    assert result.plan.budget == Budget(macs=0.6)


def test_the_version_is_that_of_the_package():
    assert onnx_prune.__version__ == importlib.metadata.version("onnx-prune")


def test_the_package_runs_as_a_module():
    done = subprocess.run([sys.executable, "-m", "onnx_prune", "--version"], capture_output=True, text=True, check=True)
    assert onnx_prune.__version__ in done.stdout


def test_evaluate_gives_accuracy_or_the_distance_from_a_reference():
    test = models.digits_data()[0]
    assert onnx_prune.evaluate(models.digits_model(), test).top1 > 0.99
    assert onnx_prune.evaluate(models.digits_model(), test, reference=models.digits_model()).value < 1e-6


def test_finetune_returns_the_graph_with_other_weights():
    slim = onnx_prune.prune(models.digits_model(), budget=0.5, calibration="none", measure=False)
    test, calibration = models.digits_data()
    recipe = Recipe(epochs=1, batch=64, rate=0.01, seed=0)
    tuned = onnx_prune.finetune(slim.model, calibration, teacher=models.digits_model(), recipe=recipe)
    assert [node.op_type for node in tuned.model.graph.node] == [node.op_type for node in slim.model.graph.node]
    assert onnx_prune.evaluate(tuned.model, test).top1 > onnx_prune.evaluate(slim.model, test).top1


def test_a_criterion_of_ones_own_as_the_docs_show_it():
    page = (Path(__file__).resolve().parents[1] / "docs" / "methods.md").read_text(encoding="utf-8")
    (example,) = (block for block in re.findall(r"```python\n(.*?)```", page, re.DOTALL) if "class Spread" in block)
    names: dict[str, object] = {}
    exec(example, names)
    result = names["result"]
    assert isinstance(result, Result)
    assert result.plan.criterion == "spread"
    assert result.report.macs[1] <= 0.6 * result.report.macs[0]


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'Pruner'"):
        onnx_prune.Pruner  # noqa: B018


def test_names_are_found_by_looking():
    assert set(onnx_prune.__all__) <= set(dir(onnx_prune))
    assert Analysis is onnx_prune.Analysis
