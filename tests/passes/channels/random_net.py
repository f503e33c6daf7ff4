"""A network that grows node by node, with constants in the several places and forms in which exporters leave them."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper


class Tensor(NamedTuple):
    """A name, and the shape without the batch axis: (channels, height, width) or (features,)."""

    name: str
    shape: tuple[int, ...]


class Net:
    """A graph that grows: `pick` draws a choice, the other methods add nodes and constants."""

    def __init__(self, data):
        self.draw = data.draw
        self.rng = np.random.default_rng(self.pick(range(1000)))
        self.nodes, self.initializers, self.kinds = [], [], []
        self.weights = {}
        self.tensors = [Tensor("x", (3, 4, 4))]

    def pick(self, choices):
        return self.draw(st.sampled_from(list(choices)))

    def op(self, kind, inputs, shape=None, outputs=1, **attributes):
        """A node; the first input's shape is kept unless another is given."""
        self.kinds.append(kind)
        names = [f"t{len(self.nodes)}_{i}" for i in range(outputs)]
        given = [i.name if isinstance(i, Tensor) else i for i in inputs]
        self.nodes.append(helper.make_node(kind, given, names, **attributes))
        made = [Tensor(name, inputs[0].shape if shape is None else tuple(shape)) for name in names]
        return made[0] if outputs == 1 else made

    def constant(self, values):
        """An initializer, or a Constant node."""
        name = f"c{len(self.initializers) + len(self.nodes)}"
        tensor = numpy_helper.from_array(np.asarray(values), name)
        if self.pick([True, True, False]):
            self.initializers.append(tensor)
        else:
            self.nodes.append(helper.make_node("Constant", [], [name], value=tensor))
        return name

    def vector(self, *shape, positive=False):
        values = self.rng.standard_normal(shape)
        return self.constant(np.abs(values) + 0.5 if positive else values)

    def weight(self, *shape):
        """A new weight as it is, transposed or reshaped on its way; or one that stands elsewhere."""
        style = self.pick(["new", "new", "shared", "transposed", "reshaped"])
        if style == "shared" and shape in self.weights:
            return self.weights[shape]
        values = self.rng.standard_normal(shape) / np.sqrt(max(1, np.prod(shape[1:])))
        if style == "transposed":
            name = self.op("Transpose", [self.constant(values.T)], ()).name
        elif style == "reshaped":
            name = self.op("Reshape", [self.constant(values.reshape(shape[0], -1)), self.shape(*shape)], ()).name
        else:
            name = self.constant(values)
        self.weights[shape] = name
        return name

    def shape(self, *sizes):
        return self.constant(np.array(sizes, np.int64))

    def reshape(self, x, *shape):
        """Behind the batch axis: its size as 0, as -1, or computed."""
        style = self.pick([0, -1, "computed"])
        if style != "computed":
            return self.op("Reshape", [x, self.shape(style, *shape)], shape)
        batch = self.op("Shape", [x], (), start=0, end=1)
        target = self.op("Concat", [batch, self.shape(*shape)], (), axis=0)
        return self.op("Reshape", [x, target], shape)

    def model(self, outputs):
        def value(name, dims):
            return helper.make_tensor_value_info(name, TensorProto.DOUBLE, ["N", *dims])

        graph = helper.make_graph(
            self.nodes, "g", [value("x", (3, 4, 4))], [value(*o) for o in outputs], self.initializers
        )
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
