"""What a set of runs writes, as digests: two checkouts behave the same where their lists are equal.

python -m onnx_prune.tools.lab.fingerprints > after.txt; run the file with another checkout on PYTHONPATH, and diff.
"""

from __future__ import annotations

import hashlib
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import click
import numpy as np
import onnx

MAIN = "from onnx_prune.tools.cli import main; main()"  # of whichever checkout is on the path
SEED = 7


def cases(shared: Path, digits: Path, work: Path) -> Iterator[tuple[str, list[str]]]:
    """(name, arguments) of each run, without the files that it writes."""
    images = shared / "data" / "cifar10-train.zip"
    digits_data = digits.with_name("digits_calibration.npz")
    for model, data in (
        (digits, ["--calibration", f"{digits_data}"]),
        (shared / "models" / "resnet20-cifar10.onnx", ["--calibration", f"{images}", "--samples", "96"]),
        (shared / "models" / "resnet20-cifar10-bn.onnx", ["--calibration", f"{images}", "--samples", "96"]),
        (shared / "real" / "yolox_nano.onnx", _random(work / "yolox.npz", "images", (2, 3, 416, 416))),
        (shared / "real" / "ppocrv3-det.onnx", _random(work / "ppocr.npz", "x", (2, 3, 160, 160))),
    ):
        yield f"{model.name} l1", [f"{model}", "--criterion", "l1", "--calibration", "none"]
        yield f"{model.name} calibrated", [f"{model}", *data, "--seed", f"{SEED}"]


def _random(path: Path, name: str, shape: tuple[int, ...]) -> list[str]:
    arrays = {name: np.random.default_rng(SEED).normal(size=shape).astype(np.float32)}
    np.savez(path, **arrays)  # type: ignore[arg-type]
    return ["--calibration", f"{path}"]


def digest(path: Path) -> str:
    """Of what a file holds; how a run was asked for, and with which version, does not count."""
    if not path.exists():
        return "-"
    content = path.read_bytes()
    if path.suffix == ".json":
        content = b"".join(line for line in content.splitlines(True) if not line.lstrip().startswith(b'"settings"'))
    else:
        model = onnx.load_model_from_string(content)
        kept = [entry for entry in model.metadata_props if not entry.key.startswith("onnx_prune.")]
        del model.metadata_props[:]
        model.metadata_props.extend(kept)
        content = model.SerializeToString(deterministic=True)
    return hashlib.sha256(content).hexdigest()[:16]


@click.command()
@click.option("--shared", type=Path, default=Path("../shared"), help="Folder of models and data.")
@click.option("--digits", type=Path, default=Path("models/digits.onnx"), help="The bundled model.")
def main(shared: Path, digits: Path) -> None:
    """Run every case and its plan again with `apply`; print a line each: case, plan, model, model of apply."""
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        for case, arguments in cases(shared.resolve(), digits.resolve(), work):
            out, plan, again = work / "out.onnx", work / "plan.json", work / "again.onnx"
            _run([*arguments, "--align", "1", "-o", f"{out}", "--plan", f"{plan}"])
            _run(["apply", arguments[0], f"{plan}", "-o", f"{again}"])
            print(case, digest(plan), digest(out), digest(again), flush=True)
            for path in (out, plan, again):
                path.unlink(missing_ok=True)


def _run(arguments: list[str]) -> None:
    command = [sys.executable, "-c", MAIN, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603 our own arguments
    if done.returncode:
        print(done.stderr, file=sys.stderr)


if __name__ == "__main__":
    main()
