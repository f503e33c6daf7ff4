"""Passes and their options as words: what is written is what is chosen, and the other way round."""

from __future__ import annotations

from dataclasses import fields

import pytest
from onnx_prune.passes.errors import UsageError
from onnx_prune.passes.selection.criteria import criteria, make_criterion
from onnx_prune.passes.selection.criteria.moments.obs import Obs
from onnx_prune.passes.selection.criteria.moments.thinet import Thinet
from onnx_prune.passes.selection.criteria.weights.l1 import L1
from onnx_prune.passes.selection.methods import METHODS, Error, Global, make_method
from onnx_prune.passes.selection.words import word


@pytest.mark.parametrize(
    ("text", "chosen"),
    [
        ("l1", L1()),
        ("l1:greedy", L1(greedy=True)),
        ("l1:greedy,residual=shortcut", L1(greedy=True, residual="shortcut")),
        ("thinet:centred=no", Thinet(centred=False)),
        ("obs:ridge=0.01,swaps=20", Obs(ridge=0.01, swaps=20)),
    ],
)
def test_a_word_with_options_is_the_pass_and_the_pass_is_the_word(text, chosen):
    assert make_criterion(text) == chosen
    assert word(chosen) == text


def test_methods_have_options_too():
    assert make_method("global:protect=0.2") == Global(protect=0.2)
    assert make_method("error:protect=0.1").protect == 0.1


@pytest.mark.parametrize("table", [criteria(), METHODS], ids=["criteria", "methods"])
def test_the_word_of_every_pass_names_it(table):
    for name, chosen in table.items():
        assert word(chosen()) == name


def test_what_is_no_text_is_no_option():
    assert "costs" in {f.name for f in fields(Error)}
    with pytest.raises(UsageError, match="there is no option 'costs'"):
        make_method("error:costs=1")


@pytest.mark.parametrize(
    ("text", "message", "fix"),
    [
        ("best", "there is no 'best'", "l1"),
        ("obs:swap=3", "there is no option 'swap'", "ridge, swaps"),
        ("obs:swaps=many", "'swaps=many' is not a value of this option", "swaps= and a whole number"),
        ("obs:ridge", "'ridge' is not a value of this option", "ridge= and a number"),
        ("l1:residual=x", "'residual=x' is not a value of this option", "sum or shortcut"),
        ("random:x=1", "there is no option 'x'", "leave out"),
    ],
)
def test_an_error_says_what_there_is(text, message, fix):
    with pytest.raises(UsageError, match=message) as error:
        make_criterion(text)
    assert fix in error.value.fix
