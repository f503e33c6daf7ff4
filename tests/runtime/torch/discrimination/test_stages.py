"""Discrimination-aware pruning against the same written by hand in torch, layer by layer, with a loss at each depth."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import onnx
import pytest
import torch
import torch.nn.functional as F
from onnx import numpy_helper
from onnx_prune import models
from onnx_prune.models import NetBuilder
from onnx_prune.passes.errors import AccuracyError, UsageError
from onnx_prune.passes.selection.criteria.gradients.dcp import Dcp
from onnx_prune.runtime.analysis import analyse
from onnx_prune.runtime.data.inputs import model_inputs
from onnx_prune.runtime.data.open import open_data
from onnx_prune.runtime.torch.discrimination.stages import select_discriminating
from onnx_prune.runtime.torch.gates.gradients import Wanted, gate_gradients

PLAIN = Dcp(losses=0, passes=0, rate=0.0)


def chain(seed=0):
    net = NetBuilder("chain", (3, 6, 6), seed=seed)
    x = net.input
    for number in range(3):
        x = net.relu(net.conv(x, f"conv{number}", 8, 3), f"relu{number}")
    return net.model(net.gemm(net.flatten(net.global_average_pool(x, "pool"), "flat"), "head", 4))


@pytest.fixture(scope="module")
def model():
    return chain()


@pytest.fixture(scope="module")
def data():
    rng = np.random.default_rng(0)
    return {"input": rng.standard_normal((40, 3, 6, 6)).astype(np.float32), "label": rng.integers(0, 4, 40)}


def weights_of(model):
    return {t.name: torch.from_numpy(numpy_helper.to_array(t).copy()) for t in model.graph.initializer}


def chosen(model, data, kept, settings, **options):
    groups = analyse(model).groups
    return select_discriminating(groups, kept, open_data(data, model_inputs(model)), settings, **options)


def written_out(w, x):
    """The network by hand: what conv1 and conv2 make, and the logits."""
    h0 = F.relu(F.conv2d(x, w["conv0.weight"], w["conv0.bias"], padding=1))
    o1 = F.conv2d(h0, w["conv1.weight"], w["conv1.bias"], padding=1)
    o2 = F.conv2d(F.relu(o1), w["conv2.weight"], w["conv2.bias"], padding=1)
    return o1, o2, F.linear(F.relu(o2).mean((2, 3)), w["head.weight"], w["head.bias"])


def greedy_by_hand(w, data, layer, count, rate, weight=1.0):
    """conv `layer`'s input channels: largest |dL/dW_k|, then a step of Nesterov's descent on those that are chosen."""
    x, y = torch.from_numpy(data["input"]), torch.from_numpy(data["label"])
    name, full = f"conv{layer}.weight", w[f"conv{layer}.weight"]
    targets = written_out(w, x)[layer - 1]
    W, moving, alive = torch.zeros_like(full), torch.zeros_like(full), []

    def gradient(W):
        W = W.clone().requires_grad_(True)
        made = written_out({**w, name: W}, x)
        loss = (targets - made[layer - 1]).square().sum() / (2 * targets.numel()) + weight * F.cross_entropy(made[2], y)
        return torch.autograd.grad(loss, W)[0]

    for _ in range(count):
        norms = gradient(W).square().sum((0, 2, 3)).sqrt()
        norms[alive] = -1
        alive.append(int(norms.argmax()))
        W[:, alive[-1]] = full[:, alive[-1]]
        step = torch.zeros_like(full)
        step[:, alive] = gradient(W)[:, alive]
        moving = 0.9 * moving + step
        W = W - rate * (step + 0.9 * moving)
    return alive, W


@pytest.mark.parametrize("rate", [0.0, 0.05])
@pytest.mark.parametrize("weight", [0.0, 1.0, 50.0])
@pytest.mark.parametrize("layer", [1, 2])
def test_channels_and_their_weights_are_those_of_the_algorithm(model, data, layer, weight, rate):
    settings = Dcp(losses=0, passes=0, rate=rate, weight=weight)
    group = f"conv{layer - 1}"
    found = chosen(model, data, {group: 5}, settings)
    alive, W = greedy_by_hand(weights_of(model), data, layer, 5, rate, weight)
    assert found.removed == {group: tuple(sorted(set(range(8)).difference(alive)))}
    after = weights_of(found.model)
    torch.testing.assert_close(after.pop(f"conv{layer}.weight"), W, rtol=1e-4, atol=1e-6)
    before = weights_of(model)
    assert all(torch.equal(values, before[name]) for name, values in after.items())


def test_the_discriminative_loss_decides_otherwise_than_the_reconstruction(model, data):
    asked = [Dcp(losses=0, weight=weight, passes=0, rate=0.0) for weight in (0, 50)]
    ends = {chosen(model, data, {"conv1": 4}, settings).removed["conv1"] for settings in asked}
    assert len(ends) == 2


def test_losses_and_gradients_are_means_over_all_samples_whatever_the_batches(model, data):
    """150 samples in batches of 64, 64 and 22: a smaller batch counts less."""
    large = {name: np.concatenate([array] * 4)[:150] for name, array in data.items()}
    large["input"] = large["input"] * np.linspace(0.2, 3, 150, dtype=np.float32)[:, None, None, None]
    found = chosen(model, large, {"conv1": 5}, PLAIN)
    w, x, y = weights_of(model), torch.from_numpy(large["input"]), torch.from_numpy(large["label"])
    alive, _ = greedy_by_hand(w, large, 2, 5, 0.0)
    assert found.removed == {"conv1": tuple(sorted(set(range(8)).difference(alive)))}

    def loss(part):
        aim, made = written_out(w, x[part])[1], written_out({**w, "conv2.weight": torch.zeros(8, 8, 3, 3)}, x[part])
        return float((aim - made[1]).square().mean() / 2 + F.cross_entropy(made[2], y[part]))

    parts = [loss(slice(start, start + 64)) for start in (0, 64, 128)]
    assert found.losses["conv1"][0] == pytest.approx(loss(slice(None)), rel=1e-5)
    assert np.mean(parts) != pytest.approx(loss(slice(None)), rel=1e-2), "the claim can fail"


def test_a_later_layer_is_chosen_on_the_network_as_it_is_by_then(model, data):
    """The targets stay the given network's."""
    found = chosen(model, data, {"conv0": 5, "conv1": 5}, PLAIN)
    w = weights_of(model)
    first, W1 = greedy_by_hand(w, data, 1, 5, 0.0)
    x, y = torch.from_numpy(data["input"]), torch.from_numpy(data["label"])
    targets, thin, alive = written_out(w, x)[1], {**w, "conv1.weight": W1}, []
    for _ in range(5):
        W2 = torch.zeros_like(w["conv2.weight"])
        W2[:, alive] = w["conv2.weight"][:, alive]
        W2.requires_grad_(True)
        made = written_out({**thin, "conv2.weight": W2}, x)
        ((targets - made[1]).square().mean() / 2 + F.cross_entropy(made[2], y)).backward()
        norms = W2.grad.square().sum((0, 2, 3))
        norms[alive] = -1
        alive.append(int(norms.argmax()))
    gone = [tuple(sorted(set(range(8)).difference(part))) for part in (first, alive)]
    assert found.removed == dict(zip(("conv0", "conv1"), gone, strict=True))
    empty = written_out({**thin, "conv2.weight": torch.zeros_like(w["conv2.weight"])}, x)
    own = F.cross_entropy(empty[2], y)
    losses = [float((aim - empty[1]).square().mean() / 2 + own) for aim in (targets, written_out(thin, x)[1])]
    assert found.losses["conv1"][0] == pytest.approx(losses[0], rel=1e-5)
    assert losses[1] != pytest.approx(losses[0], rel=1e-2), "those of the network as it is by then"


