"""The agent of AMC learns from the end of an episode alone."""

from __future__ import annotations

import numpy as np
import torch
from onnx_prune.runtime.torch.ddpg import Agent

WANTED = np.array([0.3, 0.9, 0.6])


def played(agent, episodes):
    actions = []
    for _ in range(episodes):
        states = [np.eye(3)[step] for step in range(3)]
        actions.append([agent.act(state) for state in states])
        agent.learn(states, actions[-1], -float(np.square(actions[-1] - WANTED).sum()))
    return np.array(actions)


def test_it_comes_to_do_what_is_worth_most():
    actions = played(Agent(3, 3, warmup=40, least=0.1, seed=0), 140)
    off = np.abs(actions - WANTED).mean(axis=1)
    assert off[:40].mean() > 0.25
    assert off[-20:].mean() < 0.12


def test_actions_stay_within_bounds_and_the_warmup_draws_all_of_them():
    actions = played(Agent(3, 3, warmup=50, least=0.2, seed=1), 60)
    assert actions.min() >= 0.2
    assert actions.max() <= 1
    assert np.ptp(actions[:50]) > 0.7


def test_the_same_seed_does_the_same_and_torchs_own_stays_as_it_was():
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    first, second, third = (played(Agent(3, 3, 10, 0.1, seed), 20) for seed in (0, 0, 1))
    assert np.array_equal(first, second)
    assert not np.array_equal(first, third)
    assert torch.rand(1) == expected
