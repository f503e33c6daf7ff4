"""Cuts and trainings in turns: what each schedule cuts, that the whole is one proven cut, and that it goes on."""

import numpy as np
import onnx
import pytest
import torch
from onnx_prune import models
from onnx_prune.models import NetBuilder
from onnx_prune.passes.errors import UsageError
from onnx_prune.passes.selection.budget import Budget
from onnx_prune.passes.selection.plans.plan import Plan
from onnx_prune.pipeline.prune import apply, prune
from onnx_prune.pipeline.training import in_turns
from onnx_prune.pipeline.training.in_turns import composed, forget, prune_and_finetune
from onnx_prune.pipeline.training.rounds import Schedule
from onnx_prune.runtime.analysis import analyse
from onnx_prune.runtime.data.inputs import model_inputs
from onnx_prune.runtime.data.open import open_data
from onnx_prune.runtime.measure.evaluate import accuracy
from onnx_prune.runtime.session import open_session
from onnx_prune.runtime.torch.graph_module import GraphModule
from onnx_prune.runtime.torch.training.recipe import Recipe
from onnx_prune.runtime.torch.training.run import Examples, Keeping, Watch
from onnx_prune.runtime.torch.training.soften import softener

TEST, CALIBRATION = (str(path) for path in models.digits_data())
RECIPE = Recipe(epochs=1, batch=50, rate=0.02)
QUICK = {"measure": False, "criterion": "obs", "allocation": "error", "reconstruct": "full"}


def top1(model):
    return accuracy(model, open_data(TEST, model_inputs(model))).top1


def run(schedule, recipe=RECIPE, evaluation=None, **options):
    given = {"budget": Budget(macs=0.4), **QUICK, **options}
    examples = Examples(CALIBRATION, evaluation)
    return prune_and_finetune(models.digits_model(), examples, recipe, schedule=schedule, **given)


@pytest.fixture(scope="module")
def stepped():
    """An unbroken run in two steps, and what it has told."""
    told = []
    return run(Schedule("steps", 2), watch=Watch(stage=told.append)), told


@pytest.mark.parametrize(
    ("schedule", "rounds"), [(Schedule(), 1), (Schedule("steps", 2), 2), (Schedule("layers"), None)]
)
def test_a_schedule_ends_within_the_budget_and_its_plan_is_one_cut(schedule, rounds, stepped):
    trained = stepped[0] if schedule.kind == "steps" else run(schedule)
    report, plan = trained.result.report, trained.result.plan
    assert report.macs[1] <= 0.4 * report.macs[0]
    assert report.proof < 1e-5
    assert len(trained.rounds) == (rounds or len(plan.removed))
    assert top1(trained.result.model) > 0.9
    again = apply(models.digits_model(), plan, measure=False).model
    shapes = [{t.name: tuple(t.dims) for t in m.graph.initializer} for m in (again, trained.result.model)]
    assert shapes[0].items() <= shapes[1].items()  # a refit may add biases


@pytest.fixture
def small():
    """A function that makes a network of 3x8x8 images, and labelled data for it."""
    rng = np.random.default_rng(0)
    data = {"input": rng.standard_normal((60, 3, 8, 8)).astype(np.float32), "label": rng.integers(0, 4, 60)}

    def network(body):
        net = NetBuilder("small", (3, 8, 8))
        return net.model(body(net))

    return network, data


def bottlenecks(net):
    x = net.relu(net.conv(net.input, "stem", 8, 3), "relu")
    for number in range(2):
        y = net.relu(net.conv(x, f"b{number}.conv1", 6, 1), f"b{number}.relu1")
        y = net.relu(net.conv(y, f"b{number}.conv2", 6, 3), f"b{number}.relu2")
        x = net.relu(net.add(net.conv(y, f"b{number}.conv3", 8, 1), x, f"b{number}.sum"), f"b{number}.relu3")
    return net.gemm(net.flatten(net.global_average_pool(x, "pool"), "flat"), "head", 4)


