"""Fuzzing: broken models, plans and data must end as said, never as a bug, a crash, or a run without end.

    python -m onnx_prune.tools.lab.fuzz models|plans|data --seconds 600 --found FOLDER

Each case is drawn from a seed, so that it comes again, and runs in a process of its own with a limit of memory and
time. What ends otherwise than with a result or an error that says what, where and what to do is kept in FOLDER.
"""

from __future__ import annotations

import contextlib
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
from onnx import numpy_helper, parser

from ...models import digits_model
from ...passes.errors import OnnxPruneError
from ...passes.selection.plan import Plan
from ...pipeline.prune import apply, prune
from ...runtime.data.inputs import ModelInput
from ...runtime.data.open import open_data

Rng = np.random.Generator
_MEMORY, _SECONDS = 6 << 30, 90  # of one case
_NUMBERS = (0, 1, -1, 2, 3, 7, 255, 65536, 2**31 - 1, -(2**31), 2**40, 2**62, -(2**63), 2**63 - 1)
_FAILED = 1


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


def mutated(model: onnx.ModelProto, rng: Rng) -> onnx.ModelProto:
    """The model with one to three fields of its message changed, so that it still parses."""
    copy = onnx.ModelProto.FromString(model.SerializeToString())
    for _ in range(int(rng.integers(1, 4))):
        _change(copy, rng)
    return copy


def _change(model: onnx.ModelProto, rng: Rng) -> None:
    graph = model.graph
    names = [t.name for t in graph.initializer] + [o for n in graph.node for o in n.output] + ["", "nobody"]
    nodes, held = list(graph.node), list(graph.initializer)
    values = [*graph.input, *graph.output, *graph.value_info]

    def pick(some: list) -> object:
        return some[int(rng.integers(len(some)))]

    def number() -> int:
        return int(pick(list(_NUMBERS))) if rng.random() < 0.6 else int(rng.integers(-4, 40))

    def rewire() -> None:
        node = pick(nodes)
        ends = node.input if rng.random() < 0.7 else node.output
        if ends:
            ends[int(rng.integers(len(ends)))] = pick(names)

    def shorten() -> None:
        node = pick(nodes)
        ends = node.input if rng.random() < 0.7 else node.output
        if ends and rng.random() < 0.6:
            ends.pop()
        else:
            ends.append(pick(names))

    def operator() -> None:
        pick(nodes).op_type = pick([n.op_type for n in nodes] + [s.name for s in onnx.defs.get_all_schemas()])

    def attribute() -> None:
        node = pick([n for n in nodes if n.attribute] or nodes)
        if not node.attribute or rng.random() < 0.15:
            node.attribute.append(onnx.helper.make_attribute(pick(["axis", "group", "pads", "axes"]), [number()]))
            return
        chosen = pick(list(node.attribute))
        if chosen.ints and rng.random() < 0.8:
            chosen.ints[int(rng.integers(len(chosen.ints)))] = number()
        elif chosen.type == onnx.AttributeProto.INT:
            chosen.i = number()
        elif rng.random() < 0.3:
            chosen.type = int(rng.integers(0, 15))
        elif chosen.ints:
            chosen.ints.append(number())
        else:
            node.attribute.remove(chosen)

    def sizes() -> None:
        tensor = pick(held)
        if tensor.dims and rng.random() < 0.8:
            tensor.dims[int(rng.integers(len(tensor.dims)))] = number()
        else:
            tensor.dims.append(number())

    def weight_type() -> None:
        pick(held).data_type = int(rng.integers(0, 25))

    def fitting() -> None:  # a weight that is whole and does not fit what reads it
        tensor = pick(held)
        array = numpy_helper.to_array(tensor)
        kind = int(rng.integers(5))
        if kind == 0 and array.ndim:
            array = np.take(array, range(max(array.shape[0] - 1, 0)), 0)
        elif kind == 1 and array.ndim > 1:
            array = np.swapaxes(array, 0, -1)
        elif kind == 2:
            array = array[None]
        elif kind == 3:
            array = array.astype(pick([np.float64, np.float16, np.int64, np.uint8, np.bool_]))
        else:
            array = np.array(array.ravel()[:1].reshape(()) if array.size else 0, array.dtype)
        tensor.CopyFrom(numpy_helper.from_array(np.ascontiguousarray(array), tensor.name))

    def numbers() -> None:
        tensor = pick([t for t in held if t.data_type == onnx.TensorProto.INT64] or held)
        array = numpy_helper.to_array(tensor).copy()
        if array.size:
            array.flat[int(rng.integers(array.size))] = (
                number() if array.dtype == np.int64 else pick([0, 1, np.inf, np.nan])
            )
            tensor.CopyFrom(numpy_helper.from_array(array, tensor.name))

    def declared() -> None:
        value = pick(values)
        dims = value.type.tensor_type.shape.dim
        kind = int(rng.integers(4))
        if kind == 0 and dims:
            dims[int(rng.integers(len(dims)))].dim_value = number()
        elif kind == 1:
            value.type.tensor_type.elem_type = int(rng.integers(0, 25))
        elif kind == 2:
            value.type.tensor_type.ClearField("shape")
        else:
            dims.add().dim_value = number()

    def gone() -> None:
        del graph.node[int(rng.integers(len(nodes)))]

    def doubled() -> None:
        graph.node.insert(int(rng.integers(len(nodes))), pick(nodes))

    def opset() -> None:
        pick(list(model.opset_import)).version = number()

    def output() -> None:
        pick(list(graph.output)).name = pick(names)

    weighted = [rewire, shorten, attribute, sizes, fitting, numbers, declared] * 2
    pick([*weighted, operator, weight_type, gone, doubled, opset, output])()