def test_a_stage_s_layers_are_chosen_by_the_loss_at_its_end(model, data):
    """The loss behind conv1 knows nothing of conv2: with another conv2 the same channels of conv0 stay."""
    other = weights_of(model)
    changed = onnx.ModelProto()
    changed.CopyFrom(model)
    for tensor in changed.graph.initializer:
        if tensor.name == "conv2.weight":
            tensor.CopyFrom(numpy_helper.from_array(-other[tensor.name].numpy()[::-1].copy(), tensor.name))
    settings = [Dcp(losses=losses, passes=0, rate=0.0, weight=50) for losses in (1, 0)]
    ends = [[chosen(m, data, {"conv0": 4}, one).removed["conv0"] for m in (model, changed)] for one in settings]
    assert ends[0][0] == ends[0][1]
    assert ends[1][0] != ends[1][1]


def test_stages_train_the_network_and_what_went_stays_zero():
    digits, told = onnx.load(models.digits_model()), []
    kept = {"layer1.0.conv1": 10, "layer1.1.conv1": 12, "layer2.0.conv1": 20}
    found = chosen(
        digits, str(models.digits_data()[1]), kept, Dcp(at_once=4, passes=1),
        progress=lambda *count: told.append(count),
    )  # fmt: skip
    assert {name: len(gone) for name, gone in found.removed.items()} == dict(zip(kept, (22, 20, 44), strict=True))
    after, before = weights_of(found.model), weights_of(digits)
    for name, gone in found.removed.items():
        reader = after[name.replace("conv1", "conv2") + ".weight"]
        assert not reader[:, list(gone)].any()
        assert reader.abs().sum((0, 2, 3)).count_nonzero() == kept[name]
    assert all((after[name] != before[name]).any() for name in after if name.endswith("weight"))
    assert told == [(1, 3), (2, 3), (3, 3)]


