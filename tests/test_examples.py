"""The notebooks of examples/ run from the first cell to the last, on the demo's network."""

from __future__ import annotations

from pathlib import Path

import pytest

nbformat = pytest.importorskip("nbformat", reason="notebooks need nbclient and ipykernel (the extra 'test')")
nbclient = pytest.importorskip("nbclient", reason="notebooks need nbclient and ipykernel (the extra 'test')")
NOTEBOOKS = sorted((Path(__file__).resolve().parents[1] / "examples").glob("*.ipynb"))


def test_there_are_some():
    assert NOTEBOOKS


@pytest.mark.filterwarnings("ignore")  # of the kernel's messaging, on which nothing here depends
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.name)
def test_a_notebook_runs(path, tmp_path, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    nbclient.NotebookClient(notebook, timeout=200, resources={"metadata": {"path": str(tmp_path)}}).execute()
    shown = [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]
    assert not [output for output in shown if output.output_type == "error"]
    tables = [o for o in shown if "text/html" in o.get("data", {})]
    assert len(tables) >= 2
    assert {"slim.onnx", "plan.json"} <= {file.name for file in tmp_path.iterdir()}


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.name)
def test_a_notebook_is_kept_as_it_looks_when_run(path):
    """Readers see the outputs without running it; nothing of the machine that it ran on."""
    notebook = nbformat.read(path, as_version=4)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert sum(bool(cell.outputs) for cell in code) >= 4
    text = path.read_text(encoding="utf-8")
    assert "/home/" not in text
    assert "site-packages" not in text
