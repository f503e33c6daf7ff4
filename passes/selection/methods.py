"""How the groups' widths grow together: each method is a growth from the least to the whole network."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import ClassVar, Literal, Protocol

import numpy as np

from ..needs import Need
from .ranking import Ranking
from .tradeoff import convex_slopes
from .words import choose

Array = np.ndarray
EPSILON = 1e-9  # of a unit: 0.7 * 10 is 7


class Growth(Protocol):
    """Widths of all groups, step by step."""

    @property
    def steps(self) -> int:
        """Step 0 keeps the least, this one the whole network."""
        ...

    def widths(self, step: int) -> Array:
        """(groups,) float64, no width falls from one step to the next."""
        ...

    def turns(self, step: int) -> Array:
        """The groups that are to be cut, in the order in which they get their next unit after `step`."""
        ...


class Method(Protocol):
    """A frozen dataclass whose fields are its options.

    ends: whether there is a least that the method comes to by itself, which need not be as little as the budget.
    """

    ends: ClassVar[bool]

    @property
    def protect(self) -> float:
        """The share of every group that stays."""
        ...

    def growth(self, frame: Frame, rankings: Mapping[str, Ranking]) -> Growth:
        """From the least to the whole network."""
        ...


@dataclass(frozen=True, slots=True)
class Frame:
    """Within what the widths may move.

    names: of all groups
    units: (groups,) int64, how many each has
    least: (groups,) int64, the fewest each may keep, but for 0
    align: (groups,) int64; a group that is cut keeps a multiple of its number
    goes: (groups,) bool, those that may keep 0 as well; None where there are none
    """

    names: tuple[str, ...]
    units: Array
    least: Array
    align: Array
    goes: Array | None = None

    @property
    def fewest(self) -> Array:
        """The fewest units that each may keep."""
        return self.least if self.goes is None else np.where(self.goes, 0, self.least)

    def aligned(self, widths: Array) -> Array:
        """The largest allowed widths up to `widths`: whole, or a multiple of align; never below the fewest."""
        down = np.floor((widths + EPSILON) / self.align).astype(np.int64) * self.align
        cut = np.where(down < self.least, self.fewest, down)
        return np.where(widths + EPSILON >= self.units, self.units, cut)


@dataclass(frozen=True, slots=True)
class Uniform:
    """Every group keeps the same share."""

    protect: float = 0.0
    ends: ClassVar[bool] = False
    needs: ClassVar[frozenset[Need]] = frozenset()

    def growth(self, frame: Frame, rankings: Mapping[str, Ranking]) -> Growth:  # noqa: ARG002 - a Method's form
        """Rankings are not looked at."""
        return _UniformGrowth(frame)


@dataclass(frozen=True, slots=True)
class _UniformGrowth:
    frame: Frame
    steps: int = 2**20

    def widths(self, step: int) -> Array:
        return np.maximum(self.frame.least, self.frame.units * (step / self.steps))

    def turns(self, step: int) -> Array:
        frame = self.frame
        reached = (frame.aligned(self.widths(step)) + frame.align) / frame.units
        order = np.argsort(reached, kind="stable")
        return order[frame.least[order] < frame.units[order]]


@dataclass(frozen=True, slots=True)
class Global:
    """One ranking of all units of all groups, the least harmful goes first.

    Harms of different groups are made comparable by their mean: h_i / mean(h), h_i the harm that unit i adds (never
    less than that of those before it); those that are comparable as they are (in units of the loss) stay so.

    Source of the normalisation: Fang et al., DepGraph, CVPR 2023.

    protect: the share of every group that stays, against layers that collapse
    """

    protect: float = 0.1
    ends: ClassVar[bool] = False
    needs: ClassVar[frozenset[Need]] = frozenset()

    def growth(self, frame: Frame, rankings: Mapping[str, Ranking]) -> Growth:
        """Needs the ranking of every group that may be cut."""
        parts = []
        for number in np.flatnonzero(frame.least < frame.units).tolist():
            units, least = int(frame.units[number]), int(frame.least[number])
            ranking = rankings[frame.names[number]]
            added = np.maximum.accumulate(np.diff(ranking.harm, prepend=0))
            mean = 1.0 if ranking.comparable else added.mean() or 1.0
            gone = np.arange(units - least)
            parts.append(np.stack([added[gone] / mean, gone / units, np.full(len(gone), number)]))
        harm, share, group = np.concatenate(parts, axis=1) if parts else np.zeros((3, 0))
        order = np.lexsort((group, share, harm))
        return _GivenBack(frame, group[order[::-1]].astype(np.int64))


@dataclass(frozen=True, slots=True, eq=False)
class Error:
    """The least sum of the groups' harms under the budget: what a unit adds to it, over what it costs, decides.

    harms must be comparable as they are: relative errors of reconstruction, or what `sensitivity` makes of them. Each
    harm is replaced by its lower convex hull.

    costs: of one unit of each group, in the unit of the budget (see tradeoff.savings), all alike where it is left out
    protect: the share that stays of every group that does not go entirely
    whole: whether those do that may
    """

    protect: float = 0.05
    costs: Array | None = None
    whole: bool = False
    ends: ClassVar[bool] = False
    needs: ClassVar[frozenset[Need]] = frozenset({"costs"})

    def growth(self, frame: Frame, rankings: Mapping[str, Ranking]) -> Growth:
        """Needs the ranking of every group that may be cut."""
        parts = []
        for number in np.flatnonzero(frame.fewest < frame.units).tolist():
            gone = int(frame.units[number]) - int(frame.fewest[number])
            cost = 1.0 if self.costs is None else max(float(self.costs[number]), 1e-12)
            slopes = convex_slopes(rankings[frame.names[number]].harm[:gone]) / cost
            parts.append(np.stack([slopes, np.arange(gone), np.full(gone, number)]))
        harm, step, group = np.concatenate(parts, axis=1) if parts else np.zeros((3, 0))
        order = np.lexsort((group, step, harm))
        return _GivenBack(frame, group[order[::-1]].astype(np.int64))


@dataclass(frozen=True, slots=True, eq=False)
class Sensitivity(Error):
    """`Error` on harms that the whole network gives, see runtime/measure/sensitivity.py."""

    needs: ClassVar[frozenset[Need]] = frozenset({"costs", "sensitivity", "moments"})


@dataclass(frozen=True, slots=True)
class Trim:
    """Only units whose harm is well below that of their group go, in groups of the least mean harm first.

    Unit i goes if h_i < mean(h) - deviations * std(h) of its group, h_i being the harm that it adds. With the criterion
    `apoz` h is the share of activations that are not zero, so that what goes has an APoZ above mean + std, and the
    groups of highest mean APoZ are trimmed first. A budget is where trimming stops, if it gets that far.
    Source: Hu et al., Network trimming, 2016, section 3.
    """

    deviations: float = 1.0
    protect: float = 0.0
    ends: ClassVar[bool] = True
    needs: ClassVar[frozenset[Need]] = frozenset()

    def growth(self, frame: Frame, rankings: Mapping[str, Ranking]) -> Growth:
        """Needs the ranking of every group that may be cut."""
        least, means = frame.units.copy(), np.full(len(frame.units), np.inf)
        for number in np.flatnonzero(frame.least < frame.units).tolist():
            added = np.diff(rankings[frame.names[number]].harm, prepend=0)
            few = int((added < added.mean() - self.deviations * added.std() - EPSILON).sum())
            align = frame.align[number]
            kept = -(-(frame.units[number] - few) // align) * align
            least[number] = max(frame.least[number], min(kept, frame.units[number]))
            means[number] = added.mean()
        order = np.argsort(means, kind="stable")
        return _GivenBack(replace(frame, least=least), np.repeat(order, (frame.units - least)[order])[::-1])


@dataclass(frozen=True, slots=True)
class Amc:
    """Widths that an agent learns: group after group it says which share stays, and is paid by the accuracy at the end.

    episodes: networks that are tried
    warmup: of these, the first ones, whose shares are drawn at random
    images: samples that accuracy is measured on, none of which anything is fitted to
    least: the share of every group that stays
    reward: -error, or -error * log(MACs), which asks for small networks where the budget leaves it open
    Source: He et al., AMC, ECCV 2018, section 3, and the authors' code, which tries 800.
    """

    episodes: int = 400
    warmup: int = 100
    images: int = 1000
    least: float = 0.2
    reward: Literal["error", "error-macs"] = "error"
    ends: ClassVar[bool] = False
    needs: ClassVar[frozenset[Need]] = frozenset({"moments", "samples"})

    @property
    def protect(self) -> float:
        """The share of every group that stays."""
        return self.least

    def growth(self, frame: Frame, rankings: Mapping[str, Ranking]) -> Growth:
        """Equal shares, which say before the search whether the budget is in reach; what follows is `amc.Walk`."""
        return Uniform().growth(frame, rankings)

    def paid(self, error: float, macs: float) -> float:
        """The reward of a network. error: share of the samples that it gets wrong."""
        return -error * (1.0 if self.reward == "error" else float(np.log(max(macs, 2.0))))


@dataclass(frozen=True, slots=True, eq=False)
class _GivenBack:
    """Units that come back one by one.

    frame: within what the widths may move
    back: the group of every unit above the least, in the order in which they come back
    """

    frame: Frame
    back: Array

    @property
    def steps(self) -> int:
        return len(self.back)

    def widths(self, step: int) -> Array:
        return self.frame.fewest + np.bincount(self.back[:step], minlength=len(self.frame.units)).astype(np.float64)

    def turns(self, step: int) -> Array:
        groups, first = np.unique(self.back[step:], return_index=True)
        return groups[np.argsort(first)]


METHODS: dict[str, type[Method]] = {
    "uniform": Uniform,
    "global": Global,
    "error": Error,
    "sensitivity": Sensitivity,
    "trim": Trim,
    "amc": Amc,
}


def make_method(chosen: str | Method) -> Method:
    """The method of that word with its default options; a Method is itself. Raises UsageError."""
    return choose(METHODS, chosen, "--allocation")
