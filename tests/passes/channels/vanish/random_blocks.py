"""Random networks of branches: residual, gated, joined, with anything inside and behind their last layer."""

from __future__ import annotations

from hypothesis import assume

from ..random_graphs import OPERATIONS, conv, like, normalised, unary
from ..random_net import Net


def compose_blocks(data):
    """A stem, a few blocks that keep its shape or grow it, and one more layer."""
    net = Net(data)
    net.tensors = [conv(net, net.tensors[0], net.pick([2, 4]))]
    for _ in range(net.pick([1, 2, 3])):
        x = net.tensors[-1]
        net.tensors.append(net.pick(BLOCKS)(net, x))
        assume(net.tensors[-1].shape[0] <= 16)
    outputs = [conv(net, net.tensors[-1], 2)]
    return net, net.model(outputs)


def inside(net, x):
    """Something between: anything that keeps three axes."""
    for _ in range(net.pick([0, 0, 1, 1, 2])):
        y = net.pick(OPERATIONS[3])(net, x)
        x = y if len(y.shape) == 3 else x
    return x


def behind(net, y):
    """What follows a branch's last layer, so that a constant has to go through it."""
    for _ in range(net.pick([0, 1, 1, 2])):
        y = net.pick([normalised, unary, scaled, moved, pointwise, flat])(net, y)
    return y


def scaled(net, y):
    return net.op(net.pick(["Mul", "Add", "Div"]), [y, net.vector(y.shape[0], 1, 1, positive=True)], y.shape)


def moved(net, y):
    t = net.op("Transpose", [y], perm=[0, 2, 3, 1])
    t = net.op(net.pick(["Mul", "Add"]), [t, net.vector(y.shape[0])])
    return net.op("Transpose", [t], y.shape, perm=[0, 3, 1, 2])


def flat(net, y):
    """Positions as rows, and back."""
    rows = net.reshape(y, y.shape[0], y.shape[1] * y.shape[2])
    return net.reshape(net.op("Relu", [rows]), *y.shape)


def pointwise(net, y):
    return net.op("Conv", [y, net.weight(y.shape[0], y.shape[0], 1, 1), net.vector(y.shape[0])], y.shape)


def branch(net, x, channels):
    """Layers from x to so many channels at the positions of x."""
    y = inside(net, net.op("Relu", [conv(net, x)]))
    assume(y.shape[1:] == x.shape[1:])
    return behind(net, conv(net, y, channels))


def residual(net, x):
    y = branch(net, x, x.shape[0])
    x = net.pick([x, x, conv(net, x, x.shape[0])])
    return net.op(net.pick(["Add", "Add", "Sub", "Max"]), net.pick([[x, y], [y, x]]), x.shape)


def both(net, x):
    """Two branches and the way around them."""
    y, z = branch(net, x, x.shape[0]), branch(net, x, x.shape[0])
    total = net.op("Add", [y, z])
    return net.op("Add", [x, total], x.shape) if net.pick([True, False]) else net.op("Sum", [y, x, z], x.shape)


def gated(net, x):
    squeezed = net.op("GlobalAveragePool", [x], (x.shape[0], 1, 1)) if net.pick([True, False]) else x
    hidden = net.op("Relu", [conv(net, squeezed)])
    scale = net.op(net.pick(["Sigmoid", "HardSigmoid", "Tanh"]), [behind(net, conv(net, hidden, x.shape[0]))])
    return net.op("Mul", net.pick([[x, scale], [scale, x]]), x.shape)


def joined(net, x):
    parts = [x] * net.pick([0, 1]) + [branch(net, x, net.pick([1, 2, 3])) for _ in range(net.pick([1, 2, 3]))]
    return net.op("Concat", parts, (sum(p.shape[0] for p in parts), *x.shape[1:]), axis=net.pick([1, -3]))


def halves(net, x):
    """One half goes through layers."""
    assume(x.shape[0] % 2 == 0)
    half = (x.shape[0] // 2, *x.shape[1:])
    u, v = (t._replace(shape=half) for t in net.op("Split", [x], outputs=2, axis=1, num_outputs=2))
    v = branch(net, v, half[0])
    return net.op("Concat", [u, v], x.shape, axis=1)


def perceptron(net, x):
    """Layers along the channels of positions, with the last axis as channels."""
    t = net.op("Transpose", [x], (*x.shape[1:], x.shape[0]), perm=[0, 2, 3, 1])
    hidden = net.pick([2, 5])
    h = net.op("MatMul", [t, net.weight(x.shape[0], hidden)], (*x.shape[1:], hidden))
    h = net.op("Sigmoid", [net.op("Add", [h, net.vector(hidden)])])
    h = net.op("MatMul", [h, net.weight(hidden, x.shape[0])], (*x.shape[1:], x.shape[0]))
    if net.pick([True, False]):
        h = net.op("Add", [net.vector(x.shape[0]), h], h.shape)
    if net.pick([True, False]):
        return net.op("Transpose", [net.op("Add", [t, h])], x.shape, perm=[0, 3, 1, 2])
    return net.op("Add", [x, net.op("Transpose", [h], x.shape, perm=[0, 3, 1, 2])])


def doubled(net, x):
    return net.op("Add", [x, like(net, x)])


BLOCKS = [residual, residual, both, gated, joined, halves, perceptron, doubled]
