"""Random graphs that are put together from all rule families: convolutions to attention, in one float64 network."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from hypothesis import assume

from .random_net import Net, Tensor

OPERATIONS: dict[int, list[Callable]] = {1: [], 3: []}  # by rank, without the batch


def operation(rank):
    def register(function):
        OPERATIONS[rank].append(function)
        return function

    return register


def like(net, x):
    """Another tensor of that shape, made if there is none."""
    same = [t for t in net.tensors if t.shape == x.shape and t != x]
    if same and net.pick([True, True, False]):
        return net.pick(same)
    return conv(net, x, x.shape[0]) if len(x.shape) == 3 else matmul(net, x, x.shape[0])


@operation(3)
def conv(net, x, filters=None):
    channels, kernel = filters or net.pick(range(2, 7)), net.pick([1, 3])
    inputs = [x, net.weight(channels, x.shape[0], kernel, kernel)]
    inputs += [net.vector(channels)] * net.pick([0, 1])
    return net.op("Conv", inputs, (channels, *x.shape[1:]), pads=[kernel // 2] * 4)


@operation(3)
def grouped(net, x):
    """Depthwise too, with one filter or two a channel."""
    group = net.pick([g for g in range(1, x.shape[0] + 1) if x.shape[0] % g == 0])
    channels = group * net.pick([1, 2, 3])
    weight = net.weight(channels, x.shape[0] // group, 1, 1)
    return net.op("Conv", [x, weight, net.vector(channels)], (channels, *x.shape[1:]), group=group)


@operation(3)
def binary(net, x):
    other = net.pick([like, carried])(net, x)
    operands = [x, other] if net.pick([True, False]) else [other, x]
    return net.op(net.pick(["Add", "Mul", "Sub", "Max"]), operands, x.shape)


def carried(net, x):
    shapes = [(x.shape[0], 1, 1), (1, x.shape[0], 1, 1), (1,), (), (x.shape[0], *x.shape[1:]), (x.shape[2],)]
    return Tensor(net.vector(*net.pick(shapes)), x.shape)


@operation(3)
def unary(net, x):
    if net.pick([True, False]):
        return net.op("PRelu", [x, net.vector(x.shape[0], 1, 1)])
    return net.op(net.pick(["Relu", "Sigmoid", "Cos", "Identity", "HardSwish"]), [x])


@operation(3)
@operation(1)
def concat(net, x):
    fitting = [t for t in net.tensors if t.shape[1:] == x.shape[1:] and len(t.shape) == len(x.shape)]
    parts = [x, net.pick(fitting)]
    channels = sum(p.shape[0] for p in parts)
    assume(channels <= 16)
    return net.op("Concat", parts, (channels, *x.shape[1:]), axis=net.pick([1, -len(x.shape)]))


@operation(3)
@operation(1)
def split(net, x):
    assume(x.shape[0] >= 2)
    at = net.pick(range(1, x.shape[0]))
    sizes = [at, x.shape[0] - at]
    if sizes[0] == sizes[1] and net.pick([True, False]):
        parts = net.op("Split", [x], outputs=2, axis=1, num_outputs=2)
    else:
        parts = net.op("Split", [x, net.shape(*sizes)], outputs=2, axis=1)
    parts = [Tensor(p.name, (n, *x.shape[1:])) for p, n in zip(parts, sizes, strict=True)]
    net.tensors += parts
    return parts[0]


@operation(3)
@operation(1)
def taken(net, x):
    """Slice forwards or backwards, or Gather, or Pad."""
    n = x.shape[0]
    kind = net.pick(["Slice", "Gather", "Pad"])
    if kind == "Slice":
        start, step = net.pick(range(n)), net.pick([1, 2, -1])
        end = -n - 1 if step < 0 else net.pick([n, 1000])
        size = len(range(n)[start:None:step])
        bounds = [net.shape(v) for v in (start, end, 1, step)]
        return net.op("Slice", [x, *bounds], (size, *x.shape[1:]))
    if kind == "Gather":
        indices = [net.pick(range(-n, n)) for _ in range(net.pick(range(1, 6)))]
        return net.op("Gather", [x, net.shape(*indices)], (len(indices), *x.shape[1:]), axis=1)
    before, after = net.pick([0, 1, 2]), net.pick([0, 2])
    rest = [0] * len(x.shape[1:])
    return net.op("Pad", [x, net.shape(0, before, *rest, 0, after, *rest)], (before + n + after, *x.shape[1:]))


@operation(3)
def shuffle(net, x):
    divisors = [g for g in range(2, x.shape[0]) if x.shape[0] % g == 0]
    assume(divisors)
    group = net.pick(divisors)
    inner = x.shape[0] // group
    five = net.reshape(x, group, inner, *x.shape[1:])
    swapped = net.op("Transpose", [five], (inner, group, *x.shape[1:]), perm=[0, 2, 1, 3, 4])
    return net.reshape(swapped, *x.shape)


@operation(3)
def channels_last(net, x):
    t = net.op("Transpose", [x], perm=[0, 2, 3, 1])
    channels = net.pick([x.shape[0], 4])
    if channels == x.shape[0]:
        t = net.op("Add", [t, net.vector(channels)])
    else:
        t = net.op("MatMul", [t, net.weight(x.shape[0], channels)])
    return net.op("Transpose", [t], (channels, *x.shape[1:]), perm=[0, 3, 1, 2])


@operation(3)
def pooled(net, x):
    kind = net.pick(["MaxPool", "AveragePool", "GlobalAveragePool", "ReduceMean", "ReduceMax", "Resize"])
    if kind == "Resize":
        sizes = net.op("Concat", [net.op("Shape", [x], (), start=0, end=1), net.shape(x.shape[0], 4, 4)], (), axis=0)
        return net.op("Resize", [x, "", "", sizes], (x.shape[0], 4, 4), mode="nearest")
    if kind.startswith("Reduce"):
        return net.op(kind, [x, net.shape(2, 3)], (x.shape[0], 1, 1))
    if kind.startswith("Global"):
        return net.op(kind, [x], (x.shape[0], 1, 1))
    assume(x.shape[1] == x.shape[2] == 4)
    return net.op(kind, [x], (x.shape[0], 2, 2), kernel_shape=[2, 2], strides=[2, 2])


@operation(3)
def normalised(net, x):
    n = x.shape[0]
    kind = net.pick(["BatchNormalization", "InstanceNormalization", "GroupNormalization", "LayerNormalization"])
    if kind == "BatchNormalization":
        return net.op(kind, [x, *(net.vector(n) for _ in range(3)), net.vector(n, positive=True)])
    if kind == "InstanceNormalization":
        return net.op(kind, [x, net.vector(n), net.vector(n)])
    if kind == "LayerNormalization":
        t = net.op("Transpose", [x], perm=[0, 2, 3, 1])
        t = net.op(kind, [t, net.vector(n), net.vector(n)])
        return net.op("Transpose", [t], perm=[0, 3, 1, 2])
    groups = net.pick([g for g in range(1, n + 1) if n % g == 0])
    t = net.op("Reshape", [x, net.shape(0, groups, -1)])
    t = net.op("InstanceNormalization", [t, net.vector(groups), net.vector(groups)])
    back = net.op("Shape", [x], ())
    return net.op("Reshape", [t, back], x.shape)


@operation(3)
def gate(net, x):
    squeezed = net.op("GlobalAveragePool", [x], (x.shape[0], 1, 1))
    scale = net.op("Sigmoid", [conv(net, squeezed, x.shape[0])])
    return net.op("Mul", [x, scale])


@operation(3)
def attention(net, x):
    heads, size, length = net.pick([1, 2, 3]), net.pick([1, 2]), x.shape[1] * x.shape[2]
    t = net.op("Transpose", [net.reshape(x, x.shape[0], length)], (length, x.shape[0]), perm=[0, 2, 1])

    def project(*order):
        p = net.op("MatMul", [t, net.weight(x.shape[0], heads * size)])
        p = net.reshape(p, length, heads, size)
        return net.op("Transpose", [p], perm=[0, *order])

    scores = net.op("MatMul", [project(2, 1, 3), project(2, 3, 1)])
    mixed = net.op("MatMul", [net.op("Softmax", [scores], axis=-1), project(2, 1, 3)])
    mixed = net.reshape(net.op("Transpose", [mixed], perm=[0, 2, 1, 3]), length, heads * size)
    out = net.op("MatMul", [mixed, net.weight(heads * size, x.shape[0])])
    back = net.op("Transpose", [out], perm=[0, 2, 1])
    return net.reshape(back, *x.shape)


@operation(3)
def upsampled(net, x):
    assume(x.shape[1] <= 2)
    weight = net.constant(net.rng.standard_normal((x.shape[0], filters := net.pick([2, 3]), 2, 2)))
    return net.op("ConvTranspose", [x, weight], (filters, *(2 * n for n in x.shape[1:])), strides=[2, 2])


@operation(3)
def stretched(net, x):
    """A table that is expanded to the channels, or channels that are tiled."""
    if net.pick([True, False]):
        repeats = net.pick([1, 2])
        assume(x.shape[0] * repeats <= 12)
        return net.op("Tile", [x, net.shape(1, repeats, 1, 1)], (x.shape[0] * repeats, *x.shape[1:]))
    table = net.op("Expand", [net.vector(1, 1, 1), net.shape(1, x.shape[0], 1, 1)], x.shape)
    return net.op("Where", [net.op("Greater", [x, table]), x, table])


@operation(3)
def contracted(net, x):
    filters = net.pick([2, 4])
    weight = net.constant(net.rng.standard_normal((x.shape[0], filters)))
    return net.op("Einsum", [x, weight], (filters, *x.shape[1:]), equation="bchw,cd->bdhw")


@operation(3)
def blocks(net, x):
    if x.shape[1] == 4 and x.shape[0] <= 4:
        return net.op("SpaceToDepth", [x], (x.shape[0] * 4, 2, 2), blocksize=2)
    assume(x.shape[0] % 4 == 0 and x.shape[1] <= 2)
    shape = (x.shape[0] // 4, x.shape[1] * 2, x.shape[2] * 2)
    return net.op("DepthToSpace", [x], shape, blocksize=2, mode=net.pick(["DCR", "CRD"]))


@operation(3)
def flattened(net, x):
    size = int(np.prod(x.shape))
    return net.op("Flatten", [x], (size,)) if net.pick([True, False]) else net.reshape(x, size)


@operation(1)
def matmul(net, x, features=None):
    features = features or net.pick(range(2, 9))
    if net.pick([True, False]):
        return net.op("MatMul", [x, net.weight(x.shape[0], features)], (features,))
    weight = net.weight(features, x.shape[0])
    return net.op("Gemm", [x, weight, net.vector(features)], (features,), transB=1)


@operation(1)
def vector_ops(net, x):
    if net.pick([True, False]):
        return net.op(net.pick(["Tanh", "Softplus"]), [x])
    other = net.pick([like(net, x), Tensor(net.vector(x.shape[0]), x.shape)])
    return net.op(net.pick(["Add", "Mul"]), [x, other])


@operation(1)
def unflattened(net, x):
    assume(x.shape[0] % 4 == 0)
    return net.reshape(x, x.shape[0] // 4, 2, 2)


@operation(1)
def recurrent(net, x):
    """The features are one step of a sequence."""
    hidden, n = net.pick([2, 3]), x.shape[0]
    gates = {"LSTM": 4, "GRU": 3, "RNN": 1}
    kind = net.pick(gates)
    weights = [net.weight(1, gates[kind] * hidden, size) for size in (n, hidden)]
    sequence = net.op("Unsqueeze", [x, net.shape(0)])
    states = net.op(kind, [sequence, *weights], hidden_size=hidden)
    return net.op("Squeeze", [states, net.shape(0, 1)], (hidden,))


def compose(data):
    """A graph of a few operations on tensors picked at random; what was made last is read by one more layer."""
    net = Net(data)
    net.tensors = [conv(net, net.tensors[0])]
    for _ in range(net.pick(range(2, 8))):
        x = net.tensors[-1] if net.pick([True, True, False]) else net.pick(net.tensors)
        net.tensors.append(net.pick(OPERATIONS[len(x.shape)])(net, x))
        assume(np.prod(net.tensors[-1].shape) <= 512)
    ends = [net.tensors[-1], *([net.pick(net.tensors)] if net.pick([False, True]) else [])]
    outputs = [conv(net, x, 2) if len(x.shape) == 3 else matmul(net, x, 2) for x in ends]
    return net, net.model(outputs)
