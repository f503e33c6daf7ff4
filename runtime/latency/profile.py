"""What every node takes of a run, as ONNX Runtime runs the graph: fused, in its own layout."""

from __future__ import annotations

import functools
import itertools
import json
import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from ...passes.errors import ReadError
from ...passes.graph.scratch import scratch_folder
from ..device import Device
from ..measure.latency import compare
from ..session import RECORDED, open_session

BLOCKED = "_nchwc"  # is added to the name of what a node of the blocked layout writes
_CAST = "InsertedPrecisionFreeCast_"  # stands before the names of what is computed in float32 for a float16 model
_SUFFIX = "_kernel_time"
# A node is told by its undisturbed runs: those within 5 % and 1 us, the clock's step, of nearly its quickest.
_QUICKEST, _NEAR, _STEP = 0.02, 1.05, 1.0
_LEAST_RUNS, _ENOUGH_RUNS, _MOST_RUNS = 6, 40, 300
LONGER = 3  # times the seconds that are given, for slow or busy machines, until there are enough runs
_CHAIN, _TRIES = 200, 3  # nodes that do next to nothing
_LEFT = 0.1  # of what was recorded stays, however little it is

Found = TypeVar("Found")


@dataclass(frozen=True, slots=True)
class NodeTime:
    """One node of the graph that ONNX Runtime makes of a model.

    name: begins with that of a node or of an output of the model, where ONNX Runtime takes it over
    op: its operator; one of the blocked layout begins with "nchwc."
    ms: of one run by the clock, undisturbed, less what recording it takes
    inputs, outputs: names of tensors, in the optimised graph
    weighted: whether one of the inputs is a constant of two axes or more
    """

    name: str
    op: str
    ms: float
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    weighted: bool


def profile(
    model: onnx.ModelProto,
    feeds: Mapping[str, np.ndarray],
    *,
    seconds: float = 1.0,
    device: Device = "auto",
    threads: int | None = 1,
) -> tuple[NodeTime, ...]:
    """The nodes of the optimised graph in the order in which they run, each with what it takes.

    The nodes of `model` must have names that differ, see `named`. seconds: to run for, 6 to 300 runs after the first;
    up to three times as long where there are not 40 of them.
    """
    return _recorded(model, feeds, seconds, device, threads, recording_ms(device))


@functools.cache
def recording_ms(device: Device = "auto") -> float:
    """Milliseconds that the recording adds to what it tells of each node: 1 to 3 us.

    A chain of nodes that do next to nothing, as it is recorded, less what it takes when nobody records. Each has data,
    a weight and a bias of four axes, as convolutions do: their shapes are written down while the clock runs.
    """
    names = [f"t{number}" for number in range(_CHAIN + 1)]
    one = np.full((1, 1, 1, 1), 0.5, np.float32)
    nodes = [helper.make_node("Sum", [a, "w", "b"], [b], b) for a, b in itertools.pairwise(names)]
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, one.shape) for name in (names[0], names[-1])]
    weights = [numpy_helper.from_array(one, name) for name in "wb"]
    graph = helper.make_graph(nodes, "chain", ends[:1], ends[1:], weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    feeds = {names[0]: one}
    found = []
    for _ in range(_TRIES):
        told = sum(node.ms for node in _recorded(model, feeds, 0.1, device, 1, 0.0))
        (timing,) = compare([model], feeds, seconds=0.1, warmup=0.02, device=device, threads=1)
        found.append(told - timing.wall)
    return max(float(np.median(found)), 0.0) / _CHAIN


def _recorded(
    model: onnx.ModelProto,
    feeds: Mapping[str, np.ndarray],
    seconds: float,
    device: Device,
    threads: int | None,
    recording: float,
) -> tuple[NodeTime, ...]:
    with scratch_folder() as folder:
        session = open_session(model, device=device, threads=threads, record=folder)
        session.run(feeds)
        _repeat(lambda: session.run(feeds), seconds)
        trace = session.end_record()
        times = recorded(trace, _times)
        graph = recorded(folder / RECORDED, lambda file: onnx.load(file, load_external_data=False).graph)
    weights = {tensor.name for tensor in graph.initializer if len(tensor.dims) > 1}
    net = {name: max(ms - recording, _LEFT * ms) for name, ms in times.items()}
    return tuple(_node_time(node, net.get(node.name, 0.0), weights) for node in graph.node)


def recorded(file: Path, read: Callable[[Path], Found]) -> Found:
    """What ONNX Runtime has written into the file. Raises ReadError where that is not whole: it tells no full disk."""
    try:
        return read(file)
    except Exception as error:  # protobuf's DecodeError has no public base
        raise ReadError(
            "what ONNX Runtime records of its runs cannot be read back",
            where=f"{file.parent}: {type(error).__name__}",
            fix="make room where temporary files go (TMPDIR)",
        ) from error


def _repeat(run: Callable[[], object], seconds: float) -> None:
    start, runs, spent = time.perf_counter(), 0, 0.0
    while runs < _LEAST_RUNS or (
        runs < _MOST_RUNS and (spent < seconds or (runs < _ENOUGH_RUNS and spent < LONGER * seconds))
    ):
        run()
        runs, spent = runs + 1, time.perf_counter() - start


def named(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy whose nodes all have names, each its own."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    seen: set[str] = set()
    for number, node in enumerate(copy.graph.node):
        if not node.name or node.name in seen:
            node.name = f"{node.name or node.op_type}#{number}"
        seen.add(node.name)
    return copy


def _node_time(node: onnx.NodeProto, ms: float, weights: set[str]) -> NodeTime:
    op = f"nchwc.{node.op_type}" if node.domain.endswith("nchwc") else node.op_type
    weighted = not weights.isdisjoint(node.input)
    name = node.name if op == "Cast" else node.name.removeprefix(_CAST)
    inputs, outputs = ([name.removeprefix(_CAST) for name in names if name] for names in (node.input, node.output))
    return NodeTime(name, op, ms, tuple(inputs), tuple(outputs), weighted)


def _times(trace: Path) -> dict[str, float]:
    """Milliseconds by the node's name. What the first run took is left out."""
    runs = defaultdict(list)
    for event in json.loads(trace.read_text(encoding="utf-8")):
        if event.get("cat") == "Node" and event["name"].endswith(_SUFFIX):
            runs[event["name"].removesuffix(_SUFFIX)].append(event["dur"])
    return {name: _undisturbed(durations[1:] or durations) / 1e3 for name, durations in runs.items()}


def _undisturbed(durations: Sequence[int]) -> float:
    """Microseconds, finer than the clock's step: the mean of the runs that nothing disturbed."""
    told = np.array(durations, np.float64)
    return float(told[told <= _NEAR * np.quantile(told, _QUICKEST) + _STEP].mean())
