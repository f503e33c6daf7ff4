"""The search of AMC: an agent walks over the groups, again and again, and the best network that it came by is taken."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from threadpoolctl import threadpool_limits

from ..passes.algebra.moments import MomentsSet
from ..passes.errors import BudgetError
from ..passes.selection.allocate import allocate, measure_of, select
from ..passes.selection.amc import STATE, Walk, make_walk
from ..passes.selection.budget import Budget
from ..passes.selection.frames import frame_of, menus
from ..passes.selection.latency_table import LatencyTable
from ..passes.selection.methods import Amc
from ..passes.selection.ranking import Evidence, Rankings
from ..passes.selection.words import word
from ..runtime.progress import say
from ..runtime.search.rewards import Kept, search_key
from ..runtime.search.stitched import Stitched, refits_of
from .run import Run

Array = np.ndarray


@dataclass(frozen=True, slots=True, eq=False)
class Searched:
    """What a search goes by.

    exclude: names of the groups that stay; rankings: the order in which units of a group go
    """

    run: Run
    evidence: Evidence
    rankings: Rankings
    exclude: frozenset[str]

    def widths(self, method: Amc, budget: Budget, table: LatencyTable | None = None) -> Array:
        """(groups,) int64: the best of all episodes. Raises BudgetError where the budget is out of reach.

        What an episode was worth is kept in the user's cache folder: a search that was stopped goes on there.
        """
        walk = self._walk(method, budget, table)
        if not len(walk.turns):
            return walk.frame.units
        worth = self._worth(method)
        if worth.known.found:
            say(self.run.progress, f"searching widths: {worth.known.found} networks are known from an earlier run")
        return _Search(self.run, walk, method, worth).best()

    def _walk(self, method: Amc, budget: Budget, table: LatencyTable | None) -> Walk:
        cost, align = self.run.analysis.cost, self.run.strategy.align
        if table is None:
            allocate(cost, {}, budget, method=method, align=align, exclude=self.exclude)  # says what is out of reach
        least = whole = 1.0
        for multiple in menus(cost.units, align):
            frame = frame_of(cost, method.protect, multiple, self.exclude)
            measure = measure_of(cost, frame, budget.kind, table)
            least, whole = measure(frame.fewest), measure(frame.units)
            if least <= budget.limit(whole):
                return make_walk(cost, frame, measure, budget.limit(whole))
        raise BudgetError(
            f"the budget cannot be met while every group keeps {method.least:.0%}: {least / whole:.0%} can",
            where="--allocation amc",
            fix=f"ask for --{budget.kind} {least / whole:.0%}, or give it more room, as in amc:least=0.1",
            asked=budget.limit(whole) / whole,
            possible=least / whole,
        )

    def _worth(self, method: Amc) -> _Worth:
        run = self.run
        data = run.judged_on
        assert data is not None, "make_strategy has looked"
        groups, criterion, moments = run.analysis.groups, run.strategy.criterion, self.evidence.moments
        stitched = Stitched(
            groups,
            lambda kept: select(groups, kept, criterion, self.evidence, self.rankings),
            refits_of(groups, moments, run.strategy.reconstruct),
            data.first(method.images),
            run.settings.device,
        )
        words = [run.analysis.graph.source.graph.name, word(criterion), run.strategy.reconstruct, run.settings.seed]
        key = search_key(stitched.batches, self._arrays(moments), words)
        return _Worth(stitched, Kept(key))

    def _arrays(self, moments: MomentsSet | None) -> list[Array]:
        """What else errors follow from: means of what layers read, and the weights of what may be cut."""
        means = [] if moments is None else [m.mean for of in moments.consumers.values() for m in of]
        groups = self.run.analysis.groups
        constants = dict.fromkeys(key for group in groups.free for key in group.slices)
        return [*means, *(self.evidence.weight(key) for key in constants)]


@dataclass(frozen=True, slots=True)
class _Worth:
    """The error of a network of any widths, measured once."""

    stitched: Stitched
    known: Kept

    def __call__(self, kept: Array) -> float:
        error = self.known(kept)
        if error is None:
            error = self.stitched.error(kept)
            self.known.keep(kept, error)
        return error


@dataclass(slots=True, eq=False)
class _Search:
    """Episodes. Of networks that are worth the same the largest is the best: nothing speaks for cutting more."""

    run: Run
    walk: Walk
    method: Amc
    worth: _Worth
    _best: tuple[float, float, Array] | None = None
    _least: float = np.inf

    def best(self) -> Array:
        """The widths that were worth most."""
        from ..runtime.torch.ddpg import Agent  # needs torch

        method, steps = self.method, len(self.walk.turns)
        agent = Agent(STATE, steps, min(method.warmup, method.episodes), method.least, self.run.settings.seed)
        with threadpool_limits(1):
            for episode in range(method.episodes):
                self._episode(agent)
                self._tell(episode + 1)
        assert self._best is not None, "there is an episode"
        reward, _, kept = self._best
        if method.episodes > 1 and reward == self._least:
            say(self.run.progress, "searching widths: all networks are worth the same here; the largest is taken")
        return kept

    def _episode(self, agent) -> None:  # noqa: ANN001 - an Agent, which torch is loaded for
        walk, kept, last = self.walk, self.walk.frame.units.copy(), 1.0
        states, actions = [], []
        for step, group in enumerate(walk.turns.tolist()):
            states.append(walk.state(step, kept, last))
            actions.append(agent.act(states[-1]))
            kept[group] = walk.width(step, kept, actions[-1])
            last = kept[group] / walk.frame.units[group]
        reward = self.method.paid(self.worth(kept), walk.macs(kept))
        agent.learn(states, actions, reward)
        self._least = min(self._least, reward)
        spent = walk.measure(kept)
        if self._best is None or (reward, spent) > self._best[:2]:
            self._best = reward, spent, kept

    def _tell(self, done: int) -> None:
        assert self._best is not None
        right = 1 - self.worth(self._best[2])
        self.run.progress(f"searching widths: {done} of {self.method.episodes} episodes, best {right:.1%} right")
