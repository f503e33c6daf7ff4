"""A plan says exactly what is cut, survives being written, and refuses what does not fit."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from onnx import helper, numpy_helper, parser
from onnx_prune import models
from onnx_prune.passes.channels.apply_removal import apply_removal
from onnx_prune.passes.channels.cost import cost_model
from onnx_prune.passes.errors import ReadError, UsageError
from onnx_prune.passes.graph.export import to_model
from onnx_prune.passes.selection.budget import Budget
from onnx_prune.passes.selection.plans.plan import Plan, PlannedGroup
from onnx_prune.passes.selection.plans.planned import make_plan, removed_from_plan
from onnx_prune.pipeline.prune import apply, prune

SETTINGS = {"criterion": "random", "allocation": "uniform", "reconstruct": "none", "seed": 3}


def random_plan(groups, share=0.4):
    rng = np.random.default_rng(0)
    removed = {g.name: tuple(sorted(rng.permutation(g.units)[: int(g.units * share)].tolist())) for g in groups.free}
    return make_plan(cost_model(groups), removed, Budget(channels=1 - share), **SETTINGS)


@pytest.fixture(scope="module")
def groups(groups_of):
    return groups_of(models.digits_resnet())


@pytest.fixture
def plan(groups):
    return random_plan(groups)


def edited(plan, name, removed):
    """The plan with other removed units in one group, and no slices."""
    changed = tuple(replace(g, removed=removed) if g.name == name else g for g in plan.groups)
    return replace(plan, groups=changed, slices=None)


def initializers(model):
    return {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}


@pytest.mark.parametrize(
    "builder", [models.digits_resnet, lambda: models.resnet_cifar(20), models.lenet5, models.unet, models.densenet40]
)
def test_slices_alone_redo_the_cut(builder, groups_of):
    model = builder()
    groups = groups_of(model)
    plan = random_plan(groups)
    before = initializers(model)
    for name, axes in plan.slices.items():
        for axis, indices in axes.items():
            before[name] = np.delete(before[name], indices, int(axis))
    after = initializers(to_model(apply_removal(groups.labelled, removed_from_plan(groups, plan))))
    assert all(np.array_equal(after[name], before[name]) for name in plan.slices)
    untouched = set(after) - set(plan.slices)
    assert all(after[name].shape == before[name].shape for name in untouched if name in before)


SHARED = """
    <ir_version: 8, opset_import: ["": 17]>
    g (float[1, 3, 4, 4] x) => (float[1, 2, 4, 4] y)
    <float[4, 3, 1, 1] w1, float[4, 4, 1, 1] w2, float[4, 4, 1, 1] w3, float[2, 4, 1, 1] w4,
     float[4] one = {1, 2, 3, 4}, float[4] one_1 = {5, 6, 7, 8}> {
      a = Conv (x, w1, one)
      b = Conv (a, w2, one)
      c = Conv (b, w3, one)
      y = Conv (c, w4)
    }
