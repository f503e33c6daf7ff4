"""A report is one file that needs nothing else: read as text, and opened in headless Chromium where there is one."""

from __future__ import annotations

import html
import json
import re
import shutil
import subprocess
from html.parser import HTMLParser

import pytest
from onnx_prune import models
from onnx_prune.pipeline.report import Curves

pytest.importorskip("matplotlib", reason="reports need the extra 'report'")
TEST, CALIBRATION = (str(path) for path in models.digits_data())
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
FLAGS = [
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync",
    "--disable-background-networking", "--disable-component-update", "--enable-logging=stderr", "--v=0",
]  # fmt: skip


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    """The text of the report of a searched run, timed."""
    import sys

    from onnx_prune.tools import cli

    folder = tmp_path_factory.mktemp("report")
    shutil.copy(models.digits_model(), folder / "digits.onnx")
    given = [
        "digits.onnx",
        "--calibration",
        CALIBRATION,
        "--evaluate",
        TEST,
        "--max-drop",
        "5%",
        "--report",
        "run.html",
    ]
    patch = pytest.MonkeyPatch()
    patch.chdir(folder)
    patch.setattr(sys, "argv", ["onnx-prune", *given])
    try:
        cli.main()
    finally:
        patch.undo()
    return folder / "run.html"


def test_it_has_all_of_the_run(page):
    text = page.read_text()
    for words in (
        "digits.onnx", "MACs", "latency", "top-1", "layer2.0.conv1", "graph output &#x27;logits&#x27;", "Sensitivity",
        "estimate of the harm", "Where the time goes", "of what was tried", "--max-drop 5%", "onnxruntime", "plan.json",
    ):  # fmt: skip
        assert words in text, words
    plan = re.search(r"<summary>plan.json</summary><pre>(.*?)</pre>", text, re.DOTALL)[1]
    assert json.loads(plan.replace("&quot;", '"').replace("&#x27;", "'"))["format"] == "onnx-prune plan"
    assert text.count("<svg") >= 4


class _Addresses(HTMLParser):
    def __init__(self):
        super().__init__()
        self.found, self.ids = [], []

    def handle_starttag(self, tag, attrs):
        for name, value in attrs:
            if name in ("src", "href", "xlink:href", "data"):
                self.found.append(value)
            if name == "id":
                self.ids.append(value)


def test_it_asks_for_nothing_from_anywhere(page):
    parser = _Addresses()
    parser.feed(page.read_text())
    assert {value for value in parser.found if not value.startswith(("#", "data:"))} == set()
    assert len(parser.ids) == len(set(parser.ids))  # drawings do not share names
    assert not re.search(r"@import|url\((?!#)", page.read_text())
    assert not re.search(r"#a0000\d|#01020\d", page.read_text())  # stand-ins for colours


def test_names_of_the_model_are_no_markup(tmp_path):
    from onnx_prune.pipeline.report import GroupRow, Report
    from onnx_prune.tools.report.page import _groups

    row = GroupRow("<script>alert(1)</script>", 4, 2, "it's <b>pinned</b>")
    report = Report("m", (row,), (2, 1), (2, 1), (2, 1), None, 0.0, 1.0)
    html = _groups(report)
    assert "<script>" not in html
    assert "<b>" not in html


def test_without_matplotlib_it_is_said_before_the_work(run, monkeypatch):
    import importlib.util

    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    code, _, err = run("digits.onnx", "--report", "r.html")
    assert code == 2
    assert "onnx-prune[report]" in err


def test_a_run_without_curves_has_a_report_too(run, tmp_path):
    assert run("digits.onnx", "--calibration", "none", "--no-latency", "--report", "plain.html")[0] == 0
    assert "Channels" in (tmp_path / "plain.html").read_text()
    assert Curves().error == {}


def test_a_sweep_has_its_front(run, tmp_path):
    given = ["--macs", "80,60", "--calibration", "none", "--evaluate", TEST, "--no-latency", "--no-models"]
    assert run("sweep", "digits.onnx", *given, "--report", "sweep.html")[0] == 0
    text = (tmp_path / "sweep.html").read_text()
    assert "top-1 against MACs" in text
    assert text.count("<summary>plan macs") == 2


_PROBE = """
const lines = [];
window.addEventListener("error", event => lines.push(String(event.message)));
window.addEventListener("load", () => {
  const table = document.querySelector("table.sorts");
  const column = () => [...table.tBodies[0].rows].map(row => Number(row.cells[1].dataset.value));
  const button = table.tHead.rows[0].cells[1].querySelector("button");
  button.click(); const rising = column(); button.click(); const falling = column();
  const drawn = [...document.querySelectorAll("svg")].map(svg => svg.getBoundingClientRect().width > 100);
  const found = JSON.stringify({rising, falling, drawn, lines, wide: document.documentElement.scrollWidth});
  document.title = found; parent.document.title = found;
});
"""


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here: apt-get install chromium")
@pytest.mark.parametrize("width", [1100, 390])
def test_chromium_draws_it_without_an_error_and_tables_sort(page, tmp_path, width):
    probed = tmp_path / "probed.html"
    text = page.read_text().replace("<style>", f"<script>{_PROBE}</script><style>", 1)
    # A window of headless Chromium is 500 pixels wide at least: a frame in it is as wide as a phone.
    frame = (
        f'<title></title><iframe style="width:{width}px;height:800px;border:0" srcdoc="{html.escape(text)}"></iframe>'
    )
    probed.write_text(f"<!DOCTYPE html>{frame}")
    command = [CHROMIUM, *FLAGS, f"--user-data-dir={tmp_path / 'profile'}", "--window-size=1200,900", "--dump-dom"]
    done = subprocess.run([*command, probed.as_uri()], capture_output=True, text=True, timeout=120, check=True)
    found = json.loads(re.search(r"<title>(.*?)</title>", done.stdout)[1].replace("&quot;", '"'))
    assert found["lines"] == []
    assert "CONSOLE" not in done.stderr
    assert found["rising"] == sorted(found["rising"])
    assert found["falling"] == sorted(found["falling"], reverse=True)
    assert found["drawn"]
    assert all(found["drawn"])
    assert found["wide"] <= width
