"""A recipe: how the rate goes, what is refused, and the file that says it."""

from __future__ import annotations

import math

import pytest
from onnx_prune.passes.errors import ReadError, UsageError
from onnx_prune.runtime.torch.training.recipe import Recipe
from onnx_prune.runtime.torch.training.recipe_file import read_recipe


def rates(recipe, steps=20):
    return [recipe.rate_at(step, steps) for step in range(steps)]


def test_the_rate_falls_at_milestones_and_not_between():
    """DCP on CIFAR: 0.1, a tenth of it from epoch 160 of 400 on, a hundredth from 240."""
    recipe = Recipe(epochs=400, rate=0.1, warmup=0, schedule_rate="steps", milestones=(160, 240))
    found = rates(recipe)
    assert found == pytest.approx([0.1] * 8 + [0.01] * 4 + [0.001] * 8)


def test_a_constant_rate_stays():
    assert rates(Recipe(rate=1e-3, warmup=0, schedule_rate="constant")) == [1e-3] * 20
    rising = rates(Recipe(rate=1.0, warmup=0.1, schedule_rate="constant"))
    assert rising == pytest.approx([1 / 3, 2 / 3] + [1.0] * 18)


def test_the_cosine_ends_near_zero():
    found = rates(Recipe(rate=2.0, warmup=0))
    assert found == pytest.approx([1 + math.cos(math.pi * step / 20) for step in range(20)])


@pytest.mark.parametrize(
    "wrong",
    [
        {"schedule_rate": "steps"},
        {"milestones": (3,)},
        {"schedule_rate": "constant", "milestones": (3,)},
        {"schedule_rate": "linear"},
        {"updates": -1},
        {"gamma": 2},
        {"precision": "float8"},
    ],
)
def test_what_makes_no_sense_is_refused(wrong):
    with pytest.raises(UsageError):
        Recipe(**wrong)


def test_between_two_cuts_the_milestones_of_the_whole_are_left_out():
    recipe = Recipe(epochs=12, rate=1e-3, schedule_rate="steps", milestones=(4, 8), updates=5)
    assert recipe.between() == Recipe(epochs=1, rate=1e-3, schedule_rate="constant")
    assert Recipe(epochs=9).between() == Recipe(epochs=1)


def test_a_recipe_is_read_from_a_file(tmp_path):
    file = tmp_path / "dcp.toml"
    file.write_text(
        'epochs = 400\nrate = 0.1\ndecay = 1e-4\nlabels = 1\nschedule-rate = "steps"\nmilestones = [160, 240]\n'
        'augment = ["crop", "flip"]\nbatch_norm = false\n',
        encoding="utf-8",
    )
    assert Recipe(**read_recipe(file)) == Recipe(
        epochs=400,
        rate=0.1,
        decay=1e-4,
        labels=1.0,
        schedule_rate="steps",
        milestones=(160, 240),
        augment=("crop", "flip"),
        batch_norm=False,
    )


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("rtae = 0.1", "no 'rtae'"),
        ("epochs = 2.5", "a whole number"),
        ("epochs = true", "a whole number"),
        ('rate = "fast"', "a number"),
        ("batch_norm = 1", "true or false"),
        ("augment = 'flip'", "a list of words"),
        ("milestones = ['x']", "a list of numbers"),
        ("precision = 16", "a word"),
    ],
)
def test_a_file_with_what_a_recipe_does_not_have_is_refused(tmp_path, text, said):
    (tmp_path / "r.toml").write_text(text, encoding="utf-8")
    with pytest.raises(UsageError, match=said):
        read_recipe(tmp_path / "r.toml")


@pytest.mark.parametrize("content", [None, b"epochs = ", b"\xff\xfe"])
def test_what_is_no_file_is_refused(tmp_path, content):
    if content is not None:
        (tmp_path / "r.toml").write_bytes(content)
    with pytest.raises(ReadError, match="cannot be read as TOML"):
        read_recipe(tmp_path / "r.toml")


def test_who_says_no_rate_starts_gently_and_who_says_one_has_sgd():
    gentle = Recipe(epochs=3).settled()
    assert (gentle.optimiser, gentle.rate, gentle.average, gentle.frozen_statistics) == ("adam", 3e-4, 0.998, True)
    assert gentle.settled() == gentle
    said = [Recipe(rate=0.1), Recipe(optimiser="sgd"), Recipe(scratch=True)]
    said += [Recipe(schedule_rate="steps", milestones=(2,))]
    for recipe in said:
        found = recipe.settled()
        assert (found.optimiser, found.average, found.frozen_statistics) == ("sgd", 0, False)
        assert found.rate == (0.1 if recipe.rate else 0.004)
    assert Recipe(frozen_statistics=False, average=0.0).settled().rate == 3e-4
    assert not Recipe(frozen_statistics=False).settled().frozen_statistics
    assert Recipe(optimiser="adam").settled().rate == 3e-4
    assert Recipe().settled(gentle=False).optimiser == "sgd"