def test_the_inner_layers_of_a_residual_block_go_together_by_the_paper_s_objective(small, monkeypatch):
    network, data = small
    asked, plain = [], in_turns.prune

    def noted(model, **settings):
        asked.append(settings)
        return plain(model, **settings)

    monkeypatch.setattr(in_turns, "prune", noted)
    recipe = Recipe(epochs=2, batch=20, rate=0.01)
    options = {"preset": "thinet", "budget": Budget(channels=0.5), "measure": False}
    trained = prune_and_finetune(network(bottlenecks), Examples(data), recipe, schedule=Schedule("layers"), **options)
    assert [sorted(settings["budget"].shares) for settings in asked] == [
        [rf"b{n}\.conv1", rf"b{n}\.conv2"] for n in range(2)
    ]
    assert all((s["criterion"], s["reconstruct"]) == ("thinet:centred=no", "scalar") for s in asked)
    assert [len(tuned.epochs) - 1 for tuned in trained.rounds] == [1, 2]
    kept = {row.name: row.after for row in trained.result.report.groups}
    assert [kept[f"b{n}.conv{c}"] for n in range(2) for c in (1, 2)] == [3] * 4
    assert kept["stem"] == 8
    assert trained.result.report.proof < 1e-5


def test_layer_by_layer_the_head_is_replaced_in_the_end(small):
    network, data = small

    def chain(net):
        x = net.input
        for number in range(3):
            x = net.relu(net.conv(x, f"conv{number}", 6, 3), f"relu{number}")
        x = net.relu(net.gemm(net.flatten(x, "flat"), "fc", 20), "relu3")
        return net.gemm(x, "head", 4)

    trained = prune_and_finetune(
        network(chain), Examples(data), Recipe(epochs=1, batch=20), schedule=Schedule("layers"),
        preset="thinet", budget=Budget(channels={"conv[01]": 0.5}), replace_head="gap", measure=False,
    )  # fmt: skip
    assert len(trained.rounds) == 2
    operators = [[node.op_type for node in tuned.model.graph.node] for tuned in trained.rounds]
    assert ["GlobalAveragePool" in found for found in operators] == [False, True]
    assert trained.result.report.head == "gap"
    shapes = {t.name: tuple(t.dims) for t in trained.result.model.graph.initializer}
    assert shapes["conv1.weight"] == (3, 3, 3, 3)
    assert trained.result.report.params[1] == sum(np.prod(s) for s in shapes.values())


def test_steps_are_cuts_of_their_own(stepped):
    assert stepped[1].count("cutting") == 3  # two, and that of the original to the same channels


def test_between_cuts_come_a_few_updates_and_behind_the_last_the_epochs():
    told = []
    recipe = Recipe(epochs=2, updates=3, batch=50, rate=0.01)
    trained = run(Schedule("steps", 3), recipe, evaluation=TEST, watch=Watch(epoch=told.append))
    assert [len(tuned.epochs) - 1 for tuned in trained.rounds] == [1, 1, 2]
    assert trained.result.report.macs[1] <= 0.4 * trained.result.report.macs[0]
    assert [row.score is None for row in told] == [True] * 4 + [False] * 3
    last_of_three = recipe.rate_at(2, 3)
    assert [tuned.epochs[-1].rate for tuned in trained.rounds[:2]] == [pytest.approx(last_of_three)] * 2
    assert trained.rounds[2].epochs[-1].rate < last_of_three  # of the 2 epochs' many steps, the last


def test_a_step_that_finds_nothing_to_remove_does_not_end_the_others():
    """Steps finer than a unit: some cuts are those of the step before, and the last still meets the budget."""
    trained = run(
        Schedule("steps", 8),
        Recipe(epochs=1, updates=1, batch=50),
        budget=Budget(macs=0.97),
        criterion="l2",
        allocation="uniform",
        reconstruct="none",
        align=8,
    )
    assert trained.result.report.macs[1] <= 0.97 * trained.result.report.macs[0]
    assert 1 <= len(trained.rounds) < 8


def test_steps_keep_the_same_share_each(tmp_path):
    def stop(row):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(Schedule("steps", 2), keeping=Keeping(tmp_path / "run"), watch=Watch(epoch=stop))
    first = Plan.load(tmp_path / "run" / "1" / "plan.json")
    assert first.macs[1] / first.macs[0] == pytest.approx(0.4**0.5, abs=0.02)


def test_trimming_stops_where_nothing_is_left_to_trim():
    options = {"criterion": None, "allocation": None, "reconstruct": None, "budget": None}
    trained = run(Schedule("trim", 2), **options)
    assert 1 <= len(trained.rounds) <= 2
    assert trained.result.report.macs[1] < trained.result.report.macs[0]


SOFT = {"criterion": None, "allocation": None, "reconstruct": None, "budget": Budget(macs=0.6)}


@pytest.fixture(scope="module")
def softened():
    return run(Schedule("soft"), Recipe(epochs=2, batch=100, rate=0.02), evaluation=TEST, **SOFT)


