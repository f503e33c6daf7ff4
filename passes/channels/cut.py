"""The one class that cuts tensors: what a rule's rewrite may ask and change, one node at a time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import onnx_graphsurgeon as gs

from ..graph.model import Graph
from ..graph.values import DYNAMIC, TAINTED
from .constants import kept
from .labels import Axes, ConstantAxes, LabelledGraph
from .node_view import NodeView

Array = np.ndarray
_FAR = 2**31 - 1  # a bound beyond every axis


class Cut(NodeView):
    """What a rule's rewrite may ask and change; one node at a time.

    graph: a copy of the labelled one
    removed: one bool a label
    node: of the copy, the one that is changed
    """

    def __init__(self, graph: Graph, labelled: LabelledGraph, removed: Array) -> None:
        super().__init__(labelled)
        self.graph, self.removed = graph, removed
        self.opset = graph.opset
        self.node: gs.Node = gs.Node("")
        self._nodes = list(graph.gs.nodes)
        self._names = graph.names()
        self._replaced: list[gs.Tensor] = []
        self._new: list[tuple[gs.Node, list[gs.Node]]] = []
        self._settled: set[tuple[int, int]] = set()

    def begin(self, index: int) -> None:
        super().begin(index)
        self.node = self._nodes[index]

    # --- what a rewrite asks, beside what a NodeView says: labels and numbers before the cut -------------------------

    @property
    def note(self) -> Axes:
        """The labels that the rule noted in its sweep."""
        return self.labelled.notes[self.index]

    def kept(self, labels: Array) -> Array:
        return kept(labels, self.removed)

    def size(self, labels: Array) -> int:
        return int(self.kept(labels).sum())

    def touched(self, labels: Array) -> bool:
        return not bool(self.kept(labels).all())

    def any_touched(self) -> bool:
        names = [t.name for t in [*self.node.inputs, *self.node.outputs]]
        axes = [a for name in names for a in self.labelled.axes.get(name, ())]
        return any(self.touched(a) for a in axes)

    def remaining(self, labels: Array, positions: Array) -> Array:
        """Of these positions on an axis those that are left, as they count after the cut."""
        kept = self.kept(labels)
        return (np.cumsum(kept) - 1)[positions[kept[positions]]]

    # --- what a rewrite changes -------------------------------------------------------------------------------------

    def compress(self, constant: ConstantAxes, values: Array) -> Array:
        """A constant without the removed indices of its axes."""
        for axis, labels in enumerate(constant.labels):
            if self.touched(labels):
                values = np.compress(self.kept(labels), values, axis)
        return values

    def set_input(self, position: int, values: Array) -> None:
        """A constant in the place of that input."""
        self._replace(position, gs.Constant(self._fresh("operand"), values))

    def set_sizes(self, position: int, axes: Mapping[int, Array], unless: int | None = None) -> None:
        """Elements of that input are sizes of these axes: say the new ones, each in the way the old one was said.

        0 (as the input's) and -1 (what is left) stay; `unless` is one more number that stays. A size that scales with
        a free dimension is multiplied by what is left of its channels.
        """
        sizes, kinds = self.value(position), np.ravel(self.kind(position))
        if sizes is None:
            assert not any(self.touched(a) for a in axes.values()), f"{self.node.op} has a computed size"
            return
        if not any(self.touched(a) for a in axes.values()) and not (kinds & TAINTED).any():
            return
        flat = np.ravel(sizes).tolist()
        fixed: dict[int, int] = {}
        scaled: dict[int, tuple[int, int]] = {}
        for i, labels in axes.items():
            if kinds[i] & DYNAMIC:
                # A computed 1 of Expand (torch writes -1 as such), or a -1, names no channels: it stays.
                if self.touched(labels) and flat[i] not in (-1, unless):
                    scaled[i] = (self.size(labels), len(labels))
            elif flat[i] not in (-1, unless) and not (flat[i] == 0 and self._same_as_input(i, labels)):
                fixed[i] = self.size(labels)
        for i in np.flatnonzero(kinds == TAINTED).tolist():
            fixed.setdefault(i, int(flat[i]))
        self._patch(position, fixed, scaled)

    def _same_as_input(self, axis: int, labels: Array) -> bool:
        data = self.axes(0)
        return axis < len(data) and self.size(data[axis]) == self.size(labels)

    def _patch(self, position: int, fixed: Mapping[int, int], scaled: Mapping[int, tuple[int, int]]) -> None:
        """Put new numbers into an input, by index: `fixed` ones as they are, `scaled` ones (new, old) as a factor."""
        sizes = self.value(position)
        assert sizes is not None
        new = _replaced(sizes, fixed)
        if not (self.kind(position) & DYNAMIC).any():
            self.set_input(position, new)
            return
        self._settled.add((self.index, position))
        tensor = self.node.inputs[position]
        if scaled:
            ones = np.ones(sizes.shape, np.int64)
            tops = self._constant(_replaced(ones, {i: size for i, (size, _) in scaled.items()}))
            bottoms = self._constant(_replaced(ones, {i: size for i, (_, size) in scaled.items()}))
            tensor = self._node("Div", [self._node("Mul", [tensor, tops]), bottoms])
        if fixed:
            mask = _replaced(np.zeros(sizes.shape, bool), dict.fromkeys(fixed, True))
            tensor = self._node("Where", [self._constant(mask), self._constant(new), tensor])
        if fixed or scaled:
            self._replace(position, tensor)

    def freeze(self, position: int) -> None:
        """The number that this input holds was computed from sizes; where they change, it keeps the old value."""
        depends = self.labelled.frozen[self.index, position]
        if (self.index, position) in self._settled or not any(self.touched(a) for a in depends):
            return
        values, kind = self.value(position), self.kind(position)
        assert values is not None
        if not (kind & DYNAMIC).any():
            self.set_input(position, values)
            return
        mask = (kind & TAINTED).astype(bool)
        tensor = self._node("Where", [self._constant(mask), self._constant(values), self.node.inputs[position]])
        self._replace(position, tensor)

    def set_slice(self, bounds: Mapping[int, tuple[int, int, int]]) -> None:
        """New start, end and step for these axes of a Slice."""
        axes = list(bounds)
        starts, ends, steps = (np.array([bounds[a][k] for a in axes], np.int64) for k in range(3))
        if "starts" in self.node.attrs:
            assert (steps == 1).all()
            self.node.attrs.update(starts=starts.tolist(), ends=ends.tolist(), axes=axes)
            return
        self.set_input(1, starts)
        self.set_input(2, ends)
        self.set_input(3, np.array(axes, np.int64))
        if self.has(4) or (steps != 1).any():
            self.set_input(4, steps)

    def gather(self, left: Mapping[int, Array], others: Mapping[int, slice]) -> None:
        """Replace a Slice: Gather these positions of these axes; the other axes are sliced as before."""
        data = self.node.inputs[0]
        for axis, positions in left.items():
            data = self._node("Gather", [data, self._constant(positions.astype(np.int64))], axis=axis)
        self.node.inputs[0] = data
        if others:
            far = {True: _FAR, False: -_FAR}
            bounds = {}
            for axis, taken in others.items():
                step = taken.step or 1
                start = far[step < 0] if taken.start is None else taken.start
                bounds[axis] = (start, far[step > 0] if taken.stop is None else taken.stop, step)
            self.set_slice(bounds)
        else:
            self.pass_on()

    def pass_on(self) -> None:
        """Nothing is left for the node to do: it gives its first input."""
        self.node.op, self.node.attrs = "Identity", {}
        while len(self.node.inputs) > 1:
            self._replaced.append(self.node.inputs.pop())

    def keep_inputs(self, positions: Sequence[int]) -> None:
        """The node reads these inputs alone; one that is left goes through."""
        if len(positions) < len(self.node.inputs):
            inputs = list(self.node.inputs)
            self._replaced += [t for i, t in enumerate(inputs) if i not in positions]
            self.node.inputs = [inputs[i] for i in positions]
            if len(positions) == 1:
                self.pass_on()

    def keep_outputs(self, sizes: list[int]) -> list[int]:
        """Outputs that hold something, and how much each does."""
        outputs = list(self.node.outputs)
        if 0 in sizes:
            self.node.outputs = [tensor for tensor, size in zip(outputs, sizes, strict=True) if size]
        return [size for size in sizes if size]

    # --- the graph around the node ----------------------------------------------------------------------------------

    def _replace(self, position: int, tensor: gs.Tensor) -> None:
        while len(self.node.inputs) <= position:
            self.node.inputs.append(gs.Variable.empty())
        self._replaced.append(self.node.inputs[position])
        self._settled.add((self.index, position))
        self.node.inputs[position] = tensor

    def _node(self, op: str, inputs: list[gs.Tensor], **attrs: int) -> gs.Tensor:
        """A new node in front of the one at hand."""
        output = gs.Variable(self._fresh(op.lower()))
        node = gs.Node(op, name=output.name, attrs=attrs, inputs=inputs, outputs=[output])
        if not self._new or self._new[-1][0] is not self.node:
            self._new.append((self.node, []))
        self._new[-1][1].append(node)
        return output

    def _constant(self, values: Array) -> gs.Constant:
        return gs.Constant(self._fresh("operand"), values)

    def _fresh(self, role: str) -> str:
        return self._names.fresh(f"{self.name}_pruned_{role}")

    def finish(self) -> None:
        """Insert the new nodes, drop those that only served a replaced operand, forget stale shapes."""
        nodes = list(self.graph.gs.nodes)
        before = {}
        for node, new in self._new:
            before.setdefault(id(node), []).extend(new)
        ordered = [n for node in nodes for n in [*before.get(id(node), ()), node]]
        outputs = {id(t) for t in self.graph.gs.outputs}
        dead: set[int] = set()
        waiting = list(self._replaced)
        while waiting:
            tensor = waiting.pop()
            if tensor.outputs or id(tensor) in outputs:
                continue
            for node in list(tensor.inputs):
                if id(node) not in dead and not any(o.outputs or id(o) in outputs for o in node.outputs):
                    dead.add(id(node))
                    waiting += list(node.inputs)
                    node.inputs.clear()
        self.graph.gs.nodes = [n for n in ordered if id(n) not in dead]
        for name, tensor in self.graph.gs.tensors().items():
            if isinstance(tensor, gs.Variable) and any(self.touched(a) for a in self.labelled.axes.get(name, ())):
                tensor.shape = None


def _replaced(values: Array, entries: Mapping[int, int]) -> Array:
    """A copy of an array in which these entries, by their flat index, are others."""
    copy = values.copy()
    copy.reshape(-1)[list(entries)] = list(entries.values())
    return copy
