"""Moments of another network are refused, whatever the file says that they are of."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from onnx_prune import models
from onnx_prune.passes.algebra.moments import ActivationStatistics, MomentsSet
from onnx_prune.passes.channels.measured import check_moments
from onnx_prune.passes.errors import ReadError
from onnx_prune.runtime.analysis import analyse
from onnx_prune.runtime.data.inputs import model_inputs
from onnx_prune.runtime.data.open import open_data
from onnx_prune.runtime.measure.calibrate import Calibration, calibrate


@pytest.fixture(scope="module")
def read():
    analysis = analyse(models.digits_model())
    data = open_data(str(models.digits_data()[1]), model_inputs(analysis.graph.source), samples=8)
    labelled = analysis.groups.labelled
    return labelled, calibrate(labelled, data, settings=Calibration(activations=True))


def test_its_own_are_taken(read):
    check_moments(*read, "m.npz")


@pytest.mark.parametrize("other", [{"channels": 9, "kernel": 32}, {"channels": 1, "kernel": 288}])
def test_of_other_channels_they_are_not(read, other):
    labelled, moments = read
    consumers = {
        **moments.consumers,
        "layer1.0.conv2": tuple(replace(m, **other) for m in moments.groups("layer1.0.conv2")),
    }
    with pytest.raises(ReadError, match=r"m.npz: .layer1.0.conv2. has"):
        check_moments(labelled, replace(moments, consumers=consumers), "m.npz")


def test_nor_of_several_groups_where_there_is_one(read):
    labelled, moments = read
    consumers = {**moments.consumers, "logits": moments.groups("logits") * 2}
    with pytest.raises(ReadError, match="the moments are spoilt"):
        check_moments(labelled, MomentsSet(moments.graph_sha256, consumers), "m.npz")


def test_nor_statistics_of_other_channels(read):
    labelled, moments = read
    name = next(iter(moments.activations))
    wrong = {name: ActivationStatistics(*np.zeros((3, 5)))}
    with pytest.raises(ReadError, match="statistics of 5 channels"):
        check_moments(labelled, replace(moments, activations=wrong), "m.npz")
