"""What an error says, what it carries, and what the command line ends with."""

from __future__ import annotations

import pickle

import pytest
from onnx_prune.passes.errors import (
    AccuracyError,
    BudgetError,
    OnnxPruneError,
    ProofError,
    ReadError,
    UsageError,
)


def test_an_error_says_what_where_and_what_to_do():
    error = BudgetError("31 % can go", where="4 of 19 groups", fix="ask for less", asked=0.5, possible=0.69)
    assert str(error) == "31 % can go\n  where: 4 of 19 groups\n  fix:   ask for less"
    assert error.values == {"asked": 0.5, "possible": 0.69}
    assert str(OnnxPruneError("only what")) == "only what"


@pytest.mark.parametrize(
    ("kind", "code"), [(UsageError, 2), (ReadError, 3), (BudgetError, 4), (ProofError, 5), (AccuracyError, 6)]
)
def test_each_kind_has_its_exit_code(kind, code):
    assert issubclass(kind, OnnxPruneError)
    assert kind("x").exit_code == code


def test_an_error_survives_a_process_boundary():
    error = pickle.loads(pickle.dumps(ReadError("what", where="there", fix="that", size=3)))
    assert (str(error), error.values) == ("what\n  where: there\n  fix:   that", {"size": 3})
