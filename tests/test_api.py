"""The public API is a promise: its names, what kind each is, and how it is called."""

from __future__ import annotations

import dataclasses
import inspect
import typing

import onnx_prune
import pytest
from onnx_prune import Analysis, Budget, Plan, Report, Result, Settings

FUNCTIONS = {
    "prune": ["model", "budget", "progress", "sizes", "**settings"],
    "inspect": ["model", "device", "seed", "sizes", "example", "inexact"],
    "sensitivity": ["model", "progress", "sizes", "**settings"],
    "apply": ["model", "plan", "progress", "**settings"],
}
FIELDS = {
    "Result": ["model", "plan", "report", "external", "original"],
    "Analysis": ["name", "graph", "groups", "cost", "feeds"],
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
        "replace_head",
        "inexact",
        "seed",
        "device",
        "measure",
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
    ],
    "Preprocessing": ["mean", "std", "resize", "crop", "scale", "layout"],
    "Report": ["model", "groups", "macs", "params", "size", "latency", "proof", "seconds", "data", "head"],
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
    assert [p.name for p in free] == [p for p in FUNCTIONS[name] if p in ("model", "plan")]  # the rest is optional


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
            assert set(typing.get_type_hints(found)) >= set(inspect.signature(found).parameters), name


def test_methods_of_the_values():
    assert {"save"} <= set(dir(Result))
    assert {"save", "load", "to_json", "from_json", "removed"} <= set(dir(Plan))
    assert {"as_dict"} <= set(dir(Report))
    assert {"limit", "kind", "amount"} <= set(dir(Budget))


def test_the_settings_are_the_keywords_of_prune():
    assert all(field.default is not dataclasses.MISSING for field in dataclasses.fields(Settings))
    with pytest.raises(onnx_prune.UsageError, match=", ".join(FIELDS["Settings"])):
        onnx_prune.prune(b"", no_such_setting=1)


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'Pruner'"):
        onnx_prune.Pruner  # noqa: B018


def test_names_are_found_by_looking():
    assert set(onnx_prune.__all__) <= set(dir(onnx_prune))
    assert Analysis is onnx_prune.Analysis
