"""Write ONNX networks straight, layer by layer, with seeded weights under PyTorch-like names."""

import zlib
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

OPSET = 17
IR_VERSION = 8
EPSILON = np.float32(1e-5)  # PyTorch's BatchNorm default

Array = np.ndarray
Attribute = int | float | list[int]


class Tensor(NamedTuple):
    """A value of the graph: its name, and its shape without the batch axis, (C, H, W) or (C,)."""

    name: str
    shape: tuple[int, ...]


class NetBuilder:
    """A network under construction: every method appends one layer and returns the layer's output.

    The model reads `input`, float32 (N, *input_shape) with a free batch size N, and writes `logits`. A node's name is
    its module path ("layer1.0.conv1"); parameters add ".weight", ".bias", ".running_mean", ".running_var" to it.
    Initial values depend on `seed` and the parameter's own name alone: the same arguments give the same bytes.
    """

    def __init__(
        self, name: str, input_shape: tuple[int, ...], *, folded: bool = False, gain: float = 1.0, seed: int = 0
    ) -> None:
        """Begin with the input alone.

        folded: BatchNorms asked for by `norm=` go into the weights and bias of their layer; the function is the same.
        gain: of the initial weights, relative to He's; below 1 it keeps many residual sums in range.
        """
        self.input = Tensor("input", input_shape)
        self._name, self._folded, self._gain, self._seed = name, folded, gain, seed
        self._nodes: list[onnx.NodeProto] = []
        self._initializers: dict[str, TensorProto] = {}

    # ---- layers with weights

    def conv(  # noqa: PLR0913 - what torch.nn.Conv2d takes
        self,
        x: Tensor,
        name: str,
        channels: int,
        kernel: int = 3,
        stride: int = 1,
        *,
        padding: int | None = None,
        groups: int = 1,
        bias: bool = True,
        norm: str | None = None,
    ) -> Tensor:
        """Square convolution, weight (channels, C / groups, kernel, kernel).

        padding: kernel // 2 unless given. norm: the name of a BatchNorm that follows and takes the place of the bias.
        """
        pad = kernel // 2 if padding is None else padding
        weight = self._he(f"{name}.weight", (channels, x.shape[0] // groups, kernel, kernel))
        y = Tensor(name, (channels, *_windows(x.shape[1:], kernel, stride, pad)))
        parameters = self._parameters(y, weight, norm, bias=bias)
        self._node("Conv", [x.name, *parameters], y, {**_window(kernel, stride, pad), "group": groups})
        return self._normalised(y, norm)

    def gemm(self, x: Tensor, name: str, channels: int, *, norm: str | None = None) -> Tensor:
        """Fully connected layer on (N, C), weight (channels, C); norm as in `conv`."""
        weight = self._he(f"{name}.weight", (channels, x.shape[0]))
        y = Tensor(name, (channels,))
        self._node("Gemm", [x.name, *self._parameters(y, weight, norm)], y, {"transB": 1})
        return self._normalised(y, norm)

    def conv_transpose(self, x: Tensor, name: str, channels: int, stride: int = 2) -> Tensor:
        """Transposed convolution without overlap (kernel = stride), weight (C, channels, stride, stride), and bias."""
        weight = self._normal(f"{name}.weight", (x.shape[0], channels, stride, stride), (2 / x.shape[0]) ** 0.5)
        inputs = [
            x.name,
            self._store(f"{name}.weight", weight),
            self._store(f"{name}.bias", self._bias(name, channels)),
        ]
        y = Tensor(name, (channels, *(stride * size for size in x.shape[1:])))
        return self._node("ConvTranspose", inputs, y, _window(stride, stride, 0))

    def batch_norm(self, x: Tensor, name: str) -> Tensor:
        """BatchNormalization in inference form with non-trivial statistics; never folded."""
        values = self._norm(name, x.shape[0])
        inputs = [x.name, *(self._store(f"{name}.{part}", value) for part, value in values.items())]
        return self._node("BatchNormalization", inputs, Tensor(name, x.shape), {"epsilon": float(EPSILON)})

    # ---- layers without weights

    def relu(self, x: Tensor, name: str) -> Tensor:
        """max(x, 0)."""
        return self._node("Relu", [x.name], Tensor(name, x.shape))

    def relu6(self, x: Tensor, name: str) -> Tensor:
        """min(max(x, 0), 6) as a Clip; all of a network's Clips share their two bounds."""
        bounds = [
            self._store(f"relu6.{bound}", np.array(value, np.float32)) for bound, value in (("min", 0), ("max", 6))
        ]
        return self._node("Clip", [x.name, *bounds], Tensor(name, x.shape))

    def add(self, x: Tensor, y: Tensor, name: str) -> Tensor:
        """Sum of two tensors of the same shape."""
        assert x.shape == y.shape, (name, x, y)
        return self._node("Add", [x.name, y.name], Tensor(name, x.shape))

    def concat(self, tensors: Sequence[Tensor], name: str) -> Tensor:
        """Join along the channel axis."""
        shape = (sum(t.shape[0] for t in tensors), *tensors[0].shape[1:])
        return self._node("Concat", [t.name for t in tensors], Tensor(name, shape), {"axis": 1})

    def max_pool(self, x: Tensor, name: str, kernel: int = 2, stride: int = 2, padding: int = 0) -> Tensor:
        """Maximum over square windows."""
        y = Tensor(name, (x.shape[0], *_windows(x.shape[1:], kernel, stride, padding)))
        return self._node("MaxPool", [x.name], y, _window(kernel, stride, padding))

    def average_pool(self, x: Tensor, name: str, kernel: int = 2) -> Tensor:
        """Mean over square windows that do not overlap (stride = kernel)."""
        y = Tensor(name, (x.shape[0], *_windows(x.shape[1:], kernel, kernel, 0)))
        return self._node("AveragePool", [x.name], y, _window(kernel, kernel, 0))

    def global_average_pool(self, x: Tensor, name: str) -> Tensor:
        """Mean over the whole map, (C, 1, 1)."""
        return self._node("GlobalAveragePool", [x.name], Tensor(name, (x.shape[0], 1, 1)))

    def flatten(self, x: Tensor, name: str) -> Tensor:
        """(C, H, W) as (C H W,), channel-major."""
        return self._node("Flatten", [x.name], Tensor(name, (int(np.prod(x.shape)),)), {"axis": 1})

    def subsample(self, x: Tensor, name: str, stride: int = 2) -> Tensor:
        """x[:, :, ::stride, ::stride] as a Slice."""
        bounds = {"starts": [0, 0], "ends": [np.iinfo(np.int64).max] * 2, "axes": [2, 3], "steps": [stride] * 2}
        inputs = [self._store(f"{name}.{key}", np.array(value, np.int64)) for key, value in bounds.items()]
        y = Tensor(name, (x.shape[0], *_windows(x.shape[1:], 1, stride, 0)))
        return self._node("Slice", [x.name, *inputs], y)

    def pad_channels(self, x: Tensor, name: str, before: int, after: int) -> Tensor:
        """Channels of zeros in front of and behind x's, as a Pad."""
        pads = self._store(f"{name}.pads", np.array([0, before, 0, 0, 0, after, 0, 0], np.int64))
        return self._node("Pad", [x.name, pads], Tensor(name, (x.shape[0] + before + after, *x.shape[1:])))

    # ---- the result

    def model(self, output: Tensor) -> onnx.ModelProto:
        """The finished model; `output`, the last layer's, becomes `logits`. Call it once."""
        assert self._nodes[-1].output[0] == output.name, output
        self._nodes[-1].output[0] = "logits"
        read, written = (
            helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", *shape])
            for name, shape in (self.input, ("logits", output.shape))
        )
        graph = helper.make_graph(self._nodes, self._name, [read], [written], list(self._initializers.values()))
        opset = [helper.make_opsetid("", OPSET)]
        return helper.make_model(graph, opset_imports=opset, ir_version=IR_VERSION, producer_name="onnx-prune")

    # ---- parts

    def _parameters(self, y: Tensor, weight: Array, norm: str | None, *, bias: bool = True) -> list[str]:
        """Store the weight and bias of the layer that makes y, with the BatchNorm that follows folded in if asked for.

        Folding: W' = f W, b' = bias - f running_mean with f = scale / sqrt(running_var + epsilon), by rows.
        """
        shift = self._bias(y.name, y.shape[0]) if bias and norm is None else None
        if norm is not None and self._folded:
            scale, offset, mean, variance = self._norm(norm, y.shape[0]).values()
            factor = scale / np.sqrt(variance + EPSILON)
            weight, shift = weight * factor.reshape(-1, *[1] * (weight.ndim - 1)), offset - factor * mean
        names = [self._store(f"{y.name}.weight", weight)]
        return names if shift is None else [*names, self._store(f"{y.name}.bias", shift)]

    def _normalised(self, y: Tensor, norm: str | None) -> Tensor:
        """The layer's output after its BatchNorm, where that is a node of its own."""
        return y if norm is None or self._folded else self.batch_norm(y, norm)

    def _node(self, op: str, inputs: list[str], y: Tensor, attributes: dict[str, Attribute] | None = None) -> Tensor:
        node = helper.make_node(op, inputs, [y.name], y.name)
        node.attribute.extend(helper.make_attribute(key, value) for key, value in (attributes or {}).items())
        self._nodes.append(node)
        return y

    def _store(self, name: str, value: Array) -> str:
        self._initializers[name] = numpy_helper.from_array(value, name)
        return name

    def _random(self, name: str) -> np.random.Generator:
        return np.random.default_rng([self._seed, zlib.crc32(name.encode())])

    def _normal(self, name: str, shape: tuple[int, ...], deviation: float) -> Array:
        return self._random(name).standard_normal(shape, np.float32) * np.float32(deviation)

    def _he(self, name: str, shape: tuple[int, ...]) -> Array:
        """Normal with variance gain^2 2 / fan_in (He et al. 2015), which keeps the scale through ReLU networks."""
        return self._normal(name, shape, self._gain * (2 / np.prod(shape[1:])) ** 0.5)

    def _bias(self, name: str, channels: int) -> Array:
        return self._normal(f"{name}.bias", (channels,), 0.1)

    def _norm(self, name: str, channels: int) -> dict[str, Array]:
        """BatchNorm parameters in ONNX's order: scale and variance U(0.5, 1.5), bias and mean N(0, 0.1^2)."""

        def uniform(part: str) -> Array:
            return self._random(f"{name}.{part}").uniform(0.5, 1.5, channels).astype(np.float32)

        def normal(part: str) -> Array:
            return self._normal(f"{name}.{part}", (channels,), 0.1)

        parts = {"weight": uniform, "bias": normal, "running_mean": normal, "running_var": uniform}
        return {part: draw(part) for part, draw in parts.items()}


def with_initializers(model: onnx.ModelProto, values: Mapping[str, Array]) -> onnx.ModelProto:
    """A copy of the model that holds `values` under those initializers' names; the other initializers stay.

    A name that the model lacks, another shape or another type raises ValueError.
    """
    changed = onnx.ModelProto()
    changed.CopyFrom(model)
    held = {tensor.name: tensor for tensor in changed.graph.initializer}
    for name, value in values.items():
        new, old = numpy_helper.from_array(np.asarray(value, order="C"), name), held.get(name)
        if old is None or (old.dims, old.data_type) != (new.dims, new.data_type):
            there = "nothing" if old is None else _kind(old)
            raise ValueError(f"{model.graph.name} cannot hold {name} as {_kind(new)}: it has {there} of that name")
        old.CopyFrom(new)
    return changed


def _kind(tensor: TensorProto) -> str:
    return f"{TensorProto.DataType.Name(tensor.data_type)} {list(tensor.dims)}"


def _window(kernel: int, stride: int, padding: int) -> dict[str, Attribute]:
    return {"kernel_shape": [kernel] * 2, "strides": [stride] * 2, "pads": [padding] * 4}


def _windows(sizes: tuple[int, ...], kernel: int, stride: int, padding: int) -> tuple[int, ...]:
    """Output sizes of a sliding window, rounded down."""
    return tuple((size + 2 * padding - kernel) // stride + 1 for size in sizes)