def seed_models() -> dict[str, bytes]:
    """Small networks of several kinds: the digits demo, and graphs in which sizes are computed and axes split."""
    rng = np.random.default_rng(0)

    def filled(text: str, **shapes: tuple[int, ...] | np.ndarray) -> bytes:
        model = parser.parse_model(text)
        for name, shape in shapes.items():
            array = shape if isinstance(shape, np.ndarray) else rng.standard_normal(shape).astype(np.float32) * 0.4
            model.graph.initializer.append(numpy_helper.from_array(array, name))
        return model.SerializeToString()

    head = '<ir_version: 8, opset_import: ["" : 17]>\ng '
    residual = filled(
        head
        + """(float[n, 3, 8, 8] x) => (float[n, 5] y) {
        s = Conv <pads=[1,1,1,1]> (x, w0, b0)
        c = Conv <pads=[1,1,1,1]> (s, w1)
        b = BatchNormalization (c, g, h, m, v)
        r = Relu (b)
        d = Conv <pads=[1,1,1,1], group=8> (r, wd)
        t = Add (s, d)
        p, q = Split <axis=1> (t, parts)
        j = Concat <axis=1> (q, p)
        e = Pad (j, pads)
        l = Slice (e, from, to, axes)
        f = GlobalAveragePool (l)
        k = Reshape (f, shape)
        y = Gemm (k, w2, b2) }""",
        w0=(8, 3, 3, 3), b0=(8,), w1=(8, 8, 3, 3), g=(8,), h=(8,), m=(8,), v=np.ones(8, np.float32), wd=(8, 1, 3, 3),
        parts=np.array([5, 3]), pads=np.array([0, 2, 0, 0, 0, 0, 0, 0]), **{"from": np.array([1])}, to=np.array([9]),
        axes=np.array([1]), shape=np.array([0, -1]), w2=(8, 5), b2=(5,),
    )  # fmt: skip
    attention = filled(
        head
        + """(float[n, 6, 8] x) => (float[n, 6, 5] y) {
        q = MatMul (x, wq)
        k = MatMul (x, wk)
        v = MatMul (x, wv)
        s = Shape (x)
        n = Gather <axis=0> (s, zero)
        n1 = Unsqueeze (n, first)
        to = Concat <axis=0> (n1, rest)
        q4 = Reshape (q, to)
        k4 = Reshape (k, to)
        v4 = Reshape (v, to)
        qt = Transpose <perm=[0,2,1,3]> (q4)
        kt = Transpose <perm=[0,2,3,1]> (k4)
        vt = Transpose <perm=[0,2,1,3]> (v4)
        a = MatMul (qt, kt)
        p = Softmax <axis=-1> (a)
        o = MatMul (p, vt)
        ot = Transpose <perm=[0,2,1,3]> (o)
        back = Reshape (ot, flat)
        l = LayerNormalization <axis=-1> (back, scale, shift)
        y = MatMul (l, wo) }""",
        wq=(8, 12), wk=(8, 12), wv=(8, 12), zero=np.array(0), first=np.array([0]), rest=np.array([6, 3, 4]),
        flat=np.array([0, 0, 12]), scale=(12,), shift=(12,), wo=(12, 5),
    )  # fmt: skip
    recurrent = filled(
        head
        + """(float[t, n, 6] x) => (float[t, n, 4] y) {
        a = MatMul (x, w0)
        b, h, c = LSTM <hidden_size=8> (a, W, R, B)
        s = Squeeze (b, one)
        g, i = GRU <hidden_size=5> (s, W1, R1)
        u = Squeeze (g, one)
        y = MatMul (u, w1) }""",
        w0=(6, 7), W=(1, 32, 7), R=(1, 32, 8), B=(1, 64), one=np.array([1]), W1=(1, 15, 8), R1=(1, 15, 5), w1=(5, 4),
    )  # fmt: skip
    return {
        "digits": Path(digits_model()).read_bytes(),
        "residual": residual,
        "attention": attention,
        "lstm": recurrent,
    }


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


CASES = {"models": model_case, "plans": plan_case, "data": data_case}


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
        with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
            try:
                data, work = case(np.random.default_rng(seed))
            except Exception:  # noqa: BLE001 - what was drawn cannot be written
                os._exit(0)
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
        if code != _FAILED and code != 5:
            name.with_suffix(".bin").unlink()
            name.with_suffix(".txt").unlink(missing_ok=True)
    finally:
        sys.stdout.flush()
        os._exit(code)


@click.command()
@click.argument("kind", type=click.Choice(list(CASES)))
@click.option("--seconds", default=60.0, show_default=True)
@click.option("--start", default=0, show_default=True, help="The first seed.")
@click.option("--found", type=click.Path(path_type=Path), default=Path("fuzz-found"), show_default=True)
def main(kind: str, seconds: float, start: int, found: Path) -> None:
    """Run cases for so long, and count how they end."""
    found.mkdir(parents=True, exist_ok=True)
    ends: Counter[str] = Counter()
    until = time.monotonic() + seconds
    seed = start
    while time.monotonic() < until:
        ends[ending(CASES[kind], seed, found.resolve())] += 1
        seed += 1
    print(f"{kind}: {seed - start} cases, seeds {start} to {seed - 1}")
    for what, count in ends.most_common():
        print(f"{count:7d}  {what}")


if __name__ == "__main__":
    main()
