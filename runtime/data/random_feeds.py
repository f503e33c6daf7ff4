"""Random input for any model: which inputs it has, and how large the free sizes are."""

from __future__ import annotations

import itertools
import math
import operator
import re
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from ...passes.errors import BoundError, ReadError
from ...passes.graph.shapes import MOST_ELEMENTS
from ..device import Device
from ..session import Runnable, Session, open_session
from .needed_sizes import known_numbers, needed_sizes

Feeds = dict[str, np.ndarray]

# Sizes to try where a model leaves them free: what classifiers and detectors are trained on, then what small nets take.
_EXTENTS = (64, 224, 256, 32, 16, 320, 384, 512, 640, 8, 1)
_BATCHES = (1, 2)
_HELD = 1 << 27  # elements of an input that are drawn; of a larger one the size alone is said
_LENGTHS, _LONGEST = (4, 8, 16, 32, 64, 128, 256), 1024  # of a first axis that is not a batch
_WRITTEN = 12  # sizes written into Reshapes that are tried for other axes too: an export may have fixed them
_WORDS = 100  # of one list of strings
_TARGET = 16  # axes of a tensor, at most
_BATCH_NAME = re.compile(r"n|b|bs|batch.*", re.IGNORECASE)
_CHANNEL_NAME = re.compile(r"c|ch|channels?|num_channels", re.IGNORECASE)


def sample_feeds(
    model: Runnable,
    *,
    seed: int = 0,
    batch: int | None = None,
    sizes: Mapping[str, int] | None = None,
    extent: int = 224,
    number: int = 0,
    some: bool = False,
) -> Feeds:
    """Return random input for every input that a caller must give, of the declared type and size.

    Free sizes: what `sizes` says of their name; else what the weights that read them want (see needed_sizes.py); else
    `batch` (1 by default) for the leading one; else `extent`. One name has one size everywhere. A size that the model
    fixes stays. number: which of the numbers that the graph knows, such as sample rates, a scalar is. some: leave out
    the inputs for which none can be made. Floats are standard normal, uint8 covers its range, other integers are 0 or 1
    (they may be indices), strings what the graph knows, each input drawn from (seed, its name). Raises ReadError where
    an input has no shape or no such type.
    """
    sizes = dict(sizes or {})
    graph = _load(model).graph
    needed, numbers = needed_sizes(graph), known_numbers(graph)
    feeds = {}
    for value in required_inputs(graph):
        if some and _undrawable(value) is not None:
            continue
        drawn = _random(value, _shape(value, needed.get(value.name, {}), batch or 1, extent, sizes), seed)
        if drawn.dtype.kind == "O":
            drawn = np.resize(np.array(known_words(graph), object), drawn.shape)
        known = numbers.get(value.name, ())
        feeds[value.name] = np.full_like(drawn, known[number % len(known)]) if known else drawn
    return feeds


def runnable_feeds(
    model: Runnable,
    *,
    seed: int = 0,
    batch: int | None = None,
    sizes: Mapping[str, int] | None = None,
    device: Device = "auto",
    base_dir: str | Path | None = None,
) -> Feeds:
    """Return `sample_feeds` of the first sizes on which the model runs; raise ReadError if it runs on none tried.

    A model without free sizes has one candidate, which is not tried: whoever runs it will see.
    """
    graph_only = _load(model)
    candidates = _distinct(graph_only, seed, batch, sizes)
    first = next(candidates)
    second = next(candidates, None)
    if second is None:
        return first
    session = open_session(model, device=device, optimise=False, base_dir=base_dir)
    failure = None
    for feeds in itertools.chain((first, second), candidates):
        failure = _failure(session, feeds)
        if failure is None:
            return feeds
    named = {d.dim_param for v in required_inputs(graph_only.graph) for d in v.type.tensor_type.shape.dim}
    options = " ".join(f"--size-of {name}=N" for name in sorted(named - {""}))
    raise ReadError(
        "no input was found on which the model runs",
        where=f"the last one tried: {failure.what if failure else ''}",
        fix=f"{f'say its sizes ({options}), or ' if options else ''}give one example as calibration data: an .npz of "
        "arrays named like the inputs",
    ) from failure


