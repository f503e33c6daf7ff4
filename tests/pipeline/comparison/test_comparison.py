"""Methods beside one another: what a row says, that rows are finished one at a time, shared, and gone on with."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from contextlib import nullcontext

import numpy as np
import onnx
import onnx_prune
import pytest
from onnx_prune import models
from onnx_prune.models import NetBuilder
from onnx_prune.passes.errors import ReadError, UsageError
from onnx_prune.passes.selection.budget import Budget
from onnx_prune.pipeline.comparison.contenders import Contender, Published, Terms, contenders
from onnx_prune.pipeline.comparison.rows import Failed, Store
from onnx_prune.pipeline.comparison.run import compare
from onnx_prune.pipeline.training.rounds import Schedule
from onnx_prune.runtime.torch.training.recipe import Recipe

TEST, CALIBRATION = (str(path) for path in models.digits_data())
QUICK = {"calibration": CALIBRATION, "samples": 64, "align": 1, "measure": False}


def terms(**other):
    given = {"model": models.digits_model(), "evaluation": TEST, "budget": Budget(macs=0.5), "settings": QUICK}
    return Terms(**{**given, **other})


def test_a_row_says_what_prune_and_evaluate_say(tmp_path):
    method = Contender(
        "weights", {"criterion": "l1", "allocation": "uniform", "reconstruct": "none"}, published=Published(cut=50)
    )
    (outcome,) = compare(terms(), [method], tmp_path / "c")
    alone = onnx_prune.prune(models.digits_model(), budget=0.5, **QUICK, **method.settings)
    before, after = (onnx_prune.evaluate(m, TEST) for m in (models.digits_model(), alone.model))
    row = outcome.row
    assert row is not None
    assert (row.before, row.cut, row.tuned) == ((before.top1, before.top5), (after.top1, after.top5), None)
    assert (row.macs, row.params) == (alone.report.macs, alone.report.params)
    assert (row.words, row.published["cut"]) == ("l1, uniform, none", 50)
    assert row.cut[0] < row.before[0]


def test_all_are_fine_tuned_alike_and_the_last_epoch_counts(tmp_path):
    recipe = Recipe(epochs=2, batch=100, rate=0.02)
    methods = contenders(["l1", "random"])
    rows = [o.row for o in compare(terms(train=CALIBRATION, recipe=recipe), methods, tmp_path / "c")]
    for row, method in zip(rows, methods, strict=True):
        cut = onnx_prune.prune(models.digits_model(), budget=0.5, **QUICK, **method.settings)
        tuned = onnx_prune.finetune(cut.model, CALIBRATION, teacher=models.digits_model(), recipe=recipe)
        assert row.tuned[0] == onnx_prune.evaluate(tuned.model, TEST).top1
        assert tuned.best == 2


def test_accuracy_may_be_measured_on_some_samples_the_same_for_all(tmp_path):
    few = terms(evaluate_samples=90)
    rows = [o.row for o in compare(few, contenders(["l1", "random"]), tmp_path)]
    some = onnx_prune.evaluate(models.digits_model(), TEST, samples=90)
    assert [row.before for row in rows] == [(some.top1, some.top5)] * 2
    assert all(round(row.cut[0] * 90, 9).is_integer() for row in rows)
    assert few.key != terms().key


def test_rows_that_are_finished_are_not_made_again_and_others_are_added(tmp_path):
    told = []
    first = [o.row for o in compare(terms(), contenders(["l1"]), tmp_path, told.append)]
    assert told
    told.clear()
    again = list(compare(terms(), contenders(["l1", "l2"]), tmp_path, told.append))
    assert [o.row.name for o in again] == ["l1", "l2"]
    assert again[0].row == first[0]
    assert all(stage.startswith("l2: ") for stage in told)


def test_what_a_kill_has_left_of_a_row_is_gone_on_from(tmp_path):
    recipe = Recipe(epochs=2, batch=100, rate=0.02)
    given = terms(train=CALIBRATION, recipe=recipe)
    (whole,) = compare(given, contenders(["l1"]), tmp_path / "whole")
    told = []

    def stop(stage):
        told.append(stage)
        if "epoch 2 of 2" in stage:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        list(compare(given, contenders(["l1"]), tmp_path / "c", stop))
    (unfinished,) = (tmp_path / "c").glob("*.unfinished")
    assert (unfinished / "cut.onnx").exists()
    told.clear()
    (outcome,) = compare(given, contenders(["l1"]), tmp_path / "c", told.append)
    assert not any("calibrating" in stage or "epoch 1" in stage for stage in told)
    assert not unfinished.exists()
    assert (outcome.row.cut, outcome.row.tuned, outcome.row.macs) == (whole.row.cut, whole.row.tuned, whole.row.macs)


HOLD = """
import sys, time
from pathlib import Path
from onnx_prune.pipeline.comparison.rows import Store
with Store(Path(sys.argv[1]), "").claimed(sys.argv[2]) as mine:
    print(mine, flush=True)
    time.sleep(60)