def test_soft_pruning_zeroes_filters_of_every_convolution_and_cuts_them_with_their_constants(softened):
    """Running statistics that were those from before the zeroing would leave 26 % right after the first epoch."""
    report, soft = softened.result.report, softened.rounds[0].model
    assert report.macs[1] <= 0.6 * report.macs[0]
    assert report.proof < 1e-5
    zeroed = {}
    for tensor in soft.graph.initializer:
        values = onnx.numpy_helper.to_array(tensor)
        if values.ndim == 4 and "downsample" not in tensor.name:
            zeroed[tensor.name] = np.flatnonzero(np.abs(values).sum((1, 2, 3)) == 0).tolist()
    kept = {row.name: row.before - row.after for row in report.groups}
    assert {name.removesuffix(".weight"): len(gone) for name, gone in zeroed.items()} == {
        name: gone for name, gone in kept.items() if gone
    }
    assert len(zeroed) == 7  # the stem and both layers of three blocks
    images = np.load(TEST)["input"]
    before, after = (
        np.asarray(open_session(m).run({"input": images})["logits"]) for m in (soft, softened.result.model)
    )
    np.testing.assert_allclose(after, before, rtol=0, atol=1e-5 * np.abs(before).max())
    assert softened.rounds[0].epochs[1].score > 0.8


def test_the_preset_of_soft_pruning_implies_its_schedule():
    trained = run(None, Recipe(epochs=1, batch=200, rate=0.01), preset="sfp", **{**SOFT, "budget": Budget(macs=0.8)})
    weights = {t.name: onnx.numpy_helper.to_array(t) for t in trained.rounds[0].model.graph.initializer}
    zeroed = int((np.abs(weights["layer1.0.conv2.weight"]).sum((1, 2, 3)) == 0).sum())
    row = next(row for row in trained.result.report.groups if row.name == "layer1.0.conv2")
    assert zeroed == row.before - row.after > 0
    plain, result = analyse(models.digits_model()).cost, trained.result
    numbers = [onnx.numpy_helper.to_array(t) for t in result.model.graph.initializer]
    assert result.report.params == (plain.params(plain.units), sum(a.size for a in numbers if a.dtype == np.float32))


def test_where_least_squares_repair_the_cut_the_last_epoch_is_left_as_it_is():
    trained = run(
        Schedule("soft"),
        Recipe(epochs=2, batch=100, rate=0.02),
        evaluation=TEST,
        **{**SOFT, "reconstruct": "sequential"},
    )
    weights = {t.name: onnx.numpy_helper.to_array(t) for t in trained.rounds[0].model.graph.initializer}
    assert all(np.abs(values).sum((1, 2, 3)).all() for values in weights.values() if values.ndim == 4)
    assert top1(trained.result.model) > 0.95


def test_the_preset_is_named_in_the_plan_of_a_soft_run_and_the_cut_is_made_again(softened):
    plan = softened.result.plan
    assert plan.placed
    assert (plan.criterion, plan.allocation, plan.reconstruct) == ("l2", "uniform", "bias")
    again = apply(softened.rounds[0].model, plan, measure=False)
    assert again.report.macs == softened.result.report.macs


def test_softening_zeroes_the_weakest_filters_but_after_a_last_epoch_that_is_spared():
    model = onnx.load(models.digits_model())
    plan = prune(model, budget=Budget(channels={"layer1.0.conv1": 0.75}), criterion="l2", measure=False).plan
    module, groups = GraphModule(model), analyse(model).groups
    filters = module.get_parameter(module.parameter_names["layer1.0.conv1.weight"])
    softener(groups, plan, spare_last=True)(module, 0)
    assert (filters.flatten(1).norm(dim=1) > 0).all()
    weakest = filters.flatten(1).norm(dim=1).argsort()[:8].sort().values
    before = filters.detach().clone()
    softener(groups, plan, spare_last=True)(module, 1)
    assert (filters.flatten(1).norm(dim=1) == 0).nonzero().flatten().equal(weakest), "all epochs but the last"
    with torch.no_grad():
        filters.copy_(before)
    softener(groups, plan)(module, 0)
    assert (filters.flatten(1).norm(dim=1) == 0).nonzero().flatten().equal(weakest)
    assert plan.removed == {"layer1.0.conv1": tuple(weakest.tolist())}