"""


@pytest.fixture(scope="module")
def shared(groups_of):
    """Three convolutions of four channels that share one bias, `one`; `one_1` is a name that is taken."""
    model = parser.parse_model(SHARED)
    rng = np.random.default_rng(0)
    for name, shape in {"w1": (4, 3, 1, 1), "w2": (4, 4, 1, 1), "w3": (4, 4, 1, 1), "w4": (2, 4, 1, 1)}.items():
        values = rng.standard_normal(shape).astype(np.float32)
        model.graph.initializer.append(numpy_helper.from_array(values, name))
    del model.graph.value_info[:]
    return groups_of(model)


@pytest.mark.parametrize(
    ("removed", "biases"),
    [
        ({"a": (0,)}, {"one_2": [2, 3, 4], "one": [1, 2, 3, 4]}),
        ({"a": (0,), "b": (0,), "c": (0,)}, {"one": [2, 3, 4]}),
        ({"a": (0,), "b": (0,), "c": (1, 2)}, {"one": [2, 3, 4], "one_2": [1, 4]}),
        ({"a": (0,), "b": (1,), "c": (2,)}, {"one": [2, 3, 4], "one_2": [1, 3, 4], "one_3": [1, 2, 4]}),
    ],
)
def test_slices_name_the_copies_of_a_shared_vector_as_the_cut_model_does(shared, removed, biases):
    plan = make_plan(cost_model(shared), removed, Budget(), **SETTINGS)
    after = initializers(to_model(apply_removal(shared.labelled, removed_from_plan(shared, plan))))
    assert {name: v.tolist() for name, v in after.items() if name in biases} == biases
    named = {name for name in plan.slices if name.startswith("one")}
    assert named == {name for name, values in biases.items() if len(values) < 4}
    for name in named:
        assert np.delete([1, 2, 3, 4], plan.slices[name]["0"]).tolist() == biases[name]


def test_the_same_plan_gives_the_same_bytes_and_reads_back(plan, groups, tmp_path):
    text = plan.to_json()
    assert Plan.from_json(text) == plan
    assert Plan.from_json(text).to_json() == random_plan(groups).to_json() == text
    path = plan.save(tmp_path / "plan.json")
    assert path.read_bytes() == text.encode()
    assert Plan.load(path) == plan


def test_the_json_has_the_documented_keys(plan):
    data = json.loads(plan.to_json())
    assert list(data) == [
        *("format", "version", "model", "budget", "criterion", "allocation"),
        *("reconstruct", "seed", "macs", "params", "groups", "slices"),
    ]
    assert data["model"].keys() == {"name", "graph_sha256"}
    assert all(g.keys() == {"name", "units", "removed", "pinned"} for g in data["groups"])
    assert data["macs"][1] < data["macs"][0]


def test_a_plan_fits_another_checkpoint_of_the_graph(plan, groups_of):
    other = groups_of(models.digits_resnet(seed=9))
    assert removed_from_plan(other, plan).any()


def test_an_edited_plan_cuts_what_it_says(plan, groups):
    group = groups.free[0]
    data = json.loads(plan.to_json())
    del data["slices"]
    for entry in data["groups"]:
        entry["removed"] = [5, 2, 2] if entry["name"] == group.name else []
    removed = removed_from_plan(groups, Plan.from_json(json.dumps(data)))
    assert np.array_equal(removed, groups.removed_labels({group.name: [2, 5]}))


def test_slices_that_disagree_with_the_groups_are_refused_with_what_to_do(plan, groups):
    wrong = replace(edited(plan, groups.free[0].name, (0,)), slices=plan.slices)
    with pytest.raises(UsageError, match='delete the key "slices"'):
        removed_from_plan(groups, wrong)


def test_another_graph_is_refused_with_the_difference(plan, groups_of):
    with pytest.raises(UsageError, match=r"group 'layer.*' has 32 units in the plan, none in the model"):
        removed_from_plan(groups_of(models.lenet5()), replace(plan, groups=plan.groups[2:]))


def test_what_cannot_go_is_refused_with_the_reason(plan, groups):
    free = groups.free[0]
    pinned = next(g for g in groups.groups if g.pinned)
    for name, removed, reason in (
        (pinned.name, (0,), "it is pinned: "),
        (free.name, (free.units,), f"its units are 0 to {free.units - 1}"),
        (free.name, (-1,), "its units are"),
        (free.name, tuple(range(free.units)), "Conv would read a constant"),
    ):
        with pytest.raises(UsageError, match=reason):
            removed_from_plan(groups, edited(plan, name, removed))
    with pytest.raises(UsageError, match="no such group"):
        removed_from_plan(groups, replace(plan, groups=(PlannedGroup("nowhere", 4, (0,), None),)))


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (lambda d: d.update(format="recipe"), "not a plan of onnx-prune"),
        (lambda d: d.update(version=2), "version 2"),
        (lambda d: d.pop("seed"), '"seed" is missing'),
        (lambda d: d.update(sede=1), '"sede" is unknown'),
        (lambda d: d.update(macs=[1]), '"macs" is not a pair'),
        (lambda d: d.update(seed=True), '"seed" is true'),
        (lambda d: d.update(budget={"macs": -1}), "not a budget"),
        (lambda d: d["groups"][0].update(removed=["a"]), '"removed" is "a"'),
        (lambda d: d["groups"].append(d["groups"][0]), "twice"),
        (lambda d: d["groups"][0].pop("removed"), '"removed" is missing'),
        (lambda d: d.update(slices={"w": [1]}), '"w" is \\[1\\]'),
    ],
)
def test_a_malformed_plan_is_refused_with_the_key(plan, change, problem, tmp_path):
    data = json.loads(plan.to_json())
    change(data)
    path = tmp_path / "plan.json"
    path.write_text(json.dumps(data))
    with pytest.raises(ReadError, match=problem) as caught:
        Plan.load(path)
    assert caught.value.where == str(path)


def test_what_cannot_be_read_or_written_says_why(plan, tmp_path):
    with pytest.raises(ReadError, match="not valid JSON"):
        Plan.from_json("{")
    with pytest.raises(ReadError, match="No such file"):
        Plan.load(tmp_path / "missing.json")
    (tmp_path / "binary").write_bytes(b"\xff\xfe")
    with pytest.raises(ReadError, match="not text"):
        Plan.load(tmp_path / "binary")
    with pytest.raises(UsageError, match="folder does not exist"):
        plan.save(tmp_path / "nowhere" / "plan.json")


def test_a_plan_that_is_nested_without_end_is_no_json():
    with pytest.raises(ReadError, match="not valid JSON"):
        Plan.from_json("[" * 100_000)


def test_a_plan_says_from_what_a_weight_is_computed_that_the_file_does_not_store(tmp_path):
    """Another tool redoes the cut of standardised filters: it stores the computed value, then takes the slices away."""
    text = """
    <ir_version: 8, opset_import: ["": 17]>
    g (float[1, 3, 4, 4] x) => (float[1, 2, 4, 4] y)
    <float[1] e = {0.1}> {
      m = ReduceMean <axes = [1, 2, 3]> (w1)
      c = Sub (w1, m)
      w = Div (c, s)
      a = Conv (x, w)
      r = Relu (a)
      y = Conv (r, w2)
    }
    """
    model = parser.parse_model(text)
    rng = np.random.default_rng(0)
    shapes = {"w1": (8, 3, 1, 1), "s": (8, 1, 1, 1), "w2": (2, 8, 1, 1)}
    weights = {name: rng.uniform(0.5, 1.5, shape).astype(np.float32) for name, shape in shapes.items()}
    model.graph.initializer.extend(numpy_helper.from_array(array, name) for name, array in weights.items())
    result = prune(model, calibration="none", measure=False)
    plan = Plan.from_json(result.plan.to_json())
    assert plan == result.plan
    assert plan.computed == {"w": ("s", "w1")}
    assert set(plan.slices) == {"w", "w2"}
    weights["w"] = (weights["w1"] - weights["w1"].mean((1, 2, 3), keepdims=True)) / weights["s"]
    held = {t.name: numpy_helper.to_array(t) for t in result.model.graph.initializer}
    for name, axes in plan.slices.items():
        for axis, indices in axes.items():
            weights[name] = np.delete(weights[name], indices, int(axis))
        np.testing.assert_allclose(held[name], weights[name], rtol=1e-5)
    result.plan.save(tmp_path / "plan.json")
    assert apply(model, tmp_path / "plan.json", measure=False).report.macs == result.report.macs


def test_plans_of_stored_weights_say_nothing_of_computed_ones(plan):
    assert "computed" not in plan.to_json()


FUNCTION = """
    <ir_version: 9, opset_import: ["" : 17, "own" : 1]>
    g (float[n, 6] x) => (float[n, 3] y) <float[6, 16] w0, float[16, 3] w2>
    { a = MatMul (x, w0)  b = own.Layer (a)  y = MatMul (b, w2) }
    <domain: "own", opset_import: ["" : 17]> Layer (x) => (y) { h = MatMul (x, w)  y = Relu (h) }
    """
BODY = """
    <ir_version: 9, opset_import: ["" : 17]>
    g (float[n, 6] x) => (float[n, 3] y) <float[6, 16] w0, float[16, 3] w2, bool yes = {1}>
    {
      a = MatMul (x, w0)
      b = If (yes) <then_branch = deep () => (float[n, 16] r) <float[16, 16] w> { h = MatMul (a, w)  r = Relu (h) },
                    else_branch = flat () => (float[n, 16] r) { r = Identity (a) }>
      y = MatMul (b, w2)
    }
    """


@pytest.mark.parametrize(("text", "where"), [(FUNCTION, "the function own.Layer"), (BODY, "the body 'deep' of If 'b'")])
def test_weights_inside_bodies_and_functions_are_named_by_where_the_file_has_them(text, where, tmp_path):
    model = parser.parse_model(text)
    rng = np.random.default_rng(0)
    inner = rng.standard_normal((16, 16)).astype(np.float32)
    held = {
        "w0": rng.standard_normal((6, 16)).astype(np.float32),
        "w2": rng.standard_normal((16, 3)).astype(np.float32),
    }
    kept = [t for t in model.graph.initializer if t.name not in held]
    del model.graph.initializer[:]
    model.graph.initializer.extend([*kept, *(numpy_helper.from_array(v, k) for k, v in held.items())])
    if model.functions:
        constant = helper.make_node("Constant", [], ["w"], value=numpy_helper.from_array(inner, "w"))
        model.functions[0].node.insert(0, constant)
    else:
        branch = next(node for node in model.graph.node if node.op_type == "If").attribute[0].g
        del branch.initializer[:]
        branch.initializer.append(numpy_helper.from_array(inner, "w"))
    result = prune(model, calibration="none", measure=False)
    plan = result.plan
    ((name, place),) = plan.nested.items()
    assert place == f"'w' of {where}"
    cut = inner
    for axis, indices in plan.slices[name].items():
        cut = np.delete(cut, indices, int(axis))
    stored = {t.name: numpy_helper.to_array(t) for t in result.model.graph.initializer}
    stored |= {n.output[0]: numpy_helper.to_array(n.attribute[0].t) for n in result.model.graph.node if not n.input}
    np.testing.assert_array_equal(stored[name], cut)
    plan.save(tmp_path / "plan.json")
    assert type(plan).load(tmp_path / "plan.json") == plan


def test_the_mark_that_editors_put_in_front_is_no_part_of_a_plan(groups, tmp_path):
    plan = random_plan(groups)
    file = plan.save(tmp_path / "plan.json")
    file.write_bytes(b"\xef\xbb\xbf" + file.read_bytes())
    assert Plan.load(file) == plan
