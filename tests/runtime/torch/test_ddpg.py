"""The agent of AMC learns from the end of an episode alone."""

from __future__ import annotations

from copy import deepcopy

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


def test_an_update_is_that_of_the_paper_step_by_step():
    """y = r - b + Q'(s', mu'(s')), nothing after the last step; Adam on both; targets that follow by a hundredth."""
    agent = Agent(3, steps=2, warmup=0, least=0.2, seed=3)
    numbers = np.random.default_rng(0)
    for row in range(6):
        states, later = numbers.random(3), numbers.random(3)
        agent._memory.add((states, float(numbers.random()), float(-numbers.random()), later, float(row % 2)))
    agent._mean = -0.4
    actor, critic, (slow_actor, slow_critic) = deepcopy((agent._actor, agent._critic, agent._targets))
    before = deepcopy((slow_actor, slow_critic))
    chosen = [agent._memory.rows[i] for i in deepcopy(agent._rng).integers(0, 6, 64)]
    columns = [np.asarray(column, np.float32).reshape(64, -1) for column in zip(*chosen, strict=True)]
    states, actions, rewards, later, goes_on = map(torch.from_numpy, columns)
    with torch.no_grad():
        y = rewards + 0.4 + goes_on * slow_critic(later, slow_actor(later))
    step = torch.optim.Adam(critic.parameters(), 1e-3)
    (critic(states, actions) - y).square().mean().backward()
    step.step()
    step = torch.optim.Adam(actor.parameters(), 1e-4)
    (-critic(states, actor(states)).mean()).backward()
    step.step()
    agent._update()
    for found, wanted in ((agent._actor, actor), (agent._critic, critic)):
        for one, other in zip(found.parameters(), wanted.parameters(), strict=True):
            torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-7)
    for found, old, quick in zip(agent._targets, before, (actor, critic), strict=True):
        for one, slow, new in zip(found.parameters(), old.parameters(), quick.parameters(), strict=True):
            torch.testing.assert_close(one, 0.99 * slow + 0.01 * new, rtol=1e-5, atol=1e-7)
