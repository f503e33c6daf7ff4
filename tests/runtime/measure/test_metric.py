"""A metric is one number: built in, of the user's own, or agreement with the original where there are no labels."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper
from onnx_prune import ReadError, UsageError, models
from onnx_prune.runtime.data.inputs import model_inputs
from onnx_prune.runtime.data.open import open_data
from onnx_prune.runtime.measure.metric import Agreement, Evaluation, make_metric, metric_words, title

TEST, CALIBRATION = (str(path) for path in models.digits_data())


@pytest.fixture(scope="module")
def digits():
    return onnx.load(models.digits_model())


@pytest.fixture(scope="module")
def worse(digits):
    """The same with a classifier that cannot tell some classes apart."""
    model = onnx.ModelProto()
    model.CopyFrom(digits)
    tensor = next(t for t in model.graph.initializer if t.name == "fc.weight")
    weight = numpy_helper.to_array(tensor).copy()
    weight[::3] = weight[1]
    tensor.CopyFrom(numpy_helper.from_array(weight, tensor.name))
    return model


@pytest.mark.parametrize("name", ["top1", "top5", "agreement", None])
def test_built_in_metrics_find_the_worse_model(digits, worse, name):
    metric = make_metric(name, digits, Evaluation(TEST))
    assert metric.name == (name or "top1")
    better = metric.of(digits)
    assert metric.of(worse) <= better <= 1
    assert name == "top5" or metric.of(worse) < better


def test_without_labels_it_is_agreement(digits, worse):
    images = np.load(TEST)["input"]
    metric = make_metric(None, digits, Evaluation({"input": images}))
    assert metric.name == "agreement"
    assert metric.of(digits) == 1
    logits = [model_rows(model, images) for model in (digits, worse)]
    assert metric.of(worse) == pytest.approx((logits[0].argmax(1) == logits[1].argmax(1)).mean())
    with pytest.raises(UsageError, match="accuracy needs labels\n  where: the dict given"):
        make_metric("top1", digits, Evaluation({"input": images}))


def model_rows(model, images):
    from onnx_prune.runtime.session import open_session

    return open_session(model).run({"input": images})["logits"]


def detector(scale):
    """Boxes and scores, three rows a sample: agreement is about every output's relative distance."""
    nodes = [
        helper.make_node("Mul", ["x", "a"], ["boxes"]),
        helper.make_node("Add", ["x", "b"], ["scores"]),
    ]
    x, boxes, scores = (
        helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, ["n", 3, 4]) for name in ("x", "boxes", "scores")
    )
    constants = [numpy_helper.from_array(np.float32(v), n) for n, v in (("a", scale), ("b", 1.0))]
    graph = helper.make_graph(nodes, "detector", [x], [boxes, scores], constants)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)


def test_agreement_of_detectors_is_the_relative_distance_of_every_output():
    original, moved = detector(2.0), detector(2.5)
    rows = np.random.default_rng(0).normal(size=(5, 3, 4)).astype(np.float32)
    data = open_data({"x": rows}, model_inputs(original))
    agreement = Agreement(original, data, "cpu")
    from onnx_prune.runtime.measure.evaluate import outputs

    distances = agreement.distances(list(outputs(moved, list(data), device="cpu")))
    assert distances == pytest.approx({"boxes": 0.25, "scores": 0.0})
    assert agreement.of(moved) == pytest.approx(1 - 0.25 / 2)


OWN = """
import numpy as np, onnx
def accuracy(outputs, labels):
    return (outputs["logits"].argmax(1) == labels).mean()
def initializers(path):
    return -len(onnx.load(path).graph.initializer)
def broken(outputs, labels):
    return outputs["nothing"]
def ends(outputs, labels):
    raise SystemExit(0)
def text(outputs, labels):
    return "much"
def nan(outputs, labels):
    return float("nan")
def many(a, b, c):
    return 1
"""


@pytest.fixture
def own(tmp_path, monkeypatch):
    """A module of the user's in the working directory."""
    (tmp_path / "own_metrics.py").write_text(OWN)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend("")  # forgotten again with the module
    yield "own_metrics"
    import sys

    sys.modules.pop("own_metrics", None)


def test_a_metric_of_the_users_own_gets_outputs_and_labels_or_the_path(digits, own):
    labelled = Evaluation(TEST)
    assert make_metric(f"{own}:accuracy", digits, labelled).of(digits) == pytest.approx(
        make_metric("top1", digits, labelled).of(digits)
    )
    assert make_metric(f"{own}:initializers", digits, Evaluation(None)).of(digits) == -len(digits.graph.initializer)
    assert make_metric(lambda outputs, labels: len(labels), digits, labelled).of(digits) == 360


@pytest.mark.parametrize(
    ("name", "kind", "said"),
    [
        ("broken", ReadError, "KeyError: 'nothing'"),
        ("ends", ReadError, "SystemExit: 0"),
        ("text", UsageError, "'much'"),
        ("nan", UsageError, "nan"),
    ],
)
def test_what_is_wrong_with_it_is_the_users(digits, own, name, kind, said):
    metric = make_metric(f"{own}:{name}", digits, Evaluation(TEST))
    with pytest.raises(kind, match=said):
        metric.of(digits)


@pytest.mark.parametrize(
    ("name", "kind", "said"),
    [
        ("own_metrics:many", UsageError, "3 parameters"),
        ("own_metrics:nobody", ReadError, "cannot be imported"),
        ("nowhere_at_all:x", ReadError, "cannot be imported"),
        ("best", UsageError, "there is no metric 'best'"),
    ],
)
def test_no_metric_is_said_before_the_work(digits, own, name, kind, said):
    with pytest.raises(kind, match=said):
        make_metric(name, digits, Evaluation(TEST))
    with pytest.raises(UsageError, match="needs data"):
        make_metric(f"{own}:accuracy", digits, Evaluation(None))


def test_numbers_in_words():
    assert (title("top1"), metric_words("top1", 0.9344)) == ("top-1", "93.44%")
    assert (title("m:f"), metric_words("m:f", 31.25)) == ("m:f", "31.25")
