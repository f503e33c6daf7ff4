"""What every node takes of a run, as ONNX Runtime runs the graph: fused, in its own layout."""

from __future__ import annotations

import json
import math
import time
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx

from ...passes.graph.scratch import scratch_folder
from ..session import RECORDED, Device, open_session

BLOCKED = "_nchwc"  # is added to the name of what a node of the blocked layout writes
_SUFFIX = "_kernel_time"
_QUIET = 0.25  # the share of the runs, the quickest ones, that are told: what a node takes when little else runs
_LEAST_RUNS, _MOST_RUNS = 6, 300


@dataclass(frozen=True, slots=True)
class NodeTime:
    """One node of the graph that ONNX Runtime makes of a model.

    name: begins with that of a node or of an output of the model, where ONNX Runtime takes it over
    op: its operator; one of the blocked layout begins with "nchwc."
    ms: of one run by the clock, mean of the quickest quarter of all runs
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

    The nodes of `model` must have names that differ, see `named`. seconds: to run for, 6 to 300 runs after the first.
    """
    with scratch_folder() as folder:
        session = open_session(model, device=device, threads=threads, record=folder)
        session.run(feeds)
        end, runs = time.perf_counter() + seconds, 0
        while runs < _LEAST_RUNS or (time.perf_counter() < end and runs < _MOST_RUNS):
            session.run(feeds)
            runs += 1
        times = _times(session.end_record())
        graph = onnx.load(folder / RECORDED, load_external_data=False).graph
    weights = {tensor.name for tensor in graph.initializer if len(tensor.dims) > 1}
    return tuple(_node_time(node, times.get(node.name, 0.0), weights) for node in graph.node)


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
    inputs = tuple(name for name in node.input if name)
    return NodeTime(node.name, op, ms, inputs, tuple(node.output), not weights.isdisjoint(inputs))


def _times(trace: Path) -> dict[str, float]:
    """Milliseconds by the node's name. What the first run took is left out."""
    runs = defaultdict(list)
    for event in json.loads(trace.read_text(encoding="utf-8")):
        if event.get("cat") == "Node" and event["name"].endswith(_SUFFIX):
            runs[event["name"].removesuffix(_SUFFIX)].append(event["dur"])
    return {name: _quick(durations[1:] or durations) / 1e3 for name, durations in runs.items()}


def _quick(durations: list[int]) -> float:
    return float(np.mean(sorted(durations)[: max(1, math.ceil(_QUIET * len(durations)))]))
