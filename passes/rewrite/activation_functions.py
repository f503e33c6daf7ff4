"""Which activation reads a tensor."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import onnx_graphsurgeon as gs
from scipy.special import expit

from ..algebra.layer.activation_functions import (
    ActivationFunction,
    Clipped,
    Smooth,
    elu,
    gated,
    hard_sigmoid,
    leaky,
    normal_distribution,
    sigmoid,
)
from ..graph.model import constant_values

Array = np.ndarray
PerChannel = Callable[[gs.Tensor], Array | None]  # one number a channel, None where it has more or is no constant


def activation_behind(tensor: gs.Tensor, per_channel: PerChannel) -> ActivationFunction | None:
    """What all readers of the tensor do to it, where they do the same; None for anything else."""
    readers = tensor.outputs
    found = [_activation(node, per_channel) for node in readers]
    if found and found[0] is not None and all(node.op == readers[0].op for node in readers):
        same = all(node.attrs == readers[0].attrs and _others(node) == _others(readers[0]) for node in readers)
        return found[0] if same else None
    return _gated(tensor)


def _others(node: gs.Node) -> list[str]:
    return [t.name for t in node.inputs[1:]]


def _activation(node: gs.Node, per_channel: PerChannel) -> ActivationFunction | None:
    make = _MAKE.get(node.op)
    return None if make is None else make(node, per_channel)


def _gated(tensor: gs.Tensor) -> ActivationFunction | None:
    """A product z * gate(z) written as two nodes, as exporters do for SiLU and HardSwish."""
    if len(tensor.outputs) != 2:
        return None
    for gate, product in (tensor.outputs, reversed(tensor.outputs)):
        if product.op != "Mul" or gate.op not in _GATES or len(gate.outputs[0].outputs) != 1:
            continue
        if {t.name for t in product.inputs} == {tensor.name, gate.outputs[0].name}:
            return gated(_GATES[gate.op](gate))
    return None


def _clip(node: gs.Node, _: PerChannel) -> ActivationFunction | None:
    bounds = [float(node.attrs.get("min", -np.inf)), float(node.attrs.get("max", np.inf))]
    for position in (1, 2):
        if len(node.inputs) > position and node.inputs[position].name:
            value = constant_values(node.inputs[position])
            if value is None:
                return None
            bounds[position - 1] = float(value)
    return Clipped(*bounds) if bounds[0] < bounds[1] else None


def _prelu(node: gs.Node, per_channel: PerChannel) -> ActivationFunction | None:
    slope = per_channel(node.inputs[1])
    return None if slope is None else leaky(slope)


def quantised_range(node: gs.Node) -> tuple[float, float] | None:
    """The least and the largest number that a QuantizeLinear can say, one scale for all; None where not known."""
    scale = constant_values(node.inputs[1])
    named = len(node.inputs) > 2 and node.inputs[2].name
    zero = constant_values(node.inputs[2]) if named else np.zeros((), np.uint8)
    if scale is None or zero is None or scale.size > 1 or zero.size > 1 or zero.dtype.kind not in "iu":
        return None
    if not named and node.attrs.get("output_dtype"):
        return None
    limits, at = np.iinfo(zero.dtype), int(zero.reshape(-1)[0])
    step = float(scale.reshape(-1)[0])
    return (limits.min - at) * step, (limits.max - at) * step


def _quantise(node: gs.Node, _: PerChannel) -> ActivationFunction | None:
    """Clipped by the range; what it rounds is small."""
    bounds = quantised_range(node)
    return None if bounds is None or not bounds[0] < bounds[1] else Clipped(*bounds)


def _number(node: gs.Node, name: str, default: float) -> float:
    return float(node.attrs.get(name, default))


def _hard_sigmoid(node: gs.Node, _: PerChannel) -> ActivationFunction | None:
    alpha, beta = _number(node, "alpha", 0.2), _number(node, "beta", 0.5)
    return Clipped(-beta / alpha, (1 - beta) / alpha) if alpha > 0 else None


_GATES: Mapping[str, Callable[[gs.Node], Callable[[Array], Array]]] = {
    "Sigmoid": lambda node: sigmoid(),
    "HardSigmoid": lambda node: hard_sigmoid(_number(node, "alpha", 0.2), _number(node, "beta", 0.5)),
}
_MAKE: Mapping[str, Callable[[gs.Node, PerChannel], ActivationFunction | None]] = {
    "Relu": lambda node, _: Clipped(),
    "Clip": _clip,
    "HardSigmoid": _hard_sigmoid,
    "QuantizeLinear": _quantise,
    "LeakyRelu": lambda node, _: leaky(_number(node, "alpha", 0.01)),
    "PRelu": _prelu,
    "Elu": lambda node, _: elu(_number(node, "alpha", 1.0)),
    "Selu": lambda node, _: elu(_number(node, "alpha", 1.67326), _number(node, "gamma", 1.0507)),
    "Celu": lambda node, _: elu(_number(node, "alpha", 1.0), width=_number(node, "alpha", 1.0)),
    "Sigmoid": lambda node, _: Smooth(expit, 0.25),
    "Tanh": lambda node, _: Smooth(np.tanh),
    "Softplus": lambda node, _: Smooth(lambda z: np.logaddexp(z, 0)),
    "HardSwish": lambda node, _: gated(hard_sigmoid(1 / 6, 0.5)),
    "Swish": lambda node, _: gated(sigmoid(_number(node, "alpha", 1.0))),
    "QuickGelu": lambda node, _: gated(sigmoid(_number(node, "alpha", 1.702))),
    "Gelu": lambda node, _: gated(normal_distribution),
    "Mish": lambda node, _: gated(lambda z: np.tanh(np.logaddexp(z, 0))),
}
