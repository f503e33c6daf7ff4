"""The greedy algorithm: again and again the channel of a layer's input with the largest gradient is chosen.

    A <- {};  W <- 0
    repeat:   k <- argmax over channels not in A of |dL/dW_k|_F;  A <- A + k;  a pass of gradient descent on W_A
    until     A has `most` channels, or |L_(t-1) - L_t| / L_0 <= tolerance for each channel of the choice

Source: Zhuang et al., NeurIPS 2018, algorithm 2, section 3.4 (the stop by tolerance: eq. 12).
"""

from __future__ import annotations

from typing import NamedTuple, Protocol

import numpy as np

Array = np.ndarray


class Layer(Protocol):
    """What is chosen for: the weights of what reads the channels."""

    def look(self) -> tuple[float, Array]:
        """The loss at the weights as they are, and |dL/dW_k|_F of every channel, (channels,) float64."""
        ...

    def admit(self, channels: Array) -> None:
        """From now on these have weights as well."""
        ...

    def descend(self) -> None:
        """One pass of gradient descent on the weights of the channels that are admitted."""
        ...


class Chosen(NamedTuple):
    """units: those that stay, ascending; losses: L_0 without any, and after each choice."""

    units: tuple[int, ...]
    losses: tuple[float, ...]


def choose_greedily(layer: Layer, most: int, *, tolerance: float | None = None, at_once: int = 1) -> Chosen:
    """The channels that stay: `most` of them, or fewer where the loss hardly falls any more, one at least.

    tolerance: of the stop, None for none; at_once: channels a round, 1 in the paper.
    """
    first, gradients = layer.look()
    chosen = np.zeros(len(gradients), bool)
    losses = [first]
    while chosen.sum() < most:
        count = min(at_once, most - int(chosen.sum()))
        order = np.argsort(-np.where(chosen, -np.inf, gradients), kind="stable")
        chosen[order[:count]] = True
        layer.admit(order[:count])
        layer.descend()
        loss, gradients = layer.look()
        losses.append(loss)
        if tolerance is not None and abs(losses[-2] - loss) <= tolerance * count * abs(first):
            break
    return Chosen(tuple(np.flatnonzero(chosen).tolist()), tuple(losses))