def test_a_network_is_softly_pruned_from_scratch_by_labels_alone():
    """Nothing is left of the trained weights: before the first epoch the network guesses."""
    told = []
    trained = run(
        Schedule("soft"), Recipe(epochs=4, batch=20, rate=0.05, labels=1.0, scratch=True), evaluation=TEST,
        watch=Watch(epoch=told.append), **{**SOFT, "budget": Budget(macs=0.8)},
    )  # fmt: skip
    assert told[0].score < 0.35
    assert max(row.score for row in told) > 0.5
    assert trained.result.report.macs[1] <= 0.8 * trained.result.report.macs[0]


@pytest.mark.parametrize("kind", ["steps", "layers", "trim"])
def test_what_builds_on_a_training_does_not_begin_from_scratch(kind):
    with pytest.raises(UsageError, match="builds on what was trained before"):
        run(Schedule(kind), Recipe(scratch=True))


def test_two_cuts_are_one():
    first = prune(models.digits_model(), budget=Budget(channels=0.75), criterion="l1", measure=False)
    second = prune(first.model, budget=Budget(channels=0.5), criterion="l1", measure=False)
    both = apply(models.digits_model(), composed([first.plan, second.plan]), measure=False).model
    values = [{t.name: onnx.numpy_helper.to_array(t) for t in m.graph.initializer} for m in (second.model, both)]
    assert values[0].keys() == values[1].keys()
    assert all(np.array_equal(values[0][name], values[1][name]) for name in values[0])


def test_a_stopped_schedule_goes_on_to_the_same_bytes(stepped, tmp_path):
    whole, _ = stepped
    keeping = Keeping(tmp_path / "run")
    told = []

    def stop(row):
        told.append(row.number)
        if told == [0, 1, 0]:  # before the second training
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(Schedule("steps", 2), keeping=keeping, watch=Watch(epoch=stop))
    with pytest.raises(UsageError, match=r"not finished"):
        run(Schedule("steps", 2), keeping=keeping)
    with pytest.raises(UsageError, match="the unfinished run has another model"):
        run(Schedule("steps", 3), keeping=Keeping(tmp_path / "run", resume=True))
    again = run(Schedule("steps", 2), keeping=Keeping(tmp_path / "run", resume=True), watch=Watch(epoch=told.append))
    assert len(told) == 5  # the second training alone: its start and its epoch
    assert again.result.model.SerializeToString() == whole.result.model.SerializeToString()


@pytest.mark.parametrize("wrong", [("never", 1), ("once", 2), ("steps", 0)])
def test_a_schedule_that_makes_no_sense_is_refused(wrong):
    with pytest.raises(UsageError):
        Schedule(*wrong)


@pytest.mark.parametrize(
    ("preset", "schedule", "said"),
    [
        ("channel-pruning", Schedule("steps", 2), "channel samplers"),
        ("channel-pruning", Schedule("layers"), "channel samplers"),
        ("channel-pruning", Schedule("trim"), "channel samplers"),
        ("channel-pruning", Schedule("soft"), "channel samplers"),
        ("sfp", Schedule("steps", 2), "channel placers"),
        ("sfp", Schedule("layers"), "channel placers"),
        ("sfp", Schedule("trim", 2), "channel placers"),
    ],
)
def test_a_preset_with_nodes_of_its_own_is_one_cut(preset, schedule, said):
    with pytest.raises(UsageError, match=said) as error:
        run(schedule, preset=preset)
    assert "give --schedule once" in error.value.fix


def test_soft_pruning_goes_by_the_l2_norm_alone():
    with pytest.raises(UsageError, match="would not look at 'taylor'"):
        run(Schedule("soft"), criterion="taylor")
    for preset in ("dcp", "ccp", "apoz"):
        with pytest.raises(UsageError, match="would not look at") as error:
            Schedule("soft").check({"preset": preset})
        assert error.value.where == f"--preset {preset}"
    for fitting in ({"criterion": "l2", "preset": "sfp"}, {"preset": "li"}, {"preset": "dcp", "criterion": "l2"}, {}):
        Schedule("soft").check(fitting)
    Schedule("steps", 2).check({"criterion": "taylor"})


def test_steps_need_a_budget_that_can_be_approached():
    with pytest.raises(UsageError, match="--channels is not approached"):
        run(Schedule("steps", 2), budget=Budget(channels=0.5))


def test_what_others_keep_in_its_folder_stays(tmp_path):
    for name in ("1", "2", "photos"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "plan.json").write_text("{}")
    (tmp_path / "run").write_text("key")
    forget(tmp_path)
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["photos", "plan.json"]
    forget(tmp_path)
    assert (tmp_path / "photos").exists()
