"""Samples in one run: as many as are asked for, where the model takes them."""

from __future__ import annotations

import numpy as np
import pytest
from onnx_prune.models.resnet import resnet_cifar
from onnx_prune.passes.errors import UsageError
from onnx_prune.runtime.analysis import analyse
from onnx_prune.runtime.latency.batched import check_batch, timed_feeds


def test_a_free_batch_is_filled():
    analysis = analyse(resnet_cifar(8))
    (array,) = timed_feeds(analysis, 3).values()
    assert array.shape == (3, 3, 32, 32)


@pytest.mark.parametrize("shape", [(1, 3, 8, 8), (2, 3, 8, 8), ()])
def test_a_batch_that_no_input_takes_is_refused(shape):
    with pytest.raises(UsageError, match="does not leave open how many samples") as error:
        check_batch({"x": np.zeros(shape)}, 4)
    assert "a batch of 4; it reads x" in error.value.where


def test_what_the_model_takes_anyway_may_be_asked_for():
    check_batch({"x": np.zeros((4, 3)), "size": np.zeros(2)}, 4)
    check_batch({"x": np.zeros((7, 3))}, 1)
