"""Nodes that reduce a tensor to statistics of its channels: mean, mean square, share of values that are not zero."""

from __future__ import annotations

from collections.abc import Iterable

import onnx
from onnx import TensorProto, helper

from ..channels.activations import Activation

_PREFIX = "onnx_prune.statistics"
Outputs = tuple[str, str, str]


def statistics(sites: Iterable[Activation], opset: int) -> tuple[list[onnx.NodeProto], dict[str, Outputs]]:
    """The nodes, and the outputs with mean, mean square and share of non-zeros, (C,) float32, of each tensor."""
    nodes: list[onnx.NodeProto] = []
    outputs: dict[str, Outputs] = {}
    for number, site in enumerate({site.tensor: site for site in sites}.values()):
        name = f"{_PREFIX}.{number}"
        outputs[site.tensor] = (f"{name}.mean", f"{name}.square", f"{name}.nonzero")
        nodes += _statistics(site, name, opset)
    return nodes, outputs


def _statistics(site: Activation, name: str, opset: int) -> list[onnx.NodeProto]:
    cast, square, truth, one = (f"{name}.{n}" for n in ("float", "squares", "truth", "ones"))
    nodes = [
        helper.make_node("Cast", [site.tensor], [cast], to=TensorProto.FLOAT),
        helper.make_node("Mul", [cast, cast], [square]),
        helper.make_node("Cast", [cast], [truth], to=TensorProto.BOOL),
        helper.make_node("Cast", [truth], [one], to=TensorProto.FLOAT),
    ]
    axes = [axis for axis in range(site.rank) if axis != site.axis]
    for what, which in ((cast, "mean"), (square, "square"), (one, "nonzero")):
        nodes += _mean(what, f"{name}.{which}", axes, opset)
    return nodes


def _mean(source: str, output: str, axes: list[int], opset: int) -> list[onnx.NodeProto]:
    if opset < 18:
        return [helper.make_node("ReduceMean", [source], [output], axes=axes, keepdims=0)]
    constant = helper.make_node("Constant", [], [f"{output}.axes"], value_ints=axes)
    return [constant, helper.make_node("ReduceMean", [source, f"{output}.axes"], [output], keepdims=0)]