"""


def test_a_row_that_another_process_makes_is_left_to_it_until_it_is_killed(tmp_path):
    methods = contenders(["l1", "l2"])
    with subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path), methods[0].key], stdout=subprocess.PIPE) as other:
        assert other.stdout.readline().strip() == b"True"
        outcomes = list(compare(terms(), methods, tmp_path))
        assert [(o.contender.name, o.row is None, o.error) for o in outcomes] == [
            ("l2", False, None),
            ("l1", True, None),
        ]
        other.kill()
    outcomes = list(compare(terms(), methods, tmp_path))
    assert sorted(o.row.name for o in outcomes) == ["l1", "l2"]


def test_a_row_whose_process_is_killed_meanwhile_is_made_in_the_end(tmp_path):
    methods, killed = contenders(["l1", "l2"]), []
    with subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path), methods[0].key], stdout=subprocess.PIPE) as other:
        assert other.stdout.readline().strip() == b"True"
        for outcome in compare(terms(), methods, tmp_path):
            if outcome.contender.name == "l2":
                other.kill()
                other.wait()
            killed.append(outcome.row.name)
    assert killed == ["l2", "l1"]


def test_a_method_that_fails_does_not_end_the_others(tmp_path):
    methods = [Contender("too much", {"criterion": "l1"}, budget=Budget(macs=1e-6)), *contenders(["l2"])]
    outcomes = list(compare(terms(), methods, tmp_path))
    assert "cannot be met" in str(outcomes[0].error)
    assert outcomes[1].row.name == "l2"
    again = {o.contender.name: o.error is None for o in compare(terms(), methods, tmp_path)}
    assert again == {"too much": False, "l2": True}


def test_what_has_failed_in_another_process_is_not_tried_again(tmp_path):
    """Unless a run begins anew, which may have more room, or another version."""
    hopeless, told = Contender("too much", {"criterion": "l1"}, budget=Budget(macs=1e-6)), []
    methods = [*contenders(["l2"]), hopeless]
    outcomes = compare(terms(), methods, tmp_path, told.append)
    assert next(outcomes).row is not None
    said = Failed("too much", "no", "there", "less")
    Store(tmp_path, "").fail(hopeless.key, said)
    told.clear()
    (last,) = outcomes
    assert (last.failed, last.row, last.error, told) == (said, None, None, [])
    anew = next(o for o in compare(terms(), methods, tmp_path) if o.contender is hopeless)
    assert "cannot be met" in anew.failed.what


def test_a_folder_of_other_terms_is_refused(tmp_path):
    list(compare(terms(), contenders(["l1"]), tmp_path))
    for other in ({"budget": Budget(macs=0.6)}, {"settings": {**QUICK, "samples": 65}}, {"evaluation": CALIBRATION}):
        with pytest.raises(UsageError, match="other terms"):
            list(compare(terms(**other), contenders(["l1"]), tmp_path))


ROW = {"name": "l1", "words": "l1", "before": [1, 1], "cut": None, "tuned": None, "macs": [2, 1], "params": [2, 1]}
ROW |= {"milliseconds": None, "minutes": 1, "published": None}
WRONG = [{"name": 1}, {"before": None}, {"macs": [1]}, {"params": ["a", "b"]}, {"cut": 0.5}, {"minutes": "1"}]
SPOILT = [b"\xff\xfe", b"[" * 100_000, b"[]", b"null", b"", b"9" * 5000, json.dumps({"name": "l1"}).encode()]
SPOILT += [json.dumps({**ROW, **wrong}).encode() for wrong in [*WRONG, {"published": {"after": "93"}}]]


@pytest.mark.parametrize("text", SPOILT)
def test_a_spoilt_row_is_said(tmp_path, text):
    (method,) = contenders(["l1"])
    store = Store(tmp_path, "")
    store.open()
    (tmp_path / f"{method.key}.json").write_text(json.dumps(ROW))
    assert store.row(method.key).macs == (2, 1)
    (tmp_path / f"{method.key}.json").write_bytes(text)
    with pytest.raises(ReadError, match="what an earlier run has kept cannot be read"):
        store.row(method.key)


@pytest.mark.parametrize("name", ["terms", "original.json", "cut.json"])
@pytest.mark.parametrize("spoilt", [b"\xff\xfe", b"null", "a pipe"])
def test_spoilt_state_is_said(tmp_path, name, spoilt):
    (method,) = contenders(["l1"])
    given, told = terms(), []
    list(compare(given, [method], tmp_path))
    (tmp_path / f"{method.key}.json").unlink()  # as if it had been stopped
    file = Store(tmp_path, "").work(method.key) / name if name == "cut.json" else tmp_path / name
    file.unlink(missing_ok=True)
    os.mkfifo(file) if spoilt == "a pipe" else file.write_bytes(spoilt)
    with pytest.raises(ReadError if spoilt != b"null" else UsageError) if name == "terms" else nullcontext():
        told += compare(given, [method], tmp_path)
    assert name == "terms" or "cannot be read" in str(told[0].error)


def test_what_makes_no_sense_is_refused_before_the_work(tmp_path):
    for words, said in ((["nothing"], "no method"), (["l1", "l1"], "named twice"), ([], "no method is named")):
        with pytest.raises(UsageError, match=said):
            contenders(words)
    images = tmp_path / "images.npz"
    np.savez(images, input=np.load(TEST)["input"])
    with pytest.raises(UsageError, match="accuracy needs labels"):
        list(compare(terms(evaluation=str(images)), contenders(["l1"]), tmp_path / "c"))
    net = NetBuilder("map", (1, 8, 8))
    onnx.save(net.model(net.conv(net.relu(net.conv(net.input, "a", 8, 3), "r"), "b", 2, 1)), tmp_path / "map.onnx")
    with pytest.raises(UsageError, match="no output of the model has the form"):
        list(compare(terms(model=tmp_path / "map.onnx"), contenders(["l1"]), tmp_path / "c"))
    turns = Contender("soft", {}, Schedule("soft"))
    with pytest.raises(UsageError, match="cuts and trains in turns"):
        list(compare(terms(), [turns], tmp_path / "c"))


def test_methods_of_other_settings_have_other_rows():
    keys = [
        Contender("a", {"criterion": "l1"}).key,
        Contender("a", {"criterion": "l2"}).key,
        Contender("a", {"criterion": "l1"}, budget=Budget(macs=0.3)).key,
        Contender("a", {"criterion": "l1"}, Schedule("steps", 2)).key,
    ]
    assert len(set(keys)) == 4
    assert Contender("Pruning Filters (B)").key.startswith("pruning-filters--b-")


def test_terms_are_what_the_recipe_says_but_not_who_decodes():
    same, workers, other = (
        terms(recipe=Recipe(**r)).key for r in ({"rate": 0.1}, {"rate": 0.1, "workers": 3}, {"rate": 0.2})
    )
    assert same == workers
    assert len({same, other, terms(recipe=Recipe()).key, terms().key}) == 4
