"""Networks of any widths, stitched together from refits that are computed once."""

from __future__ import annotations

import numpy as np
import onnx_prune
import pytest
from onnx import numpy_helper
from onnx_prune import models
from onnx_prune.models import NetBuilder
from onnx_prune.passes.channels.apply_removal import apply_removal
from onnx_prune.passes.graph.export import to_model
from onnx_prune.passes.rewrite.one_shot import Refits, refit_once
from onnx_prune.runtime.data.inputs import model_inputs
from onnx_prune.runtime.data.open import open_data
from onnx_prune.runtime.measure.calibrate import calibrate
from onnx_prune.runtime.measure.evaluate import accuracy
from onnx_prune.runtime.search.stitched import Stitched, refits_of


@pytest.fixture(scope="module")
def parts():
    analysis = onnx_prune.inspect(models.digits_model())
    inputs = model_inputs(analysis.graph.source)
    test, calibration = (open_data(path, inputs, samples=128) for path in models.digits_data())
    return analysis, test, calibrate(analysis.groups.labelled, calibration)


def chosen(groups):
    def choose(kept):
        return {g.name: range(g.units - int(n)) for g, n in zip(groups.groups, kept, strict=True) if n < g.units}

    return choose


def widths(analysis, share):
    units = analysis.cost.units
    return np.where(analysis.cost.free, np.maximum((units * share).astype(int), 1), units)


def weights(model):
    return {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}


def test_kept_refits_are_those_of_one_cut(parts):
    analysis, test, moments = parts
    labelled, choose = analysis.groups.labelled, chosen(analysis.groups)
    stitched = Stitched(analysis.groups, choose, refits_of(analysis.groups, moments, "sequential"), test, "cpu")
    for share in (0.5, 0.75, 0.5):
        kept = widths(analysis, share)
        removed = analysis.groups.removed_labels(choose(kept))
        cut = apply_removal(labelled, removed)
        assert refit_once(labelled, removed, cut, moments, "full") > 0
        alone, found = weights(to_model(cut)), weights(stitched.model(kept))
        assert alone.keys() == found.keys()
        assert all(np.array_equal(alone[name], found[name]) for name in alone)


def test_the_error_is_that_of_the_cut_model(parts):
    analysis, test, moments = parts
    kept = widths(analysis, 0.4)
    stitched = Stitched(
        analysis.groups, chosen(analysis.groups), refits_of(analysis.groups, moments, "full"), test, "cpu"
    )
    bare = Stitched(analysis.groups, chosen(analysis.groups), refits_of(analysis.groups, moments, "none"), test, "cpu")
    assert stitched.error(kept) == 1 - accuracy(stitched.model(kept), test).top1
    assert stitched.error(kept) < bare.error(kept)


def test_without_labels_the_original_says_what_is_right(parts):
    analysis, _, moments = parts
    images = np.load(models.digits_data()[0])["input"][:64]
    data = open_data(images, model_inputs(analysis.graph.source))
    stitched = Stitched(
        analysis.groups, chosen(analysis.groups), refits_of(analysis.groups, moments, "full"), data, "cpu"
    )
    assert stitched.error(analysis.cost.units) == 0
    assert 0 < stitched.error(widths(analysis, 0.2)) < 1


def test_what_was_used_longest_ago_goes_where_there_is_no_room(parts):
    analysis, _, moments = parts
    labelled, choose = analysis.groups.labelled, chosen(analysis.groups)
    refits = Refits(labelled, moments, "full", limit=1 << 17)
    for share in (0.3, 0.5, 0.7, 0.9):
        removed = analysis.groups.removed_labels(choose(widths(analysis, share)))
        cut, alone = apply_removal(labelled, removed), apply_removal(labelled, removed)
        assert refits.write(removed, cut) == refit_once(labelled, removed, alone, moments, "full")
        assert all(
            np.array_equal(a, b) for a, b in zip(*(weights(to_model(g)).values() for g in (cut, alone)), strict=True)
        )
    assert 0 < refits.bytes <= 1 << 17


def test_labels_are_left_aside_where_no_output_classifies_samples(parts):
    """A segmenter's data may have a class an image; what counts is how near its maps stay to the original's."""
    net = NetBuilder("map", (3, 8, 8))
    x = net.relu(net.conv(net.input, "one", 8, 3), "relu1")
    model = net.model(net.conv(net.relu(net.conv(x, "two", 8, 3), "relu2"), "head", 2, 1))
    analysis = onnx_prune.inspect(model)
    arrays = {"input": np.random.default_rng(0).standard_normal((16, 3, 8, 8)).astype(np.float32)}
    errors = []
    for extra in ({"label": np.arange(16) % 2}, {}):
        data = open_data({**arrays, **extra}, model_inputs(model))
        assert data.labelled == bool(extra)
        stitched = Stitched(analysis.groups, chosen(analysis.groups), None, data, "cpu")
        errors.append([stitched.error(widths(analysis, share)) for share in (1, 0.5)])
    assert errors[0] == errors[1]
    assert errors[0][0] == 0 < errors[0][1] < 1
