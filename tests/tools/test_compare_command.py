"""`onnx-prune compare`: its files, its configuration, what it prints."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path

import pytest
from onnx_prune import models
from onnx_prune.pipeline.comparison import run as making
from onnx_prune.pipeline.comparison.contenders import contenders
from onnx_prune.pipeline.comparison.rows import Row, Store
from onnx_prune.tools.compare_config import read_config
from onnx_prune.tools.compare_table import as_csv, as_json, as_latex, as_text

PAGES = Path(__file__).parents[2] / "docs"
TEST, CALIBRATION = (str(path) for path in models.digits_data())
TERMS = ("--macs", "50%", "--calibration", CALIBRATION, "--samples", "64", "--evaluate", TEST, "--no-latency")
ROWS = [
    Row("Li & al.", "l1", (0.9, 1.0), (0.5, 0.9), None, (100, 45), (10, 5), (2.0, 1.234), 0.5, {"after": 93.06}),
    Row("ours_1", "obs", (0.9, 1.0), None, (0.891, 1.0), (100, 50), (10, 4), None, 12.25, None),
]


def test_a_table_in_four_forms(run, tmp_path):
    code, out, err = run("compare", "digits.onnx", "--methods", "l1,ours", *TERMS)
    assert code == 0, err
    folder = tmp_path / "digits.compare"
    text = (folder / "table.txt").read_text()
    assert text in out
    rows = json.loads((folder / "table.json").read_text())
    assert [row["name"] for row in rows] == ["l1", "ours"]
    assert all(row["macs"][1] <= 0.5 * row["macs"][0] for row in rows)
    lines = list(csv.reader((folder / "table.csv").read_text().splitlines()))
    assert [line[0] for line in lines] == ["method", "l1", "ours"]
    assert float(lines[1][2]) == pytest.approx(100 * rows[0]["cut"][0], abs=0.005)
    assert (folder / "table.tex").read_text().count(r"\\") == 3
    assert json.loads(run("compare", "digits.onnx", "--methods", "l1,ours", *TERMS, "--json")[1]) == rows


def test_a_comparison_is_a_file(run, tmp_path):
    folder = tmp_path / "study"
    folder.mkdir()
    for file in (models.digits_model(), TEST, CALIBRATION):
        (folder / Path(file).name).write_bytes(Path(file).read_bytes())
    (folder / "table.toml").write_text(
        'model = "digits.onnx"\nmacs = "50%"\ncalibration = "digits_calibration.npz"\nsamples = 64\n'
        'evaluate = "digits_test.npz"\nfinetune = "digits_calibration.npz"\nno-latency = true\noutput = "out/"\n'
        "[recipe]\nepochs = 1\nbatch = 100\n"
        '[[method]]\nname = "Pruning Filters"\npreset = "li"\nmacs = "60%"\n'
        "published = { before = 93.04, after = 93.06, cut = 27.6 }\n"
        '[[method]]\ncriterion = "l1"\nallocation = "uniform"\nreconstruct = "none"\n',
        encoding="utf-8",
    )
    code, _, err = run("compare", "--config", "study/table.toml", "--epochs", "2")
    assert code == 0, err
    rows = json.loads((folder / "out" / "table.json").read_text())
    assert [row["name"] for row in rows] == ["Pruning Filters", "l1"]
    assert rows[0]["macs"][1] > 0.5 * rows[0]["macs"][0]  # its own budget
    assert rows[1]["words"] == "l1, uniform, none"
    assert rows[0]["published"] == {"before": 93.04, "after": 93.06, "change": None, "cut": 27.6, "from_memory": False}
    assert all(row["tuned"] for row in rows)
    code, _, err = run("compare", "--config", "study/table.toml")  # one epoch, not two: other terms
    assert code == 2
    assert "other terms" in err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["compare", "--methods", "l1", "--evaluate", TEST], "MODEL is missing"),
        (["compare", "digits.onnx", "--methods", "l1"], "--evaluate is missing"),
        (["compare", "digits.onnx", "--evaluate", TEST], "no method is named"),
        (["compare", "digits.onnx", "--evaluate", TEST, "--methods", "l1,l9"], "no method 'l9'"),
        (["compare", "digits.onnx", "--evaluate", TEST, "--methods", "l1", "--epochs", "3"], "nothing to train on"),
    ],
)
def test_what_is_missing_is_said(run, files, arguments, said):
    code, out, err = run(*arguments)
    assert (code, out) == (2, "")
    assert said in err
    assert files() == ["digits.onnx"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('modle = "a"', "did you mean 'model'?"),
        ('method = "l1"', "write [[method]]"),
        ('method = ["l1"]', "write [[method]]"),
        ('[method]\npreset = "li"', "write [[method]]"),
        ("recipe = 3", "write [recipe]"),
        ("[[method]]\npublished = 93.5", "'published' is no table of numbers"),
        ('[[method]]\npublished = { after = "93.5" }', "'published' is no table of numbers"),
        ('[[method]]\ncriterium = "l1"', "'criterium' is not a key"),
        ("[[method]]\npublished = { accuracy = 3 }", "'accuracy' is not a key"),
        ("[recipe]\nepoch = 3", "a recipe has no 'epoch'"),
        ("model = ", "cannot be read as TOML"),
    ],
)
def test_what_a_file_may_not_say_is_refused(run, tmp_path, text, said):
    (tmp_path / "c.toml").write_text(text, encoding="utf-8")
    code, _, err = run("compare", "--config", "c.toml")
    assert code in (2, 3)
    assert said in err


@pytest.mark.parametrize(
    ("method", "said"),
    [
        ('preset = "thinnet"', "there is no 'thinnet'"),
        ('criterion = "l9"', "there is no 'l9'"),
        ('criterion = "dcp:at_onec=4"', "there is no option 'at_onec'"),
        ('allocation = "equal"', "there is no 'equal'"),
        ('reconstruct = "ful"', "there is no 'ful'"),
        ("reconstruct = 3", "3 is not a text"),
        ('samples = "many"', "'many' is not a whole number"),
        ('schedule = "often"', "there is no 'often'"),
        ('schedule = "steps"\nsteps = "three"', "'three' is not a whole number"),
        ("steps = 3", "3 steps of 'once'"),
        ('preset = "sfp"\nschedule = "layers"', "channel placers"),
        ("macs = true", "True"),
    ],
)
def test_a_method_that_does_not_exist_is_refused_before_any_row_is_made(run, tmp_path, method, said):
    text = f'[[method]]\nname = "first"\ncriterion = "l1"\n[[method]]\nname = "the other"\n{method}\n'
    (tmp_path / "c.toml").write_text(text, encoding="utf-8")
    code, _, err = run("compare", "digits.onnx", "--config", "c.toml", *TERMS)
    assert code == 2
    assert said in err
    assert "the other" in err
    assert "fix:" in err
    assert not (tmp_path / "digits.compare").exists()


def test_tables_say_what_there_is_and_nothing_where_there_is_none():
    text = as_text(ROWS).splitlines()
    assert len({len(line.rstrip()) for line in text[:2]}) == 1
    assert text[2].split()[:4] == ["Li", "&", "al.", "90.00"]
    assert text[3].split() == [
        "ours_1",
        "90.00",
        "-",
        "89.10",
        "50.0",
        "40.0",
        "-",
        "-",
        "12.2",
        "-",
        "-",
        "-",
        "-",
        "-",
    ]
    assert r"Li \& al. & 90.00 & 50.00 & - & 45.0" in as_latex(ROWS)
    assert r"ours\_1" in as_latex(ROWS)
    assert as_csv(ROWS).splitlines()[1] == "Li & al.,90.00,50.00,,45.0,50.0,2,1.23,0.5,,93.06,,,"
    assert json.loads(as_json(ROWS))[1]["tuned"] == [0.891, 1.0]


def test_a_method_that_failed_has_a_row_that_says_why(run, tmp_path):
    (tmp_path / "c.toml").write_text(
        '[[method]]\nname = "too much"\ncriterion = "l1"\nmacs = "0.001%"\n[[method]]\ncriterion = "l2"\n',
        encoding="utf-8",
    )
    code, out, _ = run("compare", "digits.onnx", "--config", "c.toml", *TERMS)
    assert code == 4
    folder = tmp_path / "digits.compare"
    assert (folder / "table.txt").read_text() in out
    failed, made = json.loads((folder / "table.json").read_text())
    assert (failed["name"], made["name"], made["cut"] is not None) == ("too much", "l2", True)
    assert "cannot be met" in failed["failed"]["what"]
    assert "macs" in failed["failed"]["fix"]
    for name in ("table.txt", "table.csv", "table.tex"):
        lines = [line for line in (folder / name).read_text().splitlines() if line.startswith("too much")]
        assert len(lines) == 1
        assert "the budget cannot be met" in lines[0]
    heads, *lines = csv.reader((folder / "table.csv").read_text().splitlines())
    assert heads[-1] == "failed"
    assert [len(line) for line in lines] == [len(heads)] * 2
    assert [line[-1] == "" for line in lines] == [False, True]


def test_the_last_of_several_processes_writes_the_whole_table(run, tmp_path, monkeypatch):
    """Another process has the first row, and finishes it while this one makes the second."""
    theirs, _ = contenders(["l1", "l2"])
    store, made = Store(tmp_path / "digits.compare", ""), making._Making.row
    store.folder.mkdir()

    def meanwhile(self):
        store.keep(theirs.key, replace(ROWS[0], name="l1"))
        return made(self)

    monkeypatch.setattr(making._Making, "row", meanwhile)
    with store.claimed(theirs.key) as mine:
        assert mine
        code, out, err = run("compare", "digits.onnx", "--methods", "l1,l2", *TERMS)
    assert code == 0, err
    assert [row["name"] for row in json.loads((store.folder / "table.json").read_text())] == ["l1", "l2"]
    assert (store.folder / "table.txt").read_text() in out
    assert "other processes" not in err


def test_figures_that_nobody_has_looked_up_are_marked():
    marked = [replace(ROWS[0], published={"after": 93.06, "from_memory": True}), ROWS[1]]
    assert as_csv(marked).splitlines()[1].endswith(",93.06,,,memory")
    assert "memory" not in as_csv(ROWS)


@pytest.mark.parametrize(
    "name",
    [
        "criteria-cifar10",
        "criteria-resnet56-cifar10",
        "resnet20-cifar10-cpu",
        "resnet56-cifar10",
        "resnet50-imagenet",
    ],
)
def test_the_tables_of_the_docs_are_read(name):
    flags = frozenset({"macs", "mean", "std", "samples", "resize", "align", "evaluate_samples"})
    methods = read_config(PAGES / "tables" / f"{name}.toml", flags).methods
    assert len({method.name for method in methods}) == len(methods) > 4


def test_top_5_is_shown_where_it_says_something():
    assert "top-5" not in as_text(ROWS)
    many = [Row("a", "l1", (0.7, 0.9), None, (0.6, 0.8), (9, 3), (9, 3), None, 1.0)]
    assert "top-5 after fine-tuning" in as_text(many)
    assert "80.00" in as_text(many)
