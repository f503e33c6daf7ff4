"""The strategies of papers: which channels, how many where, which refit, and which layers stay.

A preset touches groups by what they are in the graph, never by their names. docs/methods.md says which sections of the
papers are meant.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np

from ..channels.groups import ChannelGroups
from ..errors import UsageError
from .frames import Align
from .layers import convolutions, first_convolutions, own_convolutions, rectified, sampled_convolutions, stage_starts
from .papers import LI, Shares

Extra = Literal["samplers", "placers"]
Touches = Callable[[ChannelGroups], frozenset[str]]


@dataclass(frozen=True, slots=True)
class Preset:
    """What is implied where nothing is said.

    criterion, allocation, reconstruct: as on the command line
    align: what kept counts are multiples of; a paper's strategy means its own widths, 1
    touches: groups -> names of those that may be cut; None for all
    spares: groups -> names of those that stay of them because they are sensitive, where nothing can be measured; None
        for none of them. Where there are data `most_sensitive` says it
    extra: what the model gets first, so that more of its layers lose channels of their own: "samplers" in front of the
        first layers of branches (passes/channels/extras.py), "placers" behind the last (passes/channels/extras.py)
    shares: groups -> name -> share of its units that stays, for strategies that say it themselves; None: a budget does
    """

    criterion: str
    allocation: str
    reconstruct: str
    align: Align = 1
    touches: Touches | None = None
    spares: Touches | None = None
    extra: Extra | None = None
    shares: Shares | None = None


def make_preset(word: str) -> Preset:
    """Raises UsageError for a word that names none."""
    if word not in PRESETS:
        raise UsageError(f"there is no '{word}'", where="--preset", fix=f"choose one of {', '.join(PRESETS)}")
    return PRESETS[word]


def most_sensitive(harm: Mapping[str, float]) -> frozenset[str]:
    """Those whose harm is above the mean and one standard deviation of all."""
    values = np.array(list(harm.values()))
    return frozenset(name for name, value in harm.items() if value > values.mean() + values.std())


def _li(network: str) -> Preset:
    return Preset(LI[network].criterion, "uniform", "none", shares=LI[network].shares)


PRESETS: dict[str, Preset] = {
    "thinet": Preset("thinet:centred=no", "uniform", "scalar", touches=first_convolutions),
    "li": Preset("l1", "uniform", "none", touches=convolutions, spares=stage_starts),
    **{f"li:{network}": _li(network) for network in LI},
    "apoz": Preset("apoz", "trim", "none", touches=rectified),
    "ccp": Preset("ccp:linear", "uniform", "none", touches=convolutions),
    "ccp-ac": Preset("ccp-ac:linear", "uniform", "none", touches=convolutions),
    "taylor": Preset("taylor:form=activation,flops=0.001", "global:protect=0", "none"),
    "amc": Preset("l1:of=readers", "amc", "full"),
    "channel-pruning": Preset(
        "channel-pruning", "uniform", "sequential", touches=sampled_convolutions, extra="samplers"
    ),
    "sfp": Preset("l2", "uniform", "bias", touches=own_convolutions, extra="placers"),
    "dcp": Preset("dcp", "uniform", "none", touches=convolutions),
    "dcp-adapt": Preset("dcp-adapt", "uniform", "none", touches=convolutions),
    "nisp": Preset("nisp", "uniform", "none", touches=convolutions),
}