def _failure(session: Session, feeds: Feeds) -> ReadError | None:
    try:
        session.run(feeds)
    except BoundError:
        raise
    except ReadError as error:
        return error
    return None


def required_inputs(graph: onnx.GraphProto) -> list[onnx.ValueInfoProto]:
    """Return the graph inputs that have no default: old exporters list every initializer as an input too."""
    defaults = {tensor.name for tensor in graph.initializer} | {s.values.name for s in graph.sparse_initializer}
    return [value for value in graph.input if value.name not in defaults]


def _load(model: Runnable) -> onnx.ModelProto:
    if isinstance(model, onnx.ModelProto):
        return model
    try:
        return onnx.load(model, load_external_data=False)
    except (OSError, ValueError) as error:
        raise ReadError(f"the model cannot be read: {error}", where=str(model), fix="give an ONNX file") from error


def _distinct(model: onnx.ModelProto, seed: int, batch: int | None, sizes: Mapping[str, int] | None) -> Iterator[Feeds]:
    """Feeds for every pair of a batch and an extent, those with sizes seen before left out."""
    seen = set()
    batches = (batch,) if batch is not None else dict.fromkeys((*_BATCHES, *_leading_sizes(model)))
    extents = dict.fromkeys((*_EXTENTS, *itertools.islice(_written_sizes(model), _WRITTEN)))
    count = max((len(known) for known in known_numbers(model.graph).values()), default=1)
    for batch_size, extent, number in itertools.product(batches, extents, range(count)):
        feeds = sample_feeds(model, seed=seed, batch=batch_size, sizes=sizes, extent=extent, number=number)
        shapes = (number, *(array.shape for array in feeds.values()))
        if shapes not in seen:
            seen.add(shapes)
            yield feeds


