"""Every public argument of a wrong kind is an error that says what, where and what to give."""

import inspect

import onnx_prune
import pytest
from onnx_prune.passes.errors import UsageError
from onnx_prune.pipeline.arguments import checked

FUNCTIONS = ("prune", "inspect", "sensitivity", "apply", "evaluate", "finetune")
ARGUMENTS = [
    (name, argument) for name in FUNCTIONS for argument in inspect.signature(getattr(onnx_prune, name)).parameters
]


def required(name):
    """Arguments of that function which it cannot do without: their values are not looked at."""
    parameters = inspect.signature(getattr(onnx_prune, name)).parameters.values()
    return {p.name: "nowhere.onnx" for p in parameters if p.default is p.empty}


@pytest.mark.parametrize("wrong", [object(), 2.5j, ["a"]])
@pytest.mark.parametrize(("name", "argument"), ARGUMENTS)
def test_an_argument_of_a_wrong_kind_is_said(name, argument, wrong):
    with pytest.raises(UsageError) as error:
        getattr(onnx_prune, name)(**{**required(name), argument: wrong})
    assert argument in error.value.where
    assert " is not a" in error.value.what or "is not data" in error.value.what
    assert error.value.fix.startswith("give ")


@pytest.mark.parametrize(
    ("argument", "wrong"),
    [
        ("allocation", 3),
        ("criterion", 3),
        ("align", 2.0),
        ("samples", True),
        ("seed", -1),
        ("threads", 0),
        ("measure", 1),
    ],
)
def test_numbers_are_no_words_and_truth_is_no_number(argument, wrong):
    with pytest.raises(UsageError, match=" is not a"):
        onnx_prune.prune("nowhere.onnx", **{argument: wrong})


def test_none_is_taken_where_it_is_said_and_else_refused():
    with pytest.raises(onnx_prune.ReadError):  # the model, not the arguments
        onnx_prune.prune("nowhere.onnx", threads=None, criterion=None)
    with pytest.raises(UsageError, match="None is not a truth value"):
        onnx_prune.prune("nowhere.onnx", measure=None)


def test_an_argument_without_a_kind_cannot_be_forgotten():
    with pytest.raises(AssertionError, match="every public argument"):
        checked(lambda nobody: nobody)
