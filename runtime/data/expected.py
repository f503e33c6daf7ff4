"""Whether data look like what the network was trained on, as far as it tells.

A BatchNormalization stores the mean and the variance that its channels had in training. Where the first ones meet data
of quite others, the preprocessing is most likely not that of the training. Exporters often fold them away: then other
forms of the images are tried (forms.py).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import onnx
import onnx_graphsurgeon as gs

from ...passes.graph.model import Graph, constant_values
from ..device import Device
from ..session import open_session
from .batches import Data, part
from .forms import better_form

Array = np.ndarray

_FIRST = 3  # BatchNormalizations that are looked at; all of them have to be off
_SAMPLES, _FEWEST = 16, 4
# Medians over channels. With the right images ResNet-20 and ResNet-56 (CIFAR-10) stay below 0.45 and 1.8, from 4 images
# on and with enlarged crops of half their size below 2.5; with images whose mean and scale were forgotten the variance
# is 9 to 25 times smaller, with pixels of 0 to 255 the mean is off by 25 to 130 and the variance by 1,000 and more.
_SHIFT, _RATIO = 1.0, 4.0  # standard deviations; times
_EPSILON = 1e-5


@dataclass(frozen=True, slots=True)
class _Off:
    """Median distance of the means in standard deviations, and median ratio of the variances, of one node."""

    node: str
    shift: float
    ratio: float

    @property
    def far(self) -> bool:
        return self.shift > _SHIFT or not 1 / _RATIO < self.ratio < _RATIO

    def __str__(self) -> str:
        return f"variance {self.ratio:.2g} times the stored one, mean {self.shift:.2g} standard deviations off"


def doubt(graph: Graph, data: Data, device: Device = "auto", macs: float = 0) -> str | None:
    """Why the data are most likely not prepared as in training, in words; None where nothing speaks for that.

    macs: of one sample.
    """
    nodes = [node for node in graph.gs.nodes if _stores(node)][:_FIRST]
    if not nodes:
        return better_form(graph, data, device, macs)
    if data.samples is not None and data.samples < _FEWEST:
        return None
    found = [_off(node, *moments) for node, moments in zip(nodes, _seen(graph, nodes, data, device), strict=True)]
    if not all(off.far for off in found):
        return None
    return f"at BatchNormalization '{found[0].node}' they give what the network was not trained on: {found[0]}"


def _stores(node: gs.Node) -> bool:
    read = [constant_values(tensor) for tensor in node.inputs[3:5]]
    trains = node.attrs.get("training_mode") or len(node.outputs) > 1
    return node.op == "BatchNormalization" and not trains and len(read) == 2 and all(v is not None for v in read)


def _seen(graph: Graph, nodes: list[gs.Node], data: Data, device: Device) -> list[tuple[Array, Array]]:
    """Mean and variance of each channel of what the nodes read, float64 (C,)."""
    names = [node.inputs[0].name for node in nodes]
    own = {value.name for value in (*graph.source.graph.input, *graph.source.graph.output)}
    shown = onnx.GraphProto(output=[onnx.ValueInfoProto(name=name) for name in dict.fromkeys(names) if name not in own])
    session = open_session(graph.source, device=device, optimise=False, additions=onnx.ModelProto(graph=shown))
    count, sums = 0.0, [(np.zeros(()), np.zeros(()))] * len(nodes)
    for batch in data.first(_SAMPLES):
        few = batch if data.fixed or batch.size <= _SAMPLES else part(batch, np.arange(_SAMPLES))
        values: Mapping[str, Array] = {**few.feeds, **session.run(few.feeds, [n for n in names if n not in few.feeds])}
        arrays = [np.moveaxis(values[name].astype(np.float64), 1, 0) for name in names]
        flat = [array.reshape(len(array), -1) for array in arrays]
        count += 1
        sums = [(m + x.mean(1), s + (x**2).mean(1)) for (m, s), x in zip(sums, flat, strict=True)]
    return [(m / count, np.maximum(s / count - (m / count) ** 2, 0)) for m, s in sums]


def _off(node: gs.Node, mean: Array, variance: Array) -> _Off:
    stored_mean, stored = (np.asarray(constant_values(tensor), np.float64) for tensor in node.inputs[3:5])
    shift = np.median(np.abs(mean - stored_mean) / np.sqrt(stored + _EPSILON))
    ratio = np.median(np.log((variance + _EPSILON) / (stored + _EPSILON)))
    return _Off(node.name or node.outputs[0].name, float(shift), float(np.exp(ratio)))