def test_without_labels_the_classes_are_those_that_the_model_finds(model, data):
    x = torch.from_numpy(data["input"])
    labels = written_out(weights_of(model), x)[2].argmax(1).numpy()
    bare, told = {"input": data["input"]}, {"input": data["input"], "label": labels}
    kept = {"conv1": 4}
    ends = [chosen(model, d, kept, Dcp(losses=0, weight=50, passes=0, rate=0.0)) for d in (bare, told, data)]
    assert ends[0].removed == ends[1].removed != ends[2].removed
    unused = Dcp(losses=0, weight=50, passes=0, rate=0.0, labels=False)
    assert chosen(model, data, kept, unused).removed == ends[0].removed


def test_what_is_no_classifier_or_diverges_is_refused(model, data):
    net = NetBuilder("map", (3, 6, 6))
    x = net.relu(net.conv(net.input, "conv0", 8, 3), "relu0")
    with pytest.raises(UsageError, match="need a classifier"):
        chosen(net.model(net.conv(x, "conv1", 2, 3)), {"input": data["input"]}, {"conv0": 4}, PLAIN)
    with pytest.raises(AccuracyError, match="has diverged"):
        chosen(model, data, {"conv1": 7}, Dcp(losses=0, passes=0, rate=1e30))
    with pytest.raises(UsageError, match="the model has 4 classes"):
        chosen(model, {**data, "label": data["label"] + 9}, {"conv1": 4}, PLAIN)


def test_weights_that_make_a_large_loss_by_themselves_are_no_descent_that_runs_away(data):
    """With any of its channels this network is farther off than without all; still nothing diverges."""
    loud = chain()
    for tensor in loud.graph.initializer:
        factor = {"head.weight": 500, "conv2.bias": 0}.get(tensor.name, 1)
        tensor.CopyFrom(numpy_helper.from_array(factor * numpy_helper.to_array(tensor), tensor.name))
    w, (x, y) = weights_of(loud), (torch.from_numpy(data["input"]), torch.from_numpy(data["label"]))
    without = {**w, "conv2.weight": torch.zeros_like(w["conv2.weight"])}
    assert F.cross_entropy(written_out(w, x)[2], y) > 10 * F.cross_entropy(written_out(without, x)[2], y)
    found = chosen(loud, data, {"conv1": 5}, Dcp(losses=0, passes=0, rate=1e-9))
    alive, _ = greedy_by_hand(w, data, 2, 5, 1e-9)
    assert found.removed == {"conv1": tuple(sorted(set(range(8)).difference(alive)))}


@pytest.mark.parametrize("times", [1, 4])
def test_a_descent_that_runs_away_begins_anew_at_half_of_the_rate(model, data, times):
    """At the rate of 1e4 the cross-entropy alone is in the hundreds after the first step."""
    large = {name: np.concatenate([array] * times) for name, array in data.items()}
    found = chosen(model, large, {"conv1": 5}, Dcp(losses=0, passes=0, rate=1e4))
    thin, w = weights_of(found.model), weights_of(model)
    x, y = torch.from_numpy(data["input"]), torch.from_numpy(data["label"])
    losses = [float(F.cross_entropy(written_out(weights, x)[2], y)) for weights in (thin, w)]
    assert losses[0] < 15 * losses[1]
    _, W = greedy_by_hand(w, data, 2, 5, 1e4)
    assert not F.cross_entropy(written_out({**w, "conv2.weight": W}, x)[2], y) < 100 * losses[1]


