"""Fuzzing: broken models, plans, data and moments must end as said, never as a bug, a crash, or a run without end.

    python -m onnx_prune.tools.lab.fuzz models|plans|data|moments --seconds 600 --found FOLDER

Each case is drawn from a seed, so that it comes again, and runs in a process of its own with a limit of memory and
time. What ends otherwise than with a result or an error that says what, where and what to do is kept in FOLDER.
"""

from __future__ import annotations

import io
import json
import os
import resource
import signal
import sys
import time
import traceback
import zipfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import click
import numpy as np
import onnx

from ...models import digits_data, digits_model
from ...passes.errors import OnnxPruneError
from ...passes.selection.plans.plan import Plan
from ...pipeline.prune import apply, prune
from ...runtime.data.inputs import ModelInput
from ...runtime.data.open import open_data
from .fuzz_models import mutated, seed_models

Rng = np.random.Generator
_MEMORY, _SECONDS = 6 << 30, 90  # of one case
_FAILED, _REFUSED = 1, 5


def flipped(data: bytes, rng: Rng) -> bytes:
    """A few bytes set, cut out, doubled or moved."""
    array = bytearray(data)
    for _ in range(int(rng.integers(1, 9))):
        at, length = int(rng.integers(len(array))), int(rng.integers(1, 17))
        kind = int(rng.integers(4))
        if kind == 0:
            array[at] = int(rng.integers(256))
        elif kind == 1:
            array[at] ^= 1 << int(rng.integers(8))
        elif kind == 2:
            del array[at : at + length]
        else:
            array[at:at] = array[at : at + length]
        if not array:
            array = bytearray(b"\0")
    return bytes(array)


def model_case(rng: Rng) -> tuple[bytes, Callable[[], object]]:
    seeds = list(seed_models().values())
    data = seeds[int(rng.integers(len(seeds)))]
    if rng.random() < 0.3:
        data = flipped(data, rng)
    else:
        data = mutated(onnx.load_model_from_string(data), rng).SerializeToString()

    def work() -> None:
        prune(data, calibration="none", measure=False).save("cut.onnx")

    return data, work


def plan_case(rng: Rng) -> tuple[bytes, Callable[[], object]]:
    model = digits_model()
    text = prune(model, calibration="none", measure=False).plan.to_json()
    if rng.random() < 0.5:
        data = flipped(text.encode(), rng)
    else:
        tree = json.loads(text)
        for _ in range(int(rng.integers(1, 4))):
            _graft(tree, rng)
        data = json.dumps(tree).encode()

    def work() -> None:
        Path("plan.json").write_bytes(data)
        apply(model, Plan.load("plan.json"), measure=False)

    return data, work


def _graft(tree: object, rng: Rng) -> None:
    """Change one place of a JSON tree."""
    places: list[tuple[object, object]] = []

    def walk(part: object) -> None:
        keys = part.keys() if isinstance(part, dict) else range(len(part)) if isinstance(part, list) else ()
        for key in keys:
            places.append((part, key))
            walk(part[key])  # type: ignore[index]

    walk(tree)
    where, key = places[int(rng.integers(len(places)))]
    wild = [None, True, -1, 1e308, 10**30, "", "\ud800", [], {}, [[]], {"a": 1}, 2**63, 0.5, "layer1.0.conv1", [10**30]]
    if rng.random() < 0.2:
        del where[key]  # type: ignore[attr-defined]
    else:
        where[key] = wild[int(rng.integers(len(wild)))]  # type: ignore[index]


def data_case(rng: Rng) -> tuple[bytes, Callable[[], object]]:
    kind = int(rng.integers(4))
    images = (np.random.default_rng(1).random((9, 8, 8)) * 255).astype(np.uint8)
    if kind == 0:
        name, data = "data.npy", _saved(np.save, images[:, None].astype(np.float32) / 255)
    elif kind == 1:
        both = {"x": images[:, None].astype(np.float32) / 255, "label": np.arange(9) % 3}
        name, data = "data.npz", _saved(np.savez, **both)
    else:
        name, data = "data.zip", _image_archive(images, ("PNG", "JPEG")[kind - 2])
    data = flipped(data, rng)
    inputs = (ModelInput("x", np.dtype(np.float32), (None, 1, 8, 8)),)

    def work() -> None:
        Path(name).write_bytes(data)
        for batch in open_data(name, inputs, samples=5):
            assert batch.feeds["x"].shape[1:] == (1, 8, 8)

    return data, work


