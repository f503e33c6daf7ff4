"""prune, inspect and apply from end to end: what was asked for is what comes out, and it is proved."""

from __future__ import annotations

import json
import re
from dataclasses import replace

import numpy as np
import onnx
import onnx_prune
import pytest
from onnx import numpy_helper
from onnx_prune import Budget, BudgetError, Plan, ProofError, ReadError, UsageError, models
from onnx_prune.passes.channels.cut import Cut
from onnx_prune.passes.graph.spill import file_bytes
from onnx_prune.passes.selection.methods import METHODS

BUILDERS = {
    "lenet5": models.lenet5,
    "vgg16": models.vgg16_cifar,
    "resnet20 A": lambda: models.resnet_cifar(20),
    "resnet20 B folded": lambda: models.resnet_cifar(20, "B", folded=True),
    "resnet34": lambda: models.resnet34(input_size=32),
    "mobilenet_v1": lambda: models.mobilenet_v1(input_size=32),
    "mobilenet_v2": lambda: models.mobilenet_v2(input_size=32),
    "densenet40": models.densenet40,
    "unet": models.unet,
    "digits": lambda: onnx.load(models.digits_model()),
}
OF_WEIGHTS = ["bn-scale", "fpgm", "l1", "l2", "random"]
WITHOUT_DATA = ["uniform", "global"]
POINT = 0.01  # of the original: how near a budget is met


def prune(model, **settings):
    """By the weights alone, unless something is said: synthetic images have tests of their own."""
    settings.setdefault("measure", False)
    if not {"calibration", "moments"} & set(settings):
        settings["calibration"] = "none"
    return onnx_prune.prune(model, **settings)


def resnet20():
    return models.resnet_cifar(20)


def digits():
    return onnx.load(models.digits_model())


def kept(result):
    return {row.name: row.after for row in result.report.groups}


def same_interface(first, second):
    return (first.graph.input, first.graph.output) == (second.graph.input, second.graph.output)


# --- budgets ----------------------------------------------------------------------------------------------------------


WIDE = ("vgg16", "resnet34")
SMALL = [(name, 0.5) for name in BUILDERS if name not in WIDE]
SMALL += [(name, share) for name in ("lenet5", "resnet20 A", "digits") for share in (0.8, 0.2)]


@pytest.mark.parametrize(("name", "share"), SMALL)
def test_macs_are_met_from_below_within_a_point(name, share):
    model = BUILDERS[name]()
    result = prune(model, budget=Budget(macs=share))
    before, after = result.report.macs
    assert share - POINT < after / before <= share
    assert result.report.proof < 1e-5
    assert same_interface(model, result.model)
    onnx.checker.check_model(result.model, full_check=True)


def measured(result, kind):
    """Before and after, counted without the cost model."""
    if kind == "channels":
        rows = [row for row in result.report.groups if row.pinned is None]
        return sum(row.before for row in rows), sum(row.after for row in rows)
    return getattr(result.report, kind)


@pytest.mark.parametrize("kind", ["params", "size", "channels"])
@pytest.mark.parametrize("build", [models.lenet5, resnet20, models.unet, digits])
def test_other_budgets_are_met_from_below_within_a_point(build, kind):
    before, after = measured(prune(build(), budget=Budget(**{kind: 0.5})), kind)
    assert 0.5 - POINT < after / before <= 0.5


@pytest.mark.parametrize("reconstruct", ["full", "sequential"])
def test_a_refit_keeps_the_names_and_its_new_biases_are_counted(reconstruct):
    settings = {"calibration": models.digits_data()[1], "samples": 64, "allocation": "uniform"}
    result = prune(digits(), reconstruct=reconstruct, **settings)
    names, before = ([t.name for t in model.graph.initializer] for model in (result.model, digits()))
    assert set(before) <= set(names)
    recount = onnx_prune.inspect(result.model).cost
    assert result.report.params[1] == recount.params(recount.units) > result.plan.params[1]


def test_an_absolute_budget_is_met():
    assert 19.5e6 < prune(resnet20(), budget=Budget(macs="20M")).report.macs[1] <= 20e6
    assert 95e3 < prune(resnet20(), budget=Budget(params="100k")).report.params[1] <= 100e3
    result = prune(resnet20(), budget=Budget(size="400kB"))
    assert 390e3 < file_bytes(result.model) <= 400e3


def test_the_reported_size_is_that_of_the_file(tmp_path):
    result = prune(resnet20())
    lengths = 10 * len(result.model.graph.initializer)  # bytes: how many digits each length takes is not counted
    assert result.save(tmp_path / "cut.onnx").stat().st_size == pytest.approx(result.report.size[1], abs=lengths)


