"""Accuracy while one group alone loses its weakest filters, against the same done by hand on the model."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_prune
import pytest
from onnx import numpy_helper
from onnx_prune import models
from onnx_prune.passes.errors import UsageError
from onnx_prune.passes.selection.ranking import Ranking
from onnx_prune.runtime.analysis import analyse
from onnx_prune.runtime.data.sources import Batch
from onnx_prune.runtime.measure.sensitivity import Levels, measure_sensitivity
from onnx_prune.runtime.session import open_session

TEST = models.digits_data()[0]
IMAGES, LABELS = (np.load(TEST)[name] for name in ("input", "label"))


def right_without(units):
    """Top-1 of the model in which layer1.0.conv2 reads none of these channels."""
    model = onnx.load(models.digits_model())
    for tensor in model.graph.initializer:
        if tensor.name == "layer1.0.conv2.weight":
            values = numpy_helper.to_array(tensor).copy()
            values[:, units] = 0
            tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
    logits = np.asarray(open_session(model).run({"input": IMAGES})["logits"])
    return float((logits.argmax(1) == LABELS).mean())


def measured(labelled):
    groups = analyse(models.digits_model()).groups
    filters = {t.name: numpy_helper.to_array(t) for t in onnx.load(models.digits_model()).graph.initializer}
    norms = np.abs(filters["layer1.0.conv1.weight"]).sum((1, 2, 3))
    parts = np.array_split(np.arange(len(IMAGES)), 3)
    data = [Batch({"input": IMAGES[part]}, LABELS[part] if labelled else None) for part in parts]
    ranking = {"layer1.0.conv1": Ranking.by_score(norms)}
    found = measure_sensitivity(groups, ranking, None, data, levels=Levels((0.25, 0.5, 0.75)))
    return found, np.argsort(norms, kind="stable")


def test_the_accuracy_at_each_level_is_that_of_the_silenced_model():
    found, order = measured(labelled=True)
    wanted = {count: right_without(order[:count]) for count in (0, 8, 16, 24)}
    assert found.top1 == {"layer1.0.conv1": pytest.approx(wanted)}
    assert wanted[24] < wanted[8]


def test_without_labels_there_is_none():
    assert measured(labelled=False)[0].top1 == {}


def test_levels_are_the_user_s_and_shares():
    given = {
        "calibration": str(TEST),
        "samples": 32,
        "criterion": "l1",
        "reconstruct": "none",
        "exclude": "conv1|layer2.*",
    }
    _, found = onnx_prune.sensitivity(models.digits_model(), levels=[0.5, 0.1], **given)
    assert [n for n in found.top1["layer1.0.conv1"] if n < 32] == [0, 3, 16]
    for wrong in ([], [0.0], [1.5]):
        with pytest.raises(UsageError, match="share of a group"):
            onnx_prune.sensitivity(models.digits_model(), levels=wrong, **given)
