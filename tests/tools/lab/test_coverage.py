"""The coverage page says what was measured, and one model goes through as in the full run."""

import dataclasses
import sys
from pathlib import Path
from types import SimpleNamespace

import onnx
import pytest
from click.testing import CliRunner
from onnx_prune.models import lenet5
from onnx_prune.tools.lab import coverage as coverage_module
from onnx_prune.tools.lab import peers
from onnx_prune.tools.lab.coverage import coverage, examine, list_models, model_name
from onnx_prune.tools.lab.coverage_page import render
from onnx_prune.tools.lab.coverage_rows import KINDS, PeerRow, Row, TorchRow, append_row, read_rows, write_rows
from onnx_prune.tools.lab.peers import architecture, through_onnxsim

GOOD = Row(
    name="net",
    source="zoo",
    nodes=10,
    seconds=0.25,
    convolutional=True,
    can_go=0.9,
    kept=0.4999,
    proof=3e-7,
    free=4,
    groups=6,
    pinned={"graph input": 1, "graph output": 1},
)


def page_of(rows, number, peers=()):
    found = {("onnx-prune", row.name): row for row in rows} | {("onnxsim", row.name): row for row in peers}
    return render(found, number)


def test_the_page_counts_networks_that_reach_the_half():
    short = dataclasses.replace(GOOD, name="short", kept=0.8, proof=5e-7)
    page = page_of([GOOD, short], 3)
    assert "2 of 3 models were run; 2 of them went through." in page
    assert "The worst proof error is 5.0e-07 (short)." in page
    assert "1 of 2 convolutional networks (50%)" in page
    assert "| short | yes | 80.0% | 90.0% | graph input (1); graph output (1) |" in page


def test_a_model_that_failed_is_in_the_table_and_in_no_other_number():
    page = page_of([GOOD, Row("broken", "real", "exit code 1: a | b")], 2)
    assert "1 of them went through, 1 did not" in page
    assert "exit code 1: a / b |" in page
    assert "1 of 1 convolutional networks (100%)" in page


@pytest.mark.parametrize("file", ["light_squeezenet.onnx"])
def test_a_light_model_is_pruned_to_the_half(file, tmp_path):
    path = next(p for p in list_models(tmp_path) if p.name == file)
    row = examine(path, tmp_path)
    assert (row.status, row.convolutional) == ("ok", True)
    assert row.kept == pytest.approx(0.5, abs=0.01)
    assert row.proof is not None
    assert row.proof < 1e-5


def test_names_lose_their_endings():
    assert model_name(Path("tv-resnet18-ts.onnx.gz")) == "tv-resnet18"
    assert model_name(Path("tv-resnet18-dyn.onnx.gz")) == "tv-resnet18-dyn"


def test_rows_are_kept_line_by_line_and_the_last_one_counts(tmp_path):
    path = tmp_path / "rows.jsonl"
    assert read_rows(path) == {}
    peer = PeerRow("net", "wrong: it does not run", version="1")
    for job, row in (("onnxsim", peer), ("onnx-prune", GOOD), ("onnx-prune", dataclasses.replace(GOOD, kept=0.4))):
        append_row(path, job, row)
    rows = read_rows(path)
    assert rows["onnxsim", "net"] == peer
    assert rows["onnx-prune", "net"] == dataclasses.replace(GOOD, kept=0.4)
    write_rows(path, rows)
    assert read_rows(path) == rows
    assert len(path.read_text().splitlines()) == 2


def test_an_interrupted_run_goes_on_and_fresh_runs_again(tmp_path, monkeypatch):
    ran = []

    def isolated(job, path, shared):
        ran.append((job, model_name(path)))
        return KINDS[job](ran[-1][1], "light")

    monkeypatch.setattr(coverage_module, "_isolated", isolated)
    arguments = ["--only", "squeezenet", "--shared", str(tmp_path), "-o", str(tmp_path / "page.md")]
    for more in (["--job", "onnx-prune"], [], [], ["--fresh"]):
        assert CliRunner().invoke(coverage, [*arguments, *more]).exit_code == 0
    every = [(job, "light_squeezenet") for job in KINDS]
    assert ran == every + every
    assert "light_squeezenet" in (tmp_path / "page.md").read_text()


def test_the_page_says_where_torch_agrees():
    modules = [
        TorchRow("a", error=2e-7),
        TorchRow("b", error=2e-3, own=1e-3),
        TorchRow("c", "operator If is not there"),
    ]
    found = {("onnx-prune", row.name): dataclasses.replace(GOOD, name=row.name) for row in modules}
    page = render(found | {("torch", row.name): row for row in modules}, 3)
    assert "1 of 3 models agree with ONNX Runtime to 1e-04" in page
    assert "1 differ by at most ten times" in page
    assert "1 have operators that torch has no entry for" in page
    assert "| 3.0e-07 | 2.0e-07 |" in page
    assert "| 2.0e-03 (1.0e-03) |" in page
    assert "| operator If is not there |" in page


def test_the_peers_are_counted_by_what_came_out():
    names = {"a": 0.5, "b": 0.54, "c": 1.0}
    found = [PeerRow(name, kept=kept, version="0.8.1") for name, kept in names.items()]
    found += [PeerRow("d", "wrong: no shapes"), PeerRow("e", "failed: error"), PeerRow("f", "invalid: old", 0.5)]
    page = page_of([dataclasses.replace(GOOD, name=row.name) for row in found], 6, found)
    assert "0.8.1" in page
    assert "| come through and run | 6 | 4 | 77 |" in page
    assert "| come down to 50 % of the MACs | 6 | 2 | not published |" in page
    assert "| come down to 55 % | 6 | 3 | not published |" in page
    assert "| output runs, but is invalid | 0 | 1 | not published |" in page
    assert "| output is wrong | 0 | 1 | not published |" in page
    assert "| no output | 0 | 1 | 8 |" in page
    assert "| d | 50.0% |  | wrong: no shapes |  |" in page


def test_architectures_that_torch_pruning_fails_on_stand_beside_ours():
    page = page_of([dataclasses.replace(GOOD, name="tv-swin_t-dyn")], 1, [PeerRow("tv-swin_t-dyn", kept=1.0)])
    assert "swin_t 50.0%" in page
    assert "| tv-swin_t-dyn | 50.0% | 100.0% | ok | no |" in page
    assert architecture("tv-ssd300_vgg16_dense") in peers.TORCH_PRUNING_DOES


@pytest.mark.parametrize(
    ("change", "status"),
    [("none", "ok"), ("shape", "wrong: "), ("declared", "invalid: "), ("raise", "failed: ValueError")],
)
def test_what_a_peer_makes_is_run_and_counted(change, status, monkeypatch):
    def pruned(model, sparsity):
        if change == "raise":
            raise ValueError("no such graph")
        made = onnx.ModelProto.FromString(model.SerializeToString())
        if change == "shape":
            made.graph.initializer[0].CopyFrom(made.graph.initializer[1])
            made.graph.initializer[0].name = model.graph.initializer[0].name
        if change == "declared":
            made.graph.value_info.add(name=made.graph.node[0].output[0]).type.CopyFrom(made.graph.input[0].type)
        return made

    monkeypatch.setitem(sys.modules, "onnxsim.pruning", SimpleNamespace(apply_structured_pruning=pruned))
    monkeypatch.setattr(peers.importlib.metadata, "version", lambda name: "1.0")
    row = through_onnxsim("lenet", lenet5())
    assert row.status.startswith(status)
    assert row.kept == (1.0 if change in ("none", "declared") else None)
