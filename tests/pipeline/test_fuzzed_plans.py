"""Plans that somebody edited: `apply` cuts exactly what they say, or refuses them and says why."""

from __future__ import annotations

import json
import math
from functools import cache

import numpy as np
import onnx
import onnx_prune
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx import numpy_helper
from onnx_prune import OnnxPruneError, Plan, models

SETTINGS = settings(max_examples=25, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))


@cache
def written():
    return onnx_prune.prune(models.digits_model(), measure=False, calibration="none").plan.to_json()


@cache
def weights():
    model = onnx.load(models.digits_model())
    return {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}


def without(slices):
    """The weights of the original without these indices."""
    cut = dict(weights())
    for name, axes in slices.items():
        for axis, gone in axes.items():
            cut[name] = np.delete(cut[name], gone, int(axis))
    return cut


def applied(tree):
    """The result and its weights; None where the plan is refused, which has to be said well."""
    try:
        result = onnx_prune.apply(models.digits_model(), Plan.from_json(json.dumps(tree)), measure=False)
    except OnnxPruneError as error:
        if error.exit_code not in (2, 3, 5) or not error.where or not error.fix:
            raise AssertionError("it is not said well") from error
        return None
    found = {tensor.name: numpy_helper.to_array(tensor) for tensor in result.model.graph.initializer}
    return result, found


def check(tree):
    done = applied(tree)
    if done is not None:
        compare(tree, *done)
    return done is not None


def compare(tree, result, found):
    said = {group["name"]: tuple(sorted(set(group["removed"]))) for group in tree["groups"] if group["removed"]}
    assert result.plan.removed == said, "it cuts what it says"
    expected = without(result.plan.slices)
    assert {name for name in found if name in expected}, "weights keep their names"
    for name, array in found.items():
        if name in expected:  # else what the cut left of a branch that went
            assert array.shape == expected[name].shape
            assert np.array_equal(array, expected[name])


units = st.one_of(
    st.integers(-3, 70), st.sampled_from([2**31, 2**63, -(2**63), 10**30, True, None, 0.0, 1.5, "1", math.nan, [1], {}])
)


@st.composite
def edited_groups(draw):
    """A valid plan, of which some groups remove other units; what follows from them is deleted, as users are told."""
    tree = json.loads(written())
    del tree["slices"]
    tree.pop("computed", None)
    tree.pop("nested", None)
    for group in tree["groups"]:
        if draw(st.booleans()):
            inside = st.integers(0, group["units"] - 1)
            group["removed"] = draw(st.lists(draw(st.sampled_from([inside, inside, inside, units])), max_size=40))
    return tree


@st.composite
def edited_anywhere(draw):
    tree = json.loads(written())
    group = draw(st.sampled_from(tree["groups"]))
    several = st.one_of(st.lists(units, max_size=3), st.dictionaries(st.text(), units, max_size=2))
    wild = st.one_of(units, st.text(max_size=3), several)
    kind = draw(st.sampled_from(["group", "slice", "key", "drop", "double", "swap"]))
    if kind == "group":
        group[draw(st.sampled_from(["name", "units", "removed", "pinned"]))] = draw(wild)
    elif kind == "slice":
        name = draw(st.sampled_from(sorted(tree["slices"])))
        axis = draw(st.one_of(st.sampled_from(["0", "1", "2", "-1", "01", "x"]), st.text(max_size=2)))
        tree["slices"].setdefault(draw(st.sampled_from([name, "nobody"])), {})[axis] = draw(wild)
    elif kind == "key":
        tree[draw(st.sampled_from(sorted(tree)))] = draw(wild)
    elif kind == "drop":
        tree["groups"].remove(group)
    elif kind == "double":
        tree["groups"].append(group)
    else:
        other = draw(st.sampled_from(tree["groups"]))
        group["removed"], other["removed"] = other["removed"], group["removed"]
    return tree


def test_a_plan_is_cut_as_it_stands_and_another_is_not():
    tree = json.loads(written())
    assert check(tree)
    result, found = applied(tree)
    group = next(group for group in tree["groups"] if group["removed"])
    kept = group["removed"]
    group["removed"] = kept[1:]
    with pytest.raises(AssertionError, match="it cuts what it says"):
        compare(tree, result, found)
    group["removed"] = kept
    found["fc.weight" if "fc.weight" in found else max(found)] = np.zeros(1)
    with pytest.raises(AssertionError):
        compare(tree, result, found)


@SETTINGS
@given(edited_groups())
def test_units_that_somebody_chose_are_what_goes(tree):
    check(tree)


@SETTINGS
@given(edited_anywhere())
def test_any_other_change_is_refused_or_changes_nothing(tree):
    check(tree)