@pytest.mark.parametrize("allocation", WITHOUT_DATA)
def test_half_of_the_macs_is_the_default(allocation):
    result = prune(digits(), allocation=allocation)
    assert result.plan.budget == Budget(macs=0.5)
    assert 0.49 < result.report.macs[1] / result.report.macs[0] <= 0.5


def test_kept_counts_are_aligned():
    result = prune(models.mobilenet_v2(input_size=32), align=8)
    cut = [row.after for row in result.report.groups if row.after < row.before]
    assert cut
    assert all(count % 8 == 0 for count in cut)
    unaligned = kept(prune(models.mobilenet_v2(input_size=32), align=1))
    assert any(count % 8 for count in unaligned.values())  # the claim can fail


def test_excluded_groups_stay_whole():
    result = prune(resnet20(), exclude=r"layer1\..*")
    for row in result.report.groups:
        assert row.after == row.before if row.name.startswith("layer1") or row.pinned else row.after < row.before


def test_explicit_shares_by_group_name():
    result = prune(resnet20(), budget=Budget(channels={r"layer3\..*conv1": 0.4, "layer2.1.conv1": 0.75}))
    cut = {row.name: row.after for row in result.report.groups if row.after < row.before}
    assert cut == {"layer2.1.conv1": 24} | {f"layer3.{block}.conv1": 25 for block in range(3)}


def test_no_group_loses_its_last_unit():
    least = prune(digits(), budget=Budget(channels=0.001 + 5 / 224))  # five free groups
    assert min(kept(least).values()) == 1
    with pytest.raises(BudgetError, match="the budget cannot be met") as error:
        prune(digits(), budget=Budget(macs=0.0001))
    asked, possible = (error.value.values[key] for key in ("asked", "possible"))
    assert asked < possible < 0.1
    assert prune(digits(), budget=Budget(macs=f"{100 * possible + 0.1:.1f}%"))  # what the message says can be had


def test_a_model_that_cannot_be_cut_says_so(graphs_text):
    with pytest.raises(BudgetError, match="nothing in this graph can be removed: "):
        prune(graphs_text)


@pytest.fixture
def graphs_text():
    """One convolution between the image and the result: all is pinned."""
    model = onnx.parser.parse_model(
        """
        <ir_version: 8, opset_import: ["" : 17]>
        g (float[1, 3, 4, 4] x) => (float[1, 2, 4, 4] y) { y = Conv (x, w) }
        """
    )
    model.graph.initializer.append(numpy_helper.from_array(np.ones((2, 3, 1, 1), np.float32), "w"))
    return model


def test_a_latency_out_of_reach_says_what_can_be_had():
    with pytest.raises(BudgetError, match=r"the latency cannot be met: .* was reached") as error:
        prune(digits(), budget=Budget(latency="1us"))
    assert 1e-3 < error.value.values["possible"] < 1


# --- every choice runs ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("allocation", WITHOUT_DATA)
@pytest.mark.parametrize("criterion", OF_WEIGHTS)
def test_every_criterion_of_weights_with_every_allocation(criterion, allocation):
    assert set(WITHOUT_DATA) <= set(METHODS)
    result = prune(models.resnet_cifar(20, "B"), criterion=criterion, allocation=allocation)
    assert (result.plan.criterion, result.plan.allocation) == (criterion, allocation)
    assert 0.49 < result.report.macs[1] / result.report.macs[0] <= 0.5
    assert result.report.proof < 1e-5


@pytest.mark.parametrize("name", WIDE)
def test_wide_networks(name):
    result = prune(BUILDERS[name](), criterion="l1")
    assert 0.49 < result.report.macs[1] / result.report.macs[0] <= 0.5
    assert result.report.proof < 1e-5


@pytest.mark.shared
@pytest.mark.parametrize("name", ["basic-pitch", "ppocrv3-det", "ultraface-rfb-320", "yunet-n-dynamic"])
def test_real_exports_of_four_frameworks(name, shared):
    result = prune(shared / f"real/{name}.onnx", budget=Budget(macs=0.7))
    assert result.report.macs[1] <= 0.7 * result.report.macs[0]
    assert result.report.proof < 1e-4


@pytest.mark.shared
def test_the_first_claim_of_the_readme(shared):
    result = prune(shared / "models/resnet56-cifar10.onnx", budget=Budget(macs=0.5), criterion="l1")
    before, after = result.report.macs
    assert before == 125_485_696
    assert 0.49 < after / before <= 0.5
    assert result.report.proof < 1e-5