def trained_by_hand(w, data, passes, rate):
    """Nesterov's descent on the network's cross-entropy plus that of a head behind relu1, in batches of 64.

    The weights, those of the head, and the mean and variance of its normalisation.
    """
    x, y = torch.from_numpy(data["input"]), torch.from_numpy(data["label"])
    w = {name: values.clone().requires_grad_(True) for name, values in w.items()}
    linear = torch.empty(4, 8).normal_(0, 0.5, generator=torch.Generator().manual_seed(0))  # sqrt(2 / 8)
    head, seen_so_far = [linear, torch.zeros(4), torch.ones(8), torch.zeros(8)], [torch.zeros(8), torch.ones(8)]
    for values in head:
        values.requires_grad_(True)
    step = torch.optim.SGD(
        [{"params": list(w.values()), "weight_decay": 1e-4}, {"params": head}], rate, 0.9, 0, 0, True
    )
    rng = np.random.default_rng(0)
    for start in [64 * n for _ in range(passes) for n in rng.permutation(-(-len(x) // 64)).tolist()]:
        part, wanted = x[start : start + 64], y[start : start + 64]
        o1, _, logits = written_out(w, part)
        seen = F.batch_norm(F.relu(o1), *seen_so_far, head[2], head[3], training=True, momentum=0.1)
        loss = F.cross_entropy(logits, wanted)
        loss = loss + F.cross_entropy(F.linear(F.relu(seen).mean((2, 3)), head[0], head[1]), wanted)
        step.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(w.values(), 5.0)
        step.step()
    detached = [value.detach() for value in head]
    return {name: values.detach() for name, values in w.items()}, detached, seen_so_far


def test_a_stage_begins_with_training_on_its_own_loss_and_the_network_s(model, data):
    large = {name: np.concatenate([array] * 4)[:150] for name, array in data.items()}
    settings = Dcp(losses=1, passes=3, tuning=0.05, rate=0.0)
    found = weights_of(chosen(model, large, {"conv0": 8}, settings).model)
    by_hand, _, _ = trained_by_hand(weights_of(model), large, 3, 0.05)
    for name, values in by_hand.items():
        assert (values - weights_of(model)[name]).abs().max() > 1e-4
        torch.testing.assert_close(found[name], values, rtol=1e-4, atol=1e-6)


def test_the_head_of_a_stage_decides_by_what_it_has_learned(model, data):
    """The channels are those of the gradient of L_M + L_S through the trained head, at its running statistics."""
    settings = Dcp(losses=1, passes=2, tuning=0.05, rate=0.0, weight=50)
    found = chosen(model, data, {"conv0": 4}, settings)
    x, y = torch.from_numpy(data["input"]), torch.from_numpy(data["label"])
    w = weights_of(model)
    thin, head, statistics = trained_by_hand(w, data, 2, 0.05)
    full, alive = thin["conv1.weight"], []
    targets = written_out(w, x)[0]
    for _ in range(4):
        W = torch.zeros_like(full)
        W[:, alive] = full[:, alive]
        W.requires_grad_(True)
        o1 = written_out({**thin, "conv1.weight": W}, x)[0]
        seen = F.batch_norm(F.relu(o1), *statistics, head[2], head[3])
        logits = F.linear(F.relu(seen).mean((2, 3)), head[0], head[1])
        ((targets - o1).square().mean() / 2 + 50 * F.cross_entropy(logits, y)).backward()
        norms = W.grad.square().sum((0, 2, 3))
        norms[alive] = -1
        alive.append(int(norms.argmax()))
    assert found.removed["conv0"] == tuple(sorted(set(range(8)).difference(alive)))
    plain, _ = greedy_by_hand(w, data, 1, 4, 0.0, 50)
    assert sorted(alive) != sorted(plain), "the network's own loss would have decided otherwise"


MLP = """
<ir_version: 8, opset_import: ["": 17]>
g (TYPE[N, 6] x) => (TYPE[N, 4] y) <TYPE[12,6] w1, TYPE[10,12] w2, TYPE[9,10] w3, TYPE[8,9] w4, TYPE[4,8] w5> {
  a = Gemm <transB = 1> (x, w1)
  ra = Relu (a)
  b = Gemm <transB = 1> (ra, w2)
  rb = Relu (b)
  c = Gemm <transB = 1> (rb, w3)
  rc = Relu (c)
  d = Gemm <transB = 1> (rc, w4)
  rd = Relu (d)
  y = Gemm <transB = 1> (rd, w5)
}
"""


def mlp(dtype, word):
    """The model in that precision, and samples of it."""
    model, rng = onnx.parser.parse_model(MLP.replace("TYPE", word)), np.random.default_rng(0)
    for number, (inputs, outputs) in enumerate(pairwise((6, 12, 10, 9, 8, 4)), 1):
        weight = rng.standard_normal((outputs, inputs)).astype(dtype)
        model.graph.initializer.append(numpy_helper.from_array(weight, f"w{number}"))
    del model.graph.value_info[:]
    return model, {"x": rng.standard_normal((40, 6)).astype(dtype), "label": rng.integers(0, 4, 40)}


def test_heads_are_of_the_network_s_precision():
    model, data = mlp(np.float64, "double")
    group = analyse(model).groups.free[0]
    found = chosen(model, data, {group.name: 5}, Dcp(losses=1, passes=1))
    assert len(found.removed[group.name]) == 7
    assert {t.data_type for t in found.model.graph.initializer} == {onnx.TensorProto.DOUBLE}


def test_what_trains_a_network_in_half_precision_is_refused():
    model, data = mlp(np.float16, "float16")
    groups = analyse(model).groups
    with pytest.raises(UsageError, match="half-precision weights are not trained"):
        chosen(model, data, {groups.free[0].name: 5}, Dcp(losses=1, passes=1))
    samples = list(open_data(data, model_inputs(model)))
    assert gate_gradients(groups, samples, Wanted(auxiliary=1))
    with pytest.raises(UsageError, match="half-precision weights are not trained"):
        gate_gradients(groups, samples, Wanted(auxiliary=1, tuned=True))
