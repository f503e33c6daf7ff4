"""Every command and snippet of the README and of docs/ runs: quick ones by default, long ones with -m slow."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import onnx
import pytest
from onnx_prune import models
from onnx_prune.passes.selection.presets import PRESETS
from onnx_prune.tools import cli

from .runtime.vision.coloured import MASKS, colour_network, save, write_images
from .runtime.vision.test_boxes import write_coco

ROOT = Path(__file__).resolve().parents[1]
_FILES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
PAGES = {path.name: path for path in _FILES}
_COMMAND = re.compile(r"(?:[A-Z_]+=\S+ )?(?:onnx-prune|python|torchrun|olive|onnxslim|docker|pip|ruff|eval|bash)\s")
_MENTION = re.compile(
    r"onnx-prune(?! demo)( [a-z]+)?( --\S+)*|python -m onnx_prune\.tools\.lab\.(?!fuzz)\w+"
)  # a name, not a command
TEST, TRAIN = map(str, models.digits_data())

# What stands for the reader's own files and numbers, in the order in which it is replaced.
STANDS_FOR = {
    r"MODEL \[MODEL\.\.\.\]": "MODEL", r"\bORIGINAL\b|\bMODEL\b": "digits.onnx", r"\bPLAN\b": "plan.json",
    r"\b(DATA|TRAIN|TEST|IMAGES|CALIBRATION)\b": "train.npz", r"\bM\b": "60%", r"\b[N]\b": "1", r"\bS\b": "once",
    r"\bRATE\b": "0.004 --updates 3",
    r"nproc-per-node 8": "nproc-per-node 2",
    r"--calibration \.\.\.": "--calibration train.npz",
    r"\bOUT\b": "slim.onnx", r"--epochs 5": "--epochs 1", r"--epochs 3": "--epochs 1",
    r"lab\.fuzz$": "lab.fuzz models --cases 3",
    r"pass\|command\|latency": "pass digits.onnx --runs 1", r"--config FILE": "--config compare.toml",
}  # fmt: skip
# Commands that are not run here, and why.
LEFT_OUT = {
    r"^python -m venv": "bash .ci/run runs it as it stands",
    r"^pip |^bash \.ci/run|^ruff |^python -m pytest": "bash .ci/run does this",
    r"^docker ": "needs a Docker daemon; the Dockerfile has a test of its own",
    r"^onnxslim |^olive run": "runs with its page, where the tool is installed",
    r"tools.lab.(coverage|results|house_picture|operators_doc)|train_cifar": "makes a page that has its own tests",
}  # fmt: skip
# Long ones, and among them those that read shared/.
SLOW = re.compile(r"\$R|\.\./shared|\$C|resnet|compare|torchrun|sweep|onnx-prune finetune|per-node|tools\.lab\.")
SHARED = re.compile(r"\$R|\.\./shared|\$C|resnet")


def blocks(page):
    """(language, text) of each block of a page, in order."""
    return re.findall(r"^```(\w+)\n(.*?)^```$", PAGES[page].read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)


def commands(page):
    """The lines of shell blocks, and the commands between the words, one of a kind."""
    text = PAGES[page].read_text(encoding="utf-8")
    lines = [
        line.strip() for kind, body in blocks(page) if kind == "sh" for line in body.replace("\\\n", "").splitlines()
    ]
    rest = re.sub(r"^```.*?^```$", "", text, flags=re.DOTALL | re.MULTILINE)
    spans = [" ".join(span.split()) for span in re.findall(r"`([^`]+)`", rest)]
    return list(dict.fromkeys(c for c in (*lines, *spans) if _COMMAND.match(c) and not _MENTION.fullmatch(c)))


def run_here():
    """(page, command) of all that is run alone; those of the pipeline are steps of one another."""
    for page in PAGES:
        for command in commands(page) if page != "pipeline.md" else ():
            if not any(re.search(pattern, command) for pattern in LEFT_OUT):
                marks = [pytest.mark.slow] if SLOW.search(command) else []
                marks += [pytest.mark.shared] if SHARED.search(command) else []
                yield pytest.param(page, command, marks=marks, id=f"{page}: {command}")


_COMPARED = """
model = "digits.onnx"
macs = "60%"
calibration = "train.npz"
evaluate = "test.npz"
output = "described.compare"
[[method]]
name = "l1"
"""


@pytest.fixture(scope="module")
def workplace(tmp_path_factory):
    """A folder with the files that the pages speak of."""
    folder = tmp_path_factory.mktemp("reader")
    for name in ("digits.onnx", "model.onnx", "model.pruned.onnx", "slim.onnx", "half.onnx"):
        shutil.copy(models.digits_model(), folder / name)
    for name, path in (("test.npz", TEST), ("train.npz", TRAIN)):
        shutil.copy(path, folder / name)
    onnx.save(colour_network(), folder / "segmenter.onnx")
    onnx.save(colour_network(detector=True), folder / "detector.onnx")
    write_images(folder / "VOC2012/JPEGImages")
    for number, mask in enumerate(MASKS):
        save(mask, folder / f"VOC2012/SegmentationClass/{number:03}.png")
    write_coco(folder / "coco", images="val2017")
    (folder / "compare.toml").write_text(_COMPARED)
    return folder


@pytest.mark.timeout(1500)  # the longest reads the 50,000 images of CIFAR-10
@pytest.mark.parametrize(("page", "command"), list(run_here()))
def test_a_command_of_the_pages_runs(page, command, workplace, monkeypatch, capsys, request):
    monkeypatch.chdir(workplace)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    if "--metric map" in command:
        pytest.importorskip("pycocotools", reason="needs the extra 'detection'")
    words = shlex.split(replaced(command, request))
    if "apply" in words and not Path("plan.json").exists():
        called(
            ["onnx-prune", "digits.onnx", "--calibration", "none", "--no-latency", "--plan", "plan.json"], monkeypatch
        )
    called(words, monkeypatch)
    assert capsys.readouterr().out or "_COMPLETE" in command


def replaced(command, request):
    """The command with what stands for the reader's files."""
    if SHARED.search(command):
        shared = request.getfixturevalue("shared")
        resnet = re.search(r"^C=|C=\"([^\"]+)\"", PAGES["README.md"].read_text(encoding="utf-8").replace("`", ""))
        command = command.replace("$C", resnet[1]).replace("$R", str(shared / "models/resnet56-cifar10.onnx"))
        command = re.sub(r"(^| )(resnet\d+-cifar10\.onnx)", rf"\1{shared}/models/\2", command)
        command = command.replace("../shared", str(shared))
        shutil.copy(shared / "models/resnet56-cifar10.onnx", "half.onnx")
        command = command.replace(" OUT", " half.onnx")
    for pattern, word in STANDS_FOR.items():
        command = re.sub(pattern, word, command)
    return command


