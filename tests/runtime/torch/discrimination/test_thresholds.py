"""One threshold for all layers: each ends where its own loss flattens, and the budget holds."""

from __future__ import annotations

import pytest
from onnx_prune.runtime.torch.discrimination.thresholds import width_at, widths_within

LOSSES = {"steep": (8.0, 4.0, 2.0, 1.0, 0.5, 0.25), "flat": (8.0, 3.0, 2.9, 2.88, 2.87, 2.86)}
UNITS = {"steep": 5, "flat": 5}


def cost(widths):
    return 3.0 * widths["steep"] + widths["flat"]


@pytest.mark.parametrize(
    ("threshold", "width"), [(0.0, 5), (0.04, 5), (0.0625, 4), (0.125, 3), (0.3, 2), (0.5, 1), (9.0, 1)]
)
def test_a_layer_ends_at_the_first_choice_that_lowers_the_loss_by_less(threshold, width):
    assert width_at(LOSSES["steep"], 5, 1, threshold) == width


def test_choices_of_several_channels_count_by_the_channel():
    assert width_at((8.0, 4.0, 3.0, 2.5), 5, 2, 0.0625) == 4  # a fall of 1 / 8 for two channels
    assert width_at((8.0, 4.0, 3.0, 2.5), 5, 2, 0.0) == 5  # no more than there are


@pytest.mark.parametrize("limit", range(4, 21))
def test_the_network_holds_the_limit_and_nothing_that_the_next_threshold_gives_fits_any_more(limit):
    kept = widths_within(LOSSES, UNITS, 1, cost, limit)
    assert cost(kept) <= limit
    wider = [{**kept, name: kept[name] + 1} for name in kept if kept[name] < 5]
    tried = {t: {n: width_at(of, 5, 1, t) for n, of in LOSSES.items()} for t in (i / 1000 for i in range(1000))}
    holding = min(t for t, widths in tried.items() if cost(widths) <= limit)
    assert all(kept[name] >= tried[holding][name] for name in kept)
    below = tried[max(holding - 0.001, 0.0)]
    assert not any(cost(w) <= limit and all(w[n] <= below[n] for n in w) for w in wider)


def test_a_limit_out_of_reach_is_said():
    assert widths_within(LOSSES, UNITS, 1, cost, 3) is None
