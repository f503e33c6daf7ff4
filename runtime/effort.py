"""How much is computed for a run with data: one table of what `--effort` means."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ..passes.errors import UsageError

NORMAL = "normal"
_LEAST_PAIRED = 32  # samples
_ALIKE, _OF_SMALL = 16, 8  # positions of a map of which one is taken; as many of a small map at least
_ENOUGH = 12  # samples for several levels to be worth more than twice as many for one


@dataclass(frozen=True, slots=True)
class Effort:
    """How many samples and positions each stage of a run looks at.

    moments: samples that moments are taken of, at most
    levels: shares of a group's units that go when its sensitivity is measured; half of them alone, where three would
        leave too few samples
    sensitivity: forward passes over all samples that measuring it may cost, about
    probes: samples that it is measured on, at least and at most
    positions: of a layer's rows in its refit, patches a sample
    rows: of a layer's refit as a multiple of its inputs, at least, and at least so many at all
    refit: samples that layers are refitted on, at most
    rounds: of a fit in front of an activation, at most
    pairs: output positions that two layers are fitted together on, at most, and for how many forward passes over all
        samples
    epochs: of that
    """

    moments: int
    levels: tuple[float, ...]
    sensitivity: float
    probes: tuple[int, int]
    positions: int
    rows: tuple[int, int]
    refit: int
    rounds: int
    pairs: tuple[int, float]
    epochs: int

    def paired(self, samples: int, grid: int) -> int:
        """On how many of so many samples a pair of layers with so many output positions is fitted.

        An epoch takes three times what the two take forward.
        """
        positions, passes = self.pairs
        affords = int(passes * samples / (3 * max(self.epochs, 1)))
        return min(max(positions // max(grid, 1), _LEAST_PAIRED), affords, samples)

    def probed(self, samples: int, groups: int) -> tuple[int, tuple[float, ...]]:
        """On how many samples the sensitivity of so many groups is measured, and at which levels.

        A level of a group runs half of the network, on average.
        """
        most = self._probes(samples, groups)
        levels = self.levels if most / len(self.levels) >= _ENOUGH else (0.5,)
        return max(self.probes[0], min(int(most / len(levels)), self.probes[1])), levels

    def affords_whole(self, samples: int, groups: int) -> bool:
        """Whether there is time to measure what it does when a group goes entirely: else none does."""
        return self._probes(samples, groups) / len(self.levels) >= _ENOUGH / 4

    def _probes(self, samples: int, groups: int) -> float:
        """Samples for all levels of a group."""
        return self.sensitivity * samples * 2 / max(groups, 1)

    def fitted_on(self, samples: int, inputs: int, grid: int) -> int:
        """Of how many of so many samples the rows of a layer are: large maps have positions enough in few of them.

        Of a map of side s, s^2 / 16 positions tell something of their own, at least eight.
        """
        times, least = self.rows
        rows = max(times * inputs, least)
        return min(samples, -(-rows // max(grid // _ALIKE, _OF_SMALL)))

    def positions_of(self, samples: int, inputs: int) -> int:
        """Patches a sample for the refit of a layer with so many inputs (channels times kernel positions)."""
        times, least = self.rows
        most = max(self.positions, -(-least // max(samples, 1)))
        return max(1, min(most, -(-max(times * inputs, least) // max(samples, 1))))


EFFORTS: Mapping[str, Effort] = {
    "quick": Effort(256, (0.5,), 0.2, (8, 64), 16, (16, 4096), 256, 4, (0, 0.0), 0),
    NORMAL: Effort(1024, (0.25, 0.5, 0.75), 0.5, (4, 256), 32, (48, 16384), 2048, 3, (65536, 1.5), 2),
    "thorough": Effort(1 << 30, (0.25, 0.5, 0.75), 1e9, (64, 256), 32, (1 << 20, 16384), 1 << 30, 8, (131072, 8.0), 4),
}


def make_effort(word: str) -> Effort:
    """The effort of that name. Raises UsageError."""
    if word not in EFFORTS:
        raise UsageError(f"there is no '{word}'", where="--effort", fix=f"choose one of {', '.join(EFFORTS)}")
    return EFFORTS[word]
