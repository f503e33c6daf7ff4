"""What a setting implies: the table, the calibration data, and needs that nothing meets."""

from dataclasses import dataclass

import pytest
from onnx_prune.passes.errors import UsageError
from onnx_prune.passes.selection.criteria import criteria
from onnx_prune.passes.selection.methods import METHODS
from onnx_prune.passes.selection.ranking import Ranking
from onnx_prune.pipeline.settings import (
    IMPLIED,
    NONE,
    SYNTHETIC_IF_IMAGES,
    Settings,
    make_settings,
    make_strategy,
)


@dataclass(frozen=True)
class Own:
    """A criterion that declares nothing."""

    def rank(self, group, _evidence):
        return Ranking.by_score(range(group.units))


@pytest.mark.parametrize(
    ("settings", "data", "words"),
    [
        ({}, True, ("Obs", "Sensitivity", "sequential", "auto")),
        ({"moments": "m.npz"}, False, ("Obs", "Error", "full", "auto")),
        ({}, False, ("L2", "Uniform", "none", "auto")),
        ({"preset": "thinet"}, True, ("Thinet", "Uniform", "scalar", 1)),
        ({"preset": "li", "criterion": "fpgm", "align": 4}, True, ("Fpgm", "Uniform", "none", 4)),
        ({"criterion": "l1", "allocation": "global"}, True, ("L1", "Global", "sequential", "auto")),
    ],
)
def test_what_is_not_said_is_in_the_table(settings, data, words):
    chosen = make_strategy(Settings(**settings), data=data)
    assert (
        type(chosen.criterion).__name__,
        type(chosen.allocation).__name__,
        chosen.reconstruct,
        chosen.align,
    ) == words


@pytest.mark.parametrize(
    ("settings", "calibration"),
    [
        ({}, SYNTHETIC_IF_IMAGES),
        ({"criterion": "l1"}, NONE),
        ({"criterion": "l2", "allocation": "uniform", "reconstruct": "none"}, NONE),
        ({"criterion": "l1", "reconstruct": "full"}, SYNTHETIC_IF_IMAGES),
        ({"criterion": "l1", "allocation": "sensitivity"}, SYNTHETIC_IF_IMAGES),
        ({"criterion": "thinet"}, SYNTHETIC_IF_IMAGES),
        ({"allocation": "uniform"}, SYNTHETIC_IF_IMAGES),
        ({"reconstruct": "none"}, SYNTHETIC_IF_IMAGES),
        ({"preset": "thinet"}, SYNTHETIC_IF_IMAGES),
        ({"preset": "li"}, NONE),
        ({"preset": "li", "criterion": "obs"}, SYNTHETIC_IF_IMAGES),
        ({"criterion": Own()}, NONE),
        ({"moments": "m.npz"}, NONE),
        ({"criterion": "l1", "calibration": "images"}, "images"),
        ({"calibration": NONE}, NONE),
    ],
)
def test_synthetic_images_serve_whoever_needs_data_or_names_no_criterion(settings, calibration):
    assert make_settings(Settings(**settings)).calibration == calibration


@pytest.mark.parametrize(
    ("settings", "what", "where"),
    [
        ({"criterion": "obs"}, "'obs' needs the moments", "--criterion"),
        ({"criterion": "apoz"}, "'apoz' needs statistics of activations", "--criterion"),
        ({"criterion": "taylor:batch=2"}, "'taylor:batch=2' needs gradients", "--criterion"),
        ({"allocation": "sensitivity"}, "'sensitivity' needs", "--allocation"),
        ({"reconstruct": "channel"}, "'channel' needs the moments", "--reconstruct"),
        ({"reconstruct": "sequential"}, "'sequential' needs the samples", "--reconstruct"),
        ({"reconstruct": "sequential", "moments": "m.npz"}, "'sequential' needs the samples", "--reconstruct"),
        ({"criterion": "fisher", "moments": "m.npz"}, "'fisher' needs gradients", "--criterion"),
    ],
)
def test_a_need_that_nothing_meets_is_one_error(settings, what, where):
    with pytest.raises(UsageError, match=what) as error:
        make_strategy(Settings(**settings), data=False)
    assert error.value.where == where
    assert "--calibration" in error.value.fix
    make_strategy(Settings(**settings), data=True)


def test_every_criterion_and_allocation_of_ours_declares_its_needs():
    assert all(hasattr(kind, "needs") for kind in (*criteria().values(), *METHODS.values()))


def test_who_declares_nothing_may_look_at_all_there_is():
    moments = frozenset({"moments"})
    plain = {"allocation": "uniform", "reconstruct": "none"}
    assert make_strategy(Settings(criterion=Own(), **plain), data=True).may_use(moments)
    assert not make_strategy(Settings(criterion="l1", **plain), data=True).may_use(moments)


@pytest.mark.parametrize("row", IMPLIED)
def test_every_row_of_the_table_is_in_force_with_data(row):
    chosen = make_strategy(Settings(preset=row), data=True)
    assert chosen.reconstruct == IMPLIED[row].reconstruct
