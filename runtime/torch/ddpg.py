"""The agent of AMC: deep deterministic policy gradients over one number between 0 and 1.

Lillicrap et al., Continuous control with deep reinforcement learning, 2015; He et al., AMC, 2018, section 3.2, and the
authors' code for what the paper leaves open: two hidden layers of 300, rates 1e-4 (actor) and 1e-3 (critic), batches of
64, targets that follow by 0.01, a memory of 100 episodes, an update a step after the warm-up.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor, nn

Array = np.ndarray
_HIDDEN, _BATCH, _FOLLOWS = 300, 64, 0.01
_ACTOR_RATE, _CRITIC_RATE = 1e-4, 1e-3
_MEMORY = 100  # episodes
_NOISE, _DECAY = 0.5, 0.95  # of the first episode after the warm-up, and from each to the next
_BASELINE = 0.05  # how far the moving mean of rewards goes to the newest
_TRIES = 100  # draws from the truncated normal distribution before its bound is taken


@contextmanager
def _one_thread() -> Generator[None]:
    """Networks this small gain nothing from more, and on busy cores threads that wait for one another take minutes."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


class _Critic(nn.Module):
    """Q(s, a): (n, states), (n, 1) -> (n, 1)."""

    def __init__(self, states: int) -> None:
        super().__init__()
        self.of_state, self.of_action = nn.Linear(states, _HIDDEN), nn.Linear(1, _HIDDEN)
        self.rest = nn.Sequential(nn.ReLU(), nn.Linear(_HIDDEN, _HIDDEN), nn.ReLU(), nn.Linear(_HIDDEN, 1))

    def forward(self, states: Tensor, actions: Tensor) -> Tensor:
        return self.rest(self.of_state(states) + self.of_action(actions))


def _actor(states: int) -> nn.Sequential:
    layers = [nn.Linear(states, _HIDDEN), nn.ReLU(), nn.Linear(_HIDDEN, _HIDDEN), nn.ReLU(), nn.Linear(_HIDDEN, 1)]
    return nn.Sequential(*layers, nn.Sigmoid())


@dataclass(slots=True)
class _Memory:
    """Transitions (s, a, r, s', whether the episode goes on), the oldest of which go."""

    most: int
    rows: list[tuple[Array, float, float, Array, float]] = field(default_factory=list)

    def add(self, row: tuple[Array, float, float, Array, float]) -> None:
        self.rows.append(row)
        del self.rows[: -self.most]

    def drawn(self, rng: np.random.Generator) -> list[Tensor]:
        """A batch: states, actions, rewards, states after, whether they go on; columns for single numbers."""
        chosen = [self.rows[i] for i in rng.integers(0, len(self.rows), _BATCH)]
        columns = [np.asarray(column, np.float32).reshape(_BATCH, -1) for column in zip(*chosen, strict=True)]
        return [torch.from_numpy(column) for column in columns]


class Agent:
    """Says what to do in a state, and learns from what whole episodes were worth.

    states: numbers in a state; steps: of an episode; warmup: episodes in which actions are drawn at random;
    least: the smallest action. The same seed and rewards give the same actions, on one thread of a CPU.
    """

    def __init__(self, states: int, steps: int, warmup: int, least: float, seed: int) -> None:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self._actor, self._critic = _actor(states), _Critic(states)
        self._targets = deepcopy(self._actor), deepcopy(self._critic)
        self._actor_step = torch.optim.Adam(self._actor.parameters(), _ACTOR_RATE)
        self._critic_step = torch.optim.Adam(self._critic.parameters(), _CRITIC_RATE)
        self._rng = np.random.default_rng(seed)
        self._memory = _Memory(_MEMORY * steps)
        self._warmup, self._least = warmup, least
        self._episode = 0
        self._mean: float | None = None

    def act(self, state: Array) -> float:
        """At random in the warm-up, then the actor's word with noise from a truncated normal distribution."""
        if self._episode < self._warmup:
            return float(self._rng.uniform(self._least, 1))
        with torch.no_grad(), _one_thread():
            wanted = float(self._actor(torch.from_numpy(np.asarray(state, np.float32)[None])))
        spread = _NOISE * _DECAY ** (self._episode - self._warmup)
        for _ in range(_TRIES):
            action = float(self._rng.normal(wanted, spread))
            if self._least <= action <= 1:
                return action
        return float(np.clip(wanted, self._least, 1))

    def learn(self, states: Sequence[Array], actions: Sequence[float], reward: float) -> None:
        """An episode is over: every step of it is paid what its end was worth."""
        after = [*states[1:], states[-1]]
        with _one_thread():
            for at, (state, action, later) in enumerate(zip(states, actions, after, strict=True)):
                self._memory.add((state, action, reward, later, float(at + 1 < len(states))))
                if self._episode >= self._warmup:
                    self._update()
        self._mean = reward if self._mean is None else self._mean + _BASELINE * (reward - self._mean)
        self._episode += 1

    def _update(self) -> None:
        """One step: y = r - b + Q'(s', mu'(s')) for the critic, the gradient of Q(s, mu(s)) for the actor."""
        states, actions, rewards, after, goes_on = self._memory.drawn(self._rng)
        actor, critic = self._targets
        with torch.no_grad():
            wanted = rewards - (self._mean or 0.0) + goes_on * critic(after, actor(after))
        self._critic_step.zero_grad()
        nn.functional.mse_loss(self._critic(states, actions), wanted).backward()
        self._critic_step.step()
        self._actor_step.zero_grad()
        (-self._critic(states, self._actor(states)).mean()).backward()
        self._actor_step.step()
        for target, source in zip(self._targets, (self._actor, self._critic), strict=True):
            for slow, quick in zip(target.parameters(), source.parameters(), strict=True):
                slow.data.lerp_(quick.data, _FOLLOWS)
