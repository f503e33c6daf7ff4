"""Adaptive stopping under a budget: the threshold, one for all layers, at which the network that is left holds it.

A layer ends at the first choice t with |L_(t-1) - L_t| <= threshold * L_0 (Zhuang et al., NeurIPS 2018, eq. 12): where
the loss flattens early few channels stay, where it falls long many do. The paper chooses the threshold, and gets the
network that follows; here the losses of one run in which no layer is held back say which threshold a budget needs.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence

Measure = Callable[[Mapping[str, int]], float]  # of the channels that layers keep: what the network costs


def width_at(losses: Sequence[float], units: int, at_once: int, threshold: float) -> int:
    """How many channels a layer has when it ends. losses: L_0, L_1, ..., one more a choice of `at_once` channels."""
    for number in range(1, len(losses)):
        if abs(losses[number - 1] - losses[number]) <= threshold * at_once * abs(losses[0]):
            return min(number * at_once, units)
    return min((len(losses) - 1) * at_once, units)


def widths_within(
    losses: Mapping[str, Sequence[float]], units: Mapping[str, int], at_once: int, measure: Measure, limit: float
) -> dict[str, int] | None:
    """The widths at the smallest threshold that holds the limit, and of the next smaller one what still fits.

    None where even the largest threshold does not.
    """
    found = {
        abs(before - after) / (at_once * abs(of[0]))
        for of in losses.values()
        for before, after in itertools.pairwise(of)
    }
    thresholds = [0.0, *sorted(found)]

    def widths(number: int) -> dict[str, int]:
        return {name: width_at(of, units[name], at_once, thresholds[number]) for name, of in losses.items()}

    low, high = -1, len(thresholds) - 1
    if measure(widths(high)) > limit:
        return None
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if measure(widths(middle)) <= limit else (middle, high)
    kept = widths(high)
    for name, wider in widths(max(low, 0)).items():
        while kept[name] < wider and measure({**kept, name: kept[name] + 1}) <= limit:
            kept[name] += 1
    return kept
