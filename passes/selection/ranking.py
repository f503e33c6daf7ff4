"""The order in which a group's units go, and what a criterion may look at to find it."""

from __future__ import annotations

import os
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

import numpy as np
import onnx_graphsurgeon as gs

from ..algebra.moments import MomentsSet
from ..channels.activations import Activation, activations_read
from ..channels.affine import AffineConsumer, affine_consumers
from ..channels.groups import ChannelGroup, ChannelGroups, Key
from ..errors import OnnxPruneError, UsageError, a_kind
from ..graph.model import constant_values
from ..rewrite.affine_path import AffinePaths

Array = np.ndarray


@dataclass(frozen=True, slots=True, eq=False)
class Ranking:
    """The units of a group in the order in which they are to go.

    order: (units,) int64
    harm: (units,) float64, the estimated harm when order[: i + 1] are gone. It never falls, and it means what the
        criterion says it does
    comparable: whether harms of different groups are in the same units
    """

    order: Array
    harm: Array
    comparable: bool = False

    def __repr__(self) -> str:
        return f"Ranking({len(self.order)} units, harm up to {self.harm.max(initial=0):.3g})"

    @staticmethod
    def by_score(scores: Array) -> Ranking:
        """Smallest score first; of equals the one with the smaller number. The harm of several is their sum."""
        assert (scores >= 0).all(), "a score is the harm of one unit"
        order = np.argsort(scores, kind="stable")
        return Ranking(order, np.cumsum(np.asarray(scores, np.float64)[order]))


@dataclass(frozen=True, slots=True, eq=False)
class Evidence:
    """What is known of the network when a group is ranked.

    seed: of everything that is drawn
    removed: one bool a label, what is already gone upstream, for criteria that need it
    moments: of the consumers' inputs on calibration data
    gradients: group name -> (samples, units) float64, of the loss by the units' gates, where the criterion asks for
        them
    """

    groups: ChannelGroups
    seed: int = 0
    removed: Array | None = None
    moments: MomentsSet | None = None
    gradients: Mapping[str, Array] | None = None
    _tensors: dict[str, gs.Tensor] = field(default_factory=dict, repr=False)
    _consumers: list[tuple[AffineConsumer, ...]] = field(default_factory=list, repr=False)
    _activations: dict[str, tuple[Activation, ...]] = field(default_factory=dict, repr=False)
    _paths: list[AffinePaths] = field(default_factory=list, repr=False)
    _scores: dict[Callable[[Evidence], Array], Array] = field(default_factory=dict, repr=False)

    def __repr__(self) -> str:
        return f"Evidence({self.groups!r}, moments={self.moments!r}, gradients={list(self.gradients or ())})"

    def weight(self, key: Key) -> Array:
        """The values of the constant as they are stored; nothing is dequantised."""
        if not self._tensors:
            self._tensors.update(self.groups.labelled.graph.gs.tensors())
        values = constant_values(self._tensors[key.constant])
        assert values is not None, f"{key.constant} is not a constant"
        return values

    @property
    def consumers(self) -> tuple[AffineConsumer, ...]:
        """`affine_consumers` of the network, read once."""
        if not self._consumers:
            self._consumers.append(tuple(affine_consumers(self.groups.labelled)))
        return self._consumers[0]

    @property
    def activations(self) -> Mapping[str, tuple[Activation, ...]]:
        """`activations_read` of the network, found once."""
        if not self._activations:
            self._activations.update(activations_read(self.groups.labelled))
        return self._activations

    def matrix(self, consumer: AffineConsumer) -> Array:
        """Its W, (n, C, k) float64, as the layer counts behind its BatchNormalization: times that one's scale."""
        if not self._paths:
            self._paths.append(AffinePaths(self.groups.labelled.graph))
        rank = len(self.groups.labelled.axes[consumer.name])
        path = self._paths[0](consumer.name, (rank, consumer.layout.result, len(consumer.b)))
        return consumer.W * path.scale[:, None, None]

    def scores(self, score: Callable[[Evidence], Array]) -> Array:
        """What a criterion finds for the whole network at once, (component,) float64, computed for the first group."""
        if score not in self._scores:
            self._scores[score] = score(self)
        return self._scores[score]

    def present(self, key: Key) -> Array:
        """`weight(key)` without the indices of the other axes that are gone upstream."""
        values, axes = self.weight(key), self.groups.labelled.constants[key[:2]].labels
        if self.removed is None:
            return values
        for axis, labels in enumerate(axes):
            gone = (labels >= 0) & self.removed[labels]
            if axis != key.axis and gone.any():
                values = np.compress(~gone, values, axis)
        return values


class Criterion(Protocol):
    """A frozen dataclass whose fields are its options; `needs` says what it looks at besides the weights (needs.py)."""

    def rank(self, group: ChannelGroup, evidence: Evidence) -> Ranking:
        """Rank all units of a free group."""
        ...