def _leading_sizes(model: onnx.ModelProto) -> Iterator[int]:
    """What a free first axis may have to be that is not a batch but frames or clips: what Reshapes ask, powers of 2.

    A target (k, l, ...) asks for k, or k * l, one of (-1, r) for r / (the elements of a frame).
    """
    frames = [
        math.prod(d.dim_value for d in value.type.tensor_type.shape.dim[1:]) for value in required_inputs(model.graph)
    ]
    for target in _targets(model):
        asked = [*itertools.accumulate(target, operator.mul)]
        asked += [math.prod(target[1:]) // frame for frame in frames if frame > 0]
        yield from (n for n in asked if 1 < n <= _LONGEST)
    if all(d.dim_value > 0 for v in required_inputs(model.graph) for d in v.type.tensor_type.shape.dim[1:]):
        yield from _LENGTHS


def _written_sizes(model: onnx.ModelProto) -> Iterator[int]:
    """Numbers in the targets of Reshapes, each once."""
    yield from dict.fromkeys(n for target in _targets(model) for n in target if 1 < n <= _LONGEST)


def _targets(model: onnx.ModelProto) -> Iterator[list[int]]:
    """The targets of Reshapes, as far as they are constant: -1 stands for what a Concat adds that is computed."""
    held = {t.name: _integers(t) for t in model.graph.initializer if t.data_type == TensorProto.INT64}
    for node in model.graph.node:
        known = [held.get(name) for name in node.input]
        if node.op_type == "Constant" and node.attribute and node.attribute[0].HasField("t"):
            held[node.output[0]] = _integers(node.attribute[0].t)
        elif node.op_type == "Unsqueeze" and known[0]:
            held[node.output[0]] = known[0]
        elif node.op_type == "Concat" and any(known):
            held[node.output[0]] = [number for part in known for number in part or (-1,)]
        elif node.op_type == "Reshape" and len(known) > 1 and known[1]:
            yield known[1]


def _integers(tensor: onnx.TensorProto) -> list[int]:
    """The numbers of a small tensor; none of a large one, which is no target."""
    if math.prod(tensor.dims) > _TARGET or tensor.data_location == TensorProto.EXTERNAL:
        return []
    return [int(number) for number in numpy_helper.to_array(tensor).ravel().tolist()]


def _shape(
    value: onnx.ValueInfoProto, needed: Mapping[int, int], batch: int, extent: int, sizes: dict[str, int]
) -> tuple[int, ...]:
    """Resolve the free sizes of one input; a name that is met for the first time enters `sizes`."""
    problem = _undrawable(value)
    if problem is not None:
        raise problem
    dims = value.type.tensor_type.shape.dim
    shape = []
    for axis, dim in enumerate(dims):
        name = dim.dim_param
        if dim.HasField("dim_value") and dim.dim_value >= 0:
            size = dim.dim_value
        elif name in sizes:
            size = sizes[name]
        elif axis in needed:
            size = needed[axis] or batch
        elif (axis == 0 and len(dims) > 1) or _BATCH_NAME.fullmatch(name):
            size = batch
        elif axis == 1 and len(dims) > 2 and _CHANNEL_NAME.fullmatch(name):
            size = 3
        else:
            size = extent
        if name:
            sizes[name] = size
        shape.append(size)
    return tuple(shape)


def check_drawable(graph: onnx.GraphProto) -> None:
    """Raise ReadError where an input is such that no random input can be made: a sequence, or without a shape."""
    problem = next((p for p in map(_undrawable, required_inputs(graph)) if p is not None), None)
    if problem is not None:
        raise problem


def is_drawable(graph: onnx.GraphProto) -> bool:
    """Whether `check_drawable` has nothing against it."""
    return all(_undrawable(value) is None for value in required_inputs(graph))


_KINDS = {
    None: "no type",
    "sequence_type": "a sequence",
    "optional_type": "an optional",
    "map_type": "a map",
    "sparse_tensor_type": "a sparse tensor",
}


def _undrawable(value: onnx.ValueInfoProto) -> ReadError | None:
    """Why no random input can be made for this one; None where it can."""
    kind = value.type.WhichOneof("value")
    words = helper.printable_type(value.type) if kind == "tensor_type" else _KINDS.get(kind, str(kind))
    where = f"input {value.name!r}: {words}"
    if kind != "tensor_type" or value.type.tensor_type.elem_type == TensorProto.UNDEFINED:
        return ReadError(
            "an input is no tensor, so no random input can be made",
            where=where,
            fix="export the model with tensors as inputs; onnx-prune inspect shows the channels without running it",
        )
    if not value.type.tensor_type.HasField("shape"):
        return ReadError(
            "an input has no shape, so no random input can be made",
            where=where,
            fix="declare its shape (onnx.tools.update_model_dims does), or give calibration data",
        )
    return None


def known_words(graph: onnx.GraphProto) -> tuple[str, ...]:
    """Strings that the nodes have in their lists (keys of an encoder, a vocabulary); digits where there are none."""
    lists = [a.strings for node in graph.node for a in node.attribute]
    words = dict.fromkeys(word.decode(errors="replace") for words in lists for word in words[:_WORDS])
    return tuple(words) or tuple("0123456789")


def _random(value: onnx.ValueInfoProto, shape: tuple[int, ...], seed: int) -> np.ndarray:
    kind = value.type.tensor_type.elem_type
    if math.prod(shape) > MOST_ELEMENTS:
        raise ReadError(
            f"the model asks for an input of {math.prod(shape):.3g} elements",
            where=f"input {value.name!r} {list(shape)}",
            fix="export the model for a smaller input",
        )
    dtype = helper.tensor_dtype_to_np_dtype(kind)
    if math.prod(shape) > _HELD:
        return np.broadcast_to(np.zeros((), dtype), shape)
    rng = np.random.default_rng([seed, zlib.crc32(value.name.encode())])
    if dtype.kind == "O":
        return np.full(shape, "", object)
    if dtype == np.uint8:
        return np.asarray(rng.integers(0, 256, shape, np.uint8))
    if dtype == np.bool_ or np.issubdtype(dtype, np.integer):
        return np.asarray(rng.integers(0, 2, shape), dtype)
    return np.asarray(rng.standard_normal(shape), dtype)
