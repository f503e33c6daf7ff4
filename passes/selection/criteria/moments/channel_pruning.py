"""Channel pruning. He, Zhang, Sun, Channel pruning for accelerating very deep neural networks, ICCV 2017, section 3."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from ....needs import Need
from .lasso import Lasso


@dataclass(frozen=True, slots=True)
class ChannelPruning(Lasso):
    """`lasso` for widths; once these are known, layer by layer on what the network delivers as it is pruned so far.

    Targets are the original's, of residual sums less the shortcut as it is now (runtime/select_on_pruned.py).
    """

    needs: ClassVar[frozenset[Need]] = frozenset({"moments", "samples"})
