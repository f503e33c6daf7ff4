"""What the README says is so."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from onnx_prune.passes import errors
from onnx_prune.tools.cli import cli
from onnx_prune.tools.lab.bench import bench

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
SUBCLASSES = errors.OnnxPruneError.__subclasses__()


def blocks(language):
    return re.findall(rf"^```{language}\n(.*?)^```$", README, re.DOTALL | re.MULTILINE)


def test_it_is_short():
    assert len(README.splitlines()) < 150


def test_the_example_has_twelve_lines_and_runs(tmp_path, monkeypatch, capsys):
    (example,) = blocks("python")
    assert len(example.splitlines()) == 12
    monkeypatch.chdir(tmp_path)
    names = {}
    exec(compile(example, "README.md", "exec"), names)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["plan.json", "slim.onnx"]
    assert names["again"].report.macs == names["result"].report.macs
    assert capsys.readouterr().out.startswith("(3295872, 16")


def test_the_two_commands_are_the_first_things_to_copy():
    install, test = blocks("sh")
    assert install.strip().endswith('pip install -c constraints.txt ".[cpu]" && onnx-prune demo')
    assert test.strip().endswith('pip install -c constraints.txt -e ".[cpu,torch,test]" && python -m pytest')


def test_every_command_exists():
    words = set(re.findall(r"`onnx-prune ([a-z]+)", README)) - {"MODEL"}
    assert words >= {"inspect", "apply", "demo"}
    assert words <= set(cli.commands)
    tools = re.findall(r"onnx_prune\.tools\.lab\.(\w+) (\w+)", README)
    assert tools
    assert {(tool, word) for tool, word in tools} <= {("bench", word) for word in bench.commands}


def test_every_flag_exists():
    known = {flag for command in cli.commands.values() for option in command.params for flag in option.opts}
    said = set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", README))
    assert {"--macs", "--calibration", "--align"} <= said <= known


def test_the_exit_codes_are_those_of_the_errors():
    table = dict(re.findall(r"^\| (\d) \| (.+) \|$", README, re.MULTILINE))
    assert set(map(int, table)) == {0, 1} | {kind.exit_code for kind in SUBCLASSES}


def test_every_folder_and_file_exists():
    places = re.findall(r"^\| `([\w./]+)` \|", README, re.MULTILINE)
    assert {"passes/", "runtime/", "models/", "tools/", "tests/"} <= set(places)
    pages = re.findall(r"`(docs/\w+\.md)`", README) + [f"docs/{name}" for name in re.findall(r"`(\w+\.md)`", README)]
    assert "docs/methods.md" in pages
    for place in [*places, *pages]:
        assert (ROOT / place).exists(), place


def test_no_link_is_relative():
    """A package index shows the README without the files beside it."""
    assert re.findall(r"\]\((?!https://)", README) == []


@pytest.mark.parametrize("name", ["README.md", "CONTRIBUTING.md", "CHANGELOG.md", "docs/architecture.md"])
def test_links_lead_somewhere(name):
    text = (ROOT / name).read_text(encoding="utf-8")
    for link in re.findall(r"\]\((?!https?:)([^)#]+)", text):
        assert (ROOT / name).parent.joinpath(link).exists(), link