def moments_case(rng: Rng) -> tuple[bytes, Callable[[], object]]:
    """The arrays of measured moments changed, and what the header says of them."""
    model = digits_model()
    prune(model, calibration=str(digits_data()[1]), samples=32, measure=False, save_moments="whole.npz")
    arrays = dict(np.load("whole.npz"))
    header = json.loads(str(arrays.pop("header")))
    for _ in range(int(rng.integers(3))):
        _graft(header, rng)
    for name in rng.choice(sorted(arrays), int(rng.integers(4))).tolist():
        arrays[name] = _CHANGES[int(rng.integers(len(_CHANGES)))](arrays[name])
    data = _saved(np.savez, header=np.array(json.dumps(header)), **arrays)

    def work() -> None:
        Path("moments.npz").write_bytes(data)
        prune(model, moments="moments.npz", measure=False)

    return data, work


_CHANGES: tuple[Callable[[np.ndarray], np.ndarray], ...] = (
    lambda a: a * np.nan,
    lambda a: a * 0,
    lambda a: -a,
    lambda a: a * 1e300,
    lambda a: a[:-1],
    lambda a: a[None],
    lambda a: a + 1,
    np.sort,
    lambda a: a.astype(np.float16),
    lambda a: a.astype(str),
    lambda a: a.astype(complex),
    lambda a: np.zeros(0),
)


def _saved(save: Callable[..., object], *arrays: object, **named: object) -> bytes:
    sink = io.BytesIO()
    save(sink, *arrays, **named)
    return sink.getvalue()


def _image_archive(images: np.ndarray, kind: str) -> bytes:
    from PIL import Image

    sink = io.BytesIO()
    with zipfile.ZipFile(sink, "w") as archive:
        for number, pixels in enumerate(images):
            image = io.BytesIO()
            Image.fromarray(pixels).save(image, kind)
            archive.writestr(f"{number % 3}/{number}.{kind.lower()}", image.getvalue())
    return sink.getvalue()


CASES = {"models": model_case, "plans": plan_case, "data": data_case, "moments": moments_case}


def ending(case: Callable[[Rng], tuple[bytes, Callable[[], object]]], seed: int, found: Path) -> str:
    """How the case of that seed ends, in a process of its own: "done", an exit code, or what is wrong.

    What is wrong is kept in the folder with its traceback.
    """
    name = found / f"{case.__name__}-{seed}"
    child = os.fork()
    if not child:
        _run(case, seed, name)
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        ended = signal.Signals(os.WTERMSIG(status)).name
        name.with_suffix(".txt").write_text(ended)
        return "no end" if ended == "SIGALRM" else ended
    code = os.WEXITSTATUS(status)
    if code == _FAILED:
        return (name.with_suffix(".txt").read_text().strip().splitlines() or ["?"])[-1][:100]
    return "done" if code == 0 else f"exit {code}"


def _run(case: Callable[[Rng], tuple[bytes, Callable[[], object]]], seed: int, name: Path) -> None:
    """In the child: never returns."""
    import tempfile

    code = _FAILED
    signal.alarm(_SECONDS)
    resource.setrlimit(resource.RLIMIT_AS, (_MEMORY, _MEMORY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    try:
        with tempfile.TemporaryDirectory() as folder:
            os.chdir(folder)
            try:
                data, work = case(np.random.default_rng(seed))
            except Exception:  # noqa: BLE001 - what was drawn cannot be written
                code = 0
                return
            name.with_suffix(".bin").write_bytes(data)
            try:
                work()
                code = 0
            except OnnxPruneError as error:
                code = error.exit_code if error.where and error.fix else _FAILED
                name.with_suffix(".txt").write_text(f"{error}\nOnnxPruneError without a place or a fix: {error.what}")
            except MemoryError:
                code = 3
            except BaseException:  # noqa: BLE001 - whatever it is, it is what is looked for
                name.with_suffix(".txt").write_text(traceback.format_exc())
        if code not in (_FAILED, _REFUSED):
            name.with_suffix(".bin").unlink()
            name.with_suffix(".txt").unlink(missing_ok=True)
    finally:
        sys.stdout.flush()
        os._exit(code)


@click.command()
@click.argument("kind", type=click.Choice(list(CASES)))
@click.option("--seconds", default=60.0, show_default=True)
@click.option("--cases", default=None, type=int, help="So many, however long they take.")
@click.option("--start", default=0, show_default=True, help="The first seed.")
@click.option("--found", type=click.Path(path_type=Path), default=Path("fuzz-found"), show_default=True)
def main(kind: str, seconds: float, cases: int | None, start: int, found: Path) -> None:
    """Run cases for so long, and count how they end."""
    found.mkdir(parents=True, exist_ok=True)
    ends: Counter[str] = Counter()
    until = time.monotonic() + seconds
    seed = start
    while time.monotonic() < until if cases is None else seed < start + cases:
        ends[ending(CASES[kind], seed, found.resolve())] += 1
        seed += 1
    print(f"{kind}: {seed - start} cases, seeds {start} to {seed - 1}")
    for what, count in ends.most_common():
        print(f"{count:7d}  {what}")


if __name__ == "__main__":
    main()
