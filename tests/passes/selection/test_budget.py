"""Budgets read what people write."""

from __future__ import annotations

import json

import pytest
from onnx_prune.passes.errors import UsageError
from onnx_prune.passes.selection.budget import Budget


@pytest.mark.parametrize(
    ("given", "kind", "share", "amount"),
    [
        ({}, "macs", True, 0.5),
        ({"macs": 0.3}, "macs", True, 0.3),
        ({"macs": "30%"}, "macs", True, 0.3),
        ({"macs": 1}, "macs", True, 1),
        ({"macs": "1.5G"}, "macs", False, 1_500_000_000),
        ({"params": "10M"}, "params", False, 10_000_000),
        ({"params": 2000}, "params", False, 2000),
        ({"size": "20MB"}, "size", False, 20_000_000),
        ({"size": "20 MiB"}, "size", False, 20 * 2**20),
        ({"latency": 5}, "latency", False, 5),
        ({"latency": "0.5ms"}, "latency", False, 0.5),
        ({"latency": "250us"}, "latency", False, 0.25),
        ({"latency": 0.5}, "latency", True, 0.5),
        ({"channels": ("40%",)}, "channels", True, 0.4),
    ],
)
def test_amounts_are_shares_up_to_one_and_absolute_above_or_with_a_unit(given, kind, share, amount):
    budget = Budget(**given)
    assert (budget.kind, budget.is_share, budget.amount) == (kind, share, amount)
    assert budget.limit(1000) == (amount * 1000 if share else amount)


def test_channels_by_pattern_come_from_the_command_line_or_a_mapping():
    budget = Budget(channels=("layer3.*=40%", "a=b=0.5"))
    assert budget.shares == {"layer3.*": 0.4, "a=b": 0.5}
    assert budget == Budget(channels={"layer3.*": "40%", "a=b": 0.5})
    assert Budget(channels=0.5).shares is None


@pytest.mark.parametrize(
    "given",
    [{}, {"macs": 0.3}, {"size": "20MB"}, {"latency": "0.5ms"}, {"latency": 0.5}, {"channels": {".*": 0.4}}],
)
def test_json_round_trip(given):
    budget = Budget(**given)
    assert Budget.from_json(json.loads(json.dumps(budget.to_json()))) == budget


@pytest.mark.parametrize(
    "given",
    [
        *({"macs": value} for value in (0, -1, "nan", float("inf"), "150%", "5ms", "", "half", True)),
        *({"channels": value} for value in ({}, [], "(=40%", "x=300", "=40%", {"x": 7})),
        {"macs": 0.5, "size": 0.5},
        {"size": "5 parsecs"},
        {"size": "1B"},
        {"latency": "0ms"},
    ],
    ids=str,
)
def test_nonsense_is_a_usage_error_that_names_the_option(given):
    with pytest.raises(UsageError) as caught:
        Budget(**given)
    assert all(f"--{name}" in str(caught.value) for name in given)


@pytest.mark.parametrize("data", [[], {}, {"macs": 0.5, "size": 0.5}, {"speed": 2}, None])
def test_json_that_is_no_budget_is_refused(data):
    with pytest.raises(UsageError):
        Budget.from_json(data)