@runtime_checkable
class Refining(Protocol):
    """A criterion that can better its choice once it is known how many units go."""

    def refine(self, group: ChannelGroup, evidence: Evidence, removed: Array) -> Array:
        """As many units as `removed`, the first of the ranking's order."""
        ...


def ranked(criterion: Criterion, group: ChannelGroup, evidence: Evidence) -> Ranking:
    """The criterion's ranking of a free group; one of the user's own is checked.

    Raises UsageError where that fails, or its ranking is none: not every unit once, harms that are no numbers.
    """
    with _users_own(criterion, "rank", group):
        found = criterion.rank(group, evidence)
    if _is_ours(criterion):
        return found
    if not isinstance(found, Ranking):
        raise _no_ranking(criterion, group, f"{a_kind(found)} is no Ranking")
    order, harm = _as_units(found.order, group.units), _as_numbers(found.harm, group.units)
    if order is None or len(np.unique(order)) < group.units or order.max() >= group.units:
        raise _no_ranking(criterion, group, f"its order does not name each of the {group.units} units once")
    if harm is None:
        raise _no_ranking(criterion, group, f"its harm is not {group.units} numbers")
    return Ranking(order, harm, bool(found.comparable))


def refined(criterion: Refining, group: ChannelGroup, evidence: Evidence, removed: Array) -> Array:
    """The criterion's better choice of as many units; one of the user's own is checked as `ranked` does."""
    with _users_own(criterion, "refine", group):
        found = criterion.refine(group, evidence, removed)
    if _is_ours(criterion):
        return found
    chosen = _as_units(found, len(removed))
    if chosen is None or len(np.unique(chosen)) < len(removed) or chosen.max(initial=0) >= group.units:
        raise _no_ranking(criterion, group, f"what it refines is not {len(removed)} different units")
    return chosen


def _is_ours(criterion: object) -> bool:
    return type(criterion).__module__.startswith(f"{__name__.partition('.passes.')[0]}.")


@contextmanager
def _users_own(criterion: object, method: str, group: ChannelGroup) -> Generator[None]:
    """Raise UsageError where a criterion of the user's own fails; what fails in ours is a bug of ours."""
    try:
        yield
    except OnnxPruneError:
        raise
    except Exception as error:
        if _is_ours(criterion):
            raise
        raise UsageError(
            f"the criterion fails: {type(error).__name__}: {error}",
            where=f"{type(criterion).__name__}.{method}, group '{group.name}'",
            fix="the error that this one was raised from has its line",
        ) from error


def _no_ranking(criterion: object, group: ChannelGroup, what: str) -> UsageError:
    return UsageError(
        f"the criterion gives no ranking: {what}",
        where=f"{type(criterion).__name__}, group '{group.name}'",
        fix="return a Ranking, such as Ranking.by_score of one number a unit (docs/methods.md)",
    )


def _as_units(given: object, count: int) -> Array | None:
    """(count,) int64, none negative; None where it is not that."""
    array = np.asarray(given)
    fits = array.dtype.kind in "iu" and array.shape == (count,)
    return array.astype(np.int64) if fits and (array >= 0).all() else None


def _as_numbers(given: object, count: int) -> Array | None:
    """(count,) float64, none of them NaN; None where it is not that."""
    array = np.asarray(given)
    if array.dtype.kind not in "iuf" or array.shape != (count,) or np.isnan(array).any():
        return None
    return array.astype(np.float64)


class Rankings(Mapping[str, Ranking]):
    """The rankings of the free groups, by name, each made when it is asked for; nothing is gone upstream.

    Residual streams, whose many layers take longest to rank, often stay whole and are not asked for.
    """

    def __init__(self, criterion: Criterion, evidence: Evidence) -> None:
        self._criterion, self._evidence = criterion, evidence
        self._names = [group.name for group in evidence.groups.free]
        self._made: dict[str, Ranking] = {}

    def of(self, names: Iterable[str], told: Callable[[int, int], object] | None = None) -> dict[str, Ranking]:
        """Those of some groups, made side by side, one a core: the work is numpy's, which lets other threads go on.

        told: how many are made, of how many, whenever there is one more.
        """
        chosen = list(names)
        made: dict[str, Ranking] = {}
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            for name, ranking in zip(chosen, pool.map(self.__getitem__, chosen), strict=True):
                made[name] = ranking
                if told is not None:
                    told(len(made), len(chosen))
        return made

    @property
    def made(self) -> dict[str, Ranking]:
        """Those that were asked for so far, in the order of the groups."""
        return {name: self._made[name] for name in self._names if name in self._made}

    def __getitem__(self, name: str) -> Ranking:
        if name not in self._made:
            self._made[name] = ranked(self._criterion, self._evidence.groups[name], self._evidence)
        return self._made[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)


def rank_groups(criterion: Criterion, evidence: Evidence) -> dict[str, Ranking]:
    """The ranking of every free group, by its name; nothing is gone upstream."""
    rankings = Rankings(criterion, evidence)
    return rankings.of(rankings)