def called(words, monkeypatch):
    """Run it; the program itself in this process."""
    if words[0] == "onnx-prune":
        if words[1].endswith(".onnx") and "-o" not in words:
            words = [*words, "-o", "result.onnx"]
        monkeypatch.setattr(sys, "argv", words)
        assert _exit_code(cli.main) == 0, words
        return
    if words[0] == "python":
        words[0] = sys.executable
    if words[0] == "torchrun":
        words[:1] = [sys.executable, "-m", "torch.distributed.run"]
    done = subprocess.run(words, capture_output=True, text=True, timeout=1500, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    sys.stdout.write(done.stdout)


def _exit_code(main):
    try:
        main()
    except SystemExit as end:
        return end.code or 0
    return 0


def test_the_table_of_presets_is_what_they_imply():
    """Criterion, allocation and reconstruction of every preset; those of li:NETWORK-X stand in tests of their own."""
    part = PAGES["methods.md"].read_text(encoding="utf-8").partition("| preset |")[2].partition("\n\n")[0]
    said = {}
    for line in part.splitlines():
        cells = line.split("|")[1:-1]
        names, words = (re.findall("`([^`]+)`", cell) for cell in cells[:2]) if len(cells) == 4 else ([], [])
        if names and not names[0].startswith("li:"):
            *criteria, allocation, reconstruct = words
            said |= {n: (c, allocation, reconstruct) for n, c in zip(names, criteria, strict=True)}
    implied = {n: (p.criterion, p.allocation, p.reconstruct) for n, p in PRESETS.items() if not n.startswith("li:")}
    assert said == implied


def test_a_command_that_is_not_run_has_its_reason():
    every = {command for page in PAGES for command in commands(page)}
    for pattern, why in LEFT_OUT.items():
        assert any(re.search(pattern, command) for command in every), pattern
        assert why


def test_what_the_demo_prints_stands_in_the_readme(tmp_path, monkeypatch, capsys):
    """All but numbers, and which groups are cut how far, which may differ from machine to machine."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "80")
    called(["onnx-prune", "demo"], monkeypatch)
    printed = [_words(line) for line in capsys.readouterr().out.splitlines()]
    shown = next(body for kind, body in blocks("README.md") if kind == "text")
    said = [_words(line) for line in shown.splitlines()]
    assert [line for line in printed if "layer" not in line and "of AMD" not in line and "latency on" not in line] == [
        line for line in said if "layer" not in line and "latency on" not in line
    ]


def _words(line):
    return " ".join(re.findall(r"[a-zA-Z][\w.:-]*", re.sub(r"[\d.]+(e-\d+)?( ?[kMG]\b| ms| kB| s\b|%)?", "", line)))


# ---- snippets

_RELU = next(node.output[0] for node in onnx.load(models.digits_model()).graph.node if node.op_type == "Relu")

# What stands in front of a snippet, where the text around it says it; None: another test runs it.
BEFORE = {
    "README.md": None,  # tests/test_readme.py
    "methods.md": None,  # tests/test_api.py
    "adding_an_operator.md": None,  # tests/passes/channels/rules/test_operators_doc.py
    "pipeline.md": None,  # below
    "accuracy.md": "",
    "torch.md": "import numpy as np, onnx, torch\nimport torch.nn.functional as F\n"
    "from onnx_prune.runtime.torch.nodes import *\nfrom onnx_prune.runtime.torch.operators import *\n"
    "images = torch.from_numpy(np.load('test.npz')['input'])\n",
}


@pytest.mark.parametrize("page", [page for page in PAGES if any(kind == "python" for kind, _ in blocks(page))])
def test_a_snippet_of_the_pages_runs(page, workplace, monkeypatch):
    before = BEFORE[page]
    if before is None:
        return
    if "torch" in before:
        pytest.importorskip("torch", reason="needs the extra 'torch'")
        shutil.copy(workplace / "digits.onnx", workplace / "pruned.onnx")
    monkeypatch.chdir(workplace)
    names = {}
    exec(before, names)
    for kind, body in blocks(page):
        if kind == "python":
            exec(compile(body.replace("relu_3", _RELU), page, "exec"), names)


@pytest.mark.parametrize("page", [page for page in PAGES if any(kind == "toml" for kind, _ in blocks(page))])
def test_a_file_of_the_pages_is_read(page, tmp_path):
    from onnx_prune.runtime.torch.training.recipe import Recipe
    from onnx_prune.runtime.torch.training.recipe_file import read_recipe
    from onnx_prune.tools.compare_config import read_config

    (body,) = (body for kind, body in blocks(page) if kind == "toml")
    file = tmp_path / "file.toml"
    file.write_text(body)
    if "[[method]]" in body:
        flags = (flag for option in cli.cli.commands["compare"].params for flag in option.opts)
        known = frozenset(flag.lstrip("-").replace("-", "_") for flag in flags)
        assert read_config(file, known)
    else:
        assert Recipe(**read_recipe(file))


# ---- the pipeline: one page, one folder, step by step


@pytest.mark.slow
def test_the_pipeline_runs_as_it_stands(tmp_path):
    pytest.importorskip("torch", reason="needs the extra 'torch'")
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    left = []
    for kind, body in blocks("pipeline.md"):
        missing = [
            tool for tool in ("openvino", "onnxslim") if tool in body and shutil.which(tool) is None and _absent(tool)
        ]
        if kind == "python" and not missing:
            _step([sys.executable, "-W", "ignore", "-c", body], tmp_path, environment)
        if kind == "json":
            (tmp_path / "workflow.json").write_text(body)
        for line in body.splitlines() if kind == "sh" else ():
            if line.startswith("onnxslim") and missing:
                shutil.copy(tmp_path / "model.onnx", tmp_path / "slim.onnx")
            elif not line.startswith("olive") and "olive_pass" not in line:
                _step(["bash", "-c", line], tmp_path, environment)
        left += missing
    accuracy = subprocess.run(
        [sys.executable, "-m", "onnx_prune", "evaluate", "quantised.onnx", "test.npz", "--json"],
        cwd=tmp_path, capture_output=True, check=True, text=True,
    )  # fmt: skip
    assert json.loads(accuracy.stdout)["top1"] > 0.9
    if left:
        pytest.skip(f"all but the steps of {', '.join(left)}, which are not installed")


def _absent(tool):
    import importlib.util

    return importlib.util.find_spec(tool) is None


def _step(command, folder, environment):
    done = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=250, check=False
    )
    assert done.returncode == 0, f"{command[-1]}\n{done.stderr[-3000:]}"


# ---- the container and the packages


def test_the_dockerfile_installs_what_there_is():
    text = (ROOT / "Dockerfile").read_text(encoding="utf-8")
    pyproject = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    extras = re.search(r"EXTRAS=([\w,]+)\n", text)[1].split(",")
    for extra in extras:
        assert re.search(rf"^{extra} = \[", pyproject, re.MULTILINE), extra
    assert "/src/constraints.txt" in text
    assert (ROOT / "constraints.txt").exists()
    ignored = (ROOT / ".dockerignore").read_text(encoding="utf-8").split()
    assert not {".ci", "models", "tools", "README.md", "LICENSE", "constraints.txt"} & set(ignored)