# --- the proof --------------------------------------------------------------------------------------------------------


def test_a_free_batch_is_proved_with_two_sizes(monkeypatch):
    seen = []
    real = onnx_prune.runtime.proof.prove.max_relative_error

    def spy(first, second, runs, **options):
        seen.extend(next(iter(feeds.values())).shape[0] for feeds in runs)
        return real(first, second, runs, **options)

    monkeypatch.setattr(onnx_prune.runtime.proof.prove, "max_relative_error", spy)
    prune(digits())
    assert seen == [1, 2]


def shifted(cut, constant, values):
    """A cut that takes the neighbours of the channels that it should take."""
    for axis, labels in enumerate(constant.labels):
        if cut.touched(labels):
            values = np.compress(np.roll(cut.kept(labels), 1), values, axis)
    return values


def test_a_wrong_cut_fails_the_proof_and_nothing_comes_out(monkeypatch):
    monkeypatch.setattr(Cut, "compress", shifted)
    with pytest.raises(ProofError, match="differs from the original") as error:
        prune(digits())
    assert error.value.values["error"] > 0.01
    assert error.value.exit_code == 5


def test_a_cut_that_does_not_run_fails_the_proof(monkeypatch):
    monkeypatch.setattr(Cut, "compress", lambda cut, constant, values: values)
    with pytest.raises(ProofError, match=r"the cut model (does not run|differs)"):
        prune(models.lenet5())


# --- plans ------------------------------------------------------------------------------------------------------------


def other_checkpoint(model):
    """The same graph with other weights."""
    changed = onnx.ModelProto()
    changed.CopyFrom(model)
    for tensor in changed.graph.initializer:
        values = numpy_helper.to_array(tensor)
        if values.dtype == np.float32:
            tensor.CopyFrom(numpy_helper.from_array(np.abs(values[::-1]) + np.float32(0.1), tensor.name))
    return changed


def test_a_plan_redoes_the_cut_from_its_file(tmp_path):
    result = prune(models.digits_model(), criterion="fpgm")
    result.plan.save(tmp_path / "plan.json")
    again = onnx_prune.apply(models.digits_model(), tmp_path / "plan.json", measure=False)
    assert again.model == result.model
    assert again.plan == result.plan


def test_a_plan_fits_another_checkpoint_of_the_graph():
    plan = prune(resnet20()).plan
    result = onnx_prune.apply(other_checkpoint(resnet20()), plan, measure=False)
    assert result.report.macs == plan.macs
    assert result.plan.slices == plan.slices
    assert result.report.proof < 1e-5


def test_an_edited_plan_cuts_what_it_says(tmp_path):
    path = tmp_path / "plan.json"
    prune(digits()).plan.save(path)
    data = json.loads(path.read_text())
    for group in data["groups"]:
        group["removed"] = [0, 5] if group["name"] == "layer1.0.conv1" else []
    del data["slices"]
    path.write_text(json.dumps(data))
    result = onnx_prune.apply(digits(), path, measure=False)
    assert {row.name for row in result.report.groups if row.after < row.before} == {"layer1.0.conv1"}
    weights = {t.name: numpy_helper.to_array(t) for t in result.model.graph.initializer}
    name = "layer1.0.conv1.weight"
    whole = {t.name: numpy_helper.to_array(t) for t in digits().graph.initializer}[name]
    np.testing.assert_array_equal(weights[name], np.delete(whole, [0, 5], axis=0))
    assert result.report.macs[1] < result.report.macs[0]


def test_the_costs_of_an_edited_plan_are_counted_anew(tmp_path):
    plan = prune(digits()).plan
    groups = tuple(replace(g, removed=g.removed[:1]) for g in plan.groups)
    result = onnx_prune.apply(digits(), replace(plan, groups=groups, slices=None), measure=False)
    recount = onnx_prune.inspect(result.model).cost
    assert result.report.macs[1] == recount.macs(recount.units) > plan.macs[1]
    assert result.report.params[1] == recount.params(recount.units)
    assert result.plan.slices


def test_a_plan_of_another_graph_is_refused():
    with pytest.raises(UsageError):
        onnx_prune.apply(resnet20(), prune(digits()).plan, measure=False)


def test_a_file_that_is_no_plan_is_refused(tmp_path):
    (tmp_path / "plan.json").write_text("{}")
    with pytest.raises(ReadError, match="not a plan"):
        onnx_prune.apply(digits(), tmp_path / "plan.json", measure=False)


