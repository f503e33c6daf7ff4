"""The table of results: what is measured is what a run of the pipeline makes, and rows are kept."""

from __future__ import annotations

import json
from dataclasses import asdict

import onnx_prune
import pytest
from click.testing import CliRunner
from onnx_prune.runtime.data.preprocess import Preprocessing
from onnx_prune.runtime.measure.evaluate import accuracy
from onnx_prune.tools.lab import results
from onnx_prune.tools.lab.results import Experiment, Row, missing, read_rows, tables, write_page

BASE = Row("resnet20-cifar10", "", "", "", 0.9173)
ROWS = [
    BASE,
    Row("resnet20-cifar10", "thinet", "uniform", "full", 0.774, 0.49),
    Row("resnet20-cifar10", "l1", "uniform", "full", 0.597, 0.49),
    Row("resnet20-cifar10", "l1", "sensitivity", "sequential", 0.85, 0.49),
]


def keyed(rows):
    return {row.key: row for row in rows}


def test_a_table_has_a_line_for_each_criterion_in_the_order_of_the_list():
    lines = tables(keyed(ROWS)).splitlines()
    assert lines[0].startswith(
        "| resnet20-cifar10: 91.73% before | none | bias | channel | scalar | full | sequential |"
    )
    assert [line.split(" | ")[0] for line in lines[2:]] == ["| `l1`", "| `thinet`"]
    assert lines[2] == "| `l1` |  |  |  |  | 59.70 |  | 85.00 |"


def test_the_other_text_of_the_page_stays(tmp_path):
    page = tmp_path / "results.md"
    write_page(page, keyed(ROWS[:2]))
    page.write_text(page.read_text().replace("# Results\n", "# Results\n\nWhy.\n") + "\nWhat it says.\n")
    write_page(page, keyed(ROWS))
    text = page.read_text()
    assert text.count("| `thinet` |") == 1
    assert "| `l1` |" in text
    assert text.index("Why.") < text.index("`l1`") < text.index("What it says.")


def test_a_run_that_was_interrupted_goes_on_where_it_stopped(tmp_path, monkeypatch):
    page, asked = tmp_path / "results.md", []

    def rest(experiment, criteria, rows):
        asked.append((experiment.model, tuple(criteria), set(rows)))
        yield from (row for row in ROWS if row.key not in rows)

    monkeypatch.setattr(results, "missing", rest)
    page.with_suffix(".jsonl").write_text(json.dumps(asdict(BASE)) + "\n")
    command = ["--shared", str(tmp_path), "--model", "resnet20-cifar10", "--criterion", "l1", "-o", str(page)]
    done = CliRunner().invoke(results.results, command)
    assert done.exit_code == 0, done.output
    assert asked == [("resnet20-cifar10", ("l1",), {BASE.key})]
    assert read_rows(page.with_suffix(".jsonl")) == keyed(ROWS)
    assert "| `l1` |  |  |  |  | 59.70 |  | 85.00 |" in page.read_text()


@pytest.mark.shared
def test_a_row_is_what_the_pipeline_makes(shared):
    experiment = Experiment(shared, "resnet20-cifar10", samples=48, tests=96)
    rows = keyed([BASE, *(Row(BASE.model, "l1", "uniform", k, 0.5) for k in ("none", "bias", "scalar", "sequential"))])
    found = {row.key[1:]: row for row in missing(experiment, ["l1"], rows | keyed([ROWS[3]]))}
    assert list(found) == [("l1", "uniform", "channel"), ("l1", "uniform", "full")]
    result = onnx_prune.prune(
        shared / "models" / "resnet20-cifar10.onnx",
        criterion="l1",
        allocation="uniform",
        reconstruct="full",
        exclude=experiment.streams,
        align=1,  # as all rows of the page
        calibration=shared / "data" / "cifar10-train.zip",
        samples=48,
        preprocessing=Preprocessing(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225)),
        measure=False,
    )
    row = found["l1", "uniform", "full"]
    assert row.macs == result.plan.macs[1] / result.plan.macs[0] <= 0.5
    assert row.top1 == accuracy(result.model, experiment.test).top1
    assert row.top1 != found["l1", "uniform", "channel"].top1