def test_slices_alone_redo_the_cut():
    """What plan.json promises to other tools."""
    model = resnet20()
    result = prune(model)
    before = {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}
    after = {t.name: numpy_helper.to_array(t) for t in result.model.graph.initializer}
    plan = Plan.from_json(result.plan.to_json())
    assert plan.slices
    for name, axes in plan.slices.items():
        values = before[name]
        for axis, removed in axes.items():
            values = np.delete(values, removed, int(axis))
        np.testing.assert_array_equal(values, after[name])
    untouched = set(before) & set(after) - set(plan.slices)
    assert all(np.array_equal(before[name], after[name]) for name in untouched)


# --- the same again, and from anywhere --------------------------------------------------------------------------------


@pytest.mark.parametrize("settings", [{}, {"criterion": "random", "seed": 3}, {"allocation": "global"}])
def test_the_same_input_gives_the_same_bytes(settings):
    first, second = (prune(resnet20(), **settings) for _ in range(2))
    assert first.model.SerializeToString(deterministic=True) == second.model.SerializeToString(deterministic=True)
    assert first.plan.to_json() == second.plan.to_json()


def test_another_seed_draws_other_channels():
    first, second = (prune(digits(), criterion="random", seed=seed).plan.removed for seed in (0, 1))
    assert first != second


def test_a_pruned_model_can_be_pruned_again():
    first = prune(resnet20(), budget=Budget(macs=0.7))
    second = prune(first.model, budget=Budget(macs=0.7))
    assert second.report.macs[0] == first.report.macs[1]
    assert second.report.proof < 1e-5


def test_latency_is_measured_before_and_after_unless_left_out():
    assert prune(digits()).report.latency is None
    report = prune(digits(), measure=True).report
    before, after = report.latency
    assert report.latency_ratio == pytest.approx(after / before), "what is shown is what is compared"
    assert before > 0
    assert after > 0


def test_progress_is_told_in_the_order_of_the_work():
    told = []
    prune(digits(), progress=told.append)
    assert [stage for stage in told if " of " not in stage] == [
        "reading the model",
        "choosing channels",
        "cutting",
        "proving",
    ]
    assert told[-3] == "choosing channels: 5 of 5 groups"


def test_inspect_changes_nothing_and_says_why_groups_are_pinned():
    model = resnet20()
    before = model.SerializeToString(deterministic=True)
    analysis = onnx_prune.inspect(model)
    reasons = {group.pinned for group in analysis.groups.groups if group.pinned}
    assert reasons == {"graph input 'input'", "graph output 'logits'"}
    assert model.SerializeToString(deterministic=True) == before


def test_errors_say_what_where_and_what_to_do():
    with pytest.raises(BudgetError) as error:
        prune(digits(), budget=Budget(macs=0.0001))
    assert re.fullmatch(r"the budget .*\n  where: .*\n  fix:   .*", str(error.value))


# --- what is written is near the original -----------------------------------------------------------------------------


def calibrated(**settings):
    return onnx_prune.prune(
        digits(), calibration=models.digits_data()[1], samples=64, measure=False, allocation="uniform", **settings
    )


def test_a_run_with_data_says_how_near_the_result_is_to_the_original():
    result = calibrated()
    assert result.report.refit == "kept"
    assert result.report.same_class > 0.9
    assert 0 < result.report.distance < 0.2
    assert result.report.samples == 64


def test_a_refit_that_makes_it_worse_is_left_out(monkeypatch):
    from onnx_prune.runtime.refit import fits

    def spoilt(graph, consumer, refit, given=None):
        write(graph, consumer, refit._replace(weight=-3 * refit.weight), given)

    write = fits.write_refit
    monkeypatch.setattr(fits, "write_refit", spoilt)
    result, bare = calibrated(), calibrated(reconstruct="none")
    assert result.report.refit.startswith("left out")
    assert result.plan.reconstruct == "none"
    assert result.model.graph.initializer == bare.model.graph.initializer
    assert result.report.distance <= 1


def test_notebooks_get_tables():
    analysis = onnx_prune.inspect(models.digits_model())
    html = prune(models.digits_model())._repr_html_()
    assert "layer2.0.conv1" in analysis._repr_html_()
    assert "graph output &#x27;logits&#x27;" in analysis._repr_html_()
    assert html.count("<table>") == html.count("</table>") == 2
    assert "MACs" in html
    assert len(html) < 10_000
