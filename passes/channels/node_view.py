"""What is known of one node of a labelled graph: read while it is labelled, while it is cut, and for the proof."""

from __future__ import annotations

import numpy as np
import onnx_graphsurgeon as gs

from ..graph.model import constant_values
from .labels import Array, Axes, LabelledGraph


class NodeView:
    """A node as it was labelled, whatever a cut has done to it; its inputs and outputs go by their positions.

    labelled: the graph
    index: the number of the node in it
    original: the node
    """

    def __init__(self, labelled: LabelledGraph, index: int | None = None) -> None:
        self.labelled = labelled
        self.index = -1
        self.original = gs.Node("")
        if index is not None:
            self.begin(index)

    def begin(self, index: int) -> None:
        """Look at that node from now on."""
        self.index, self.original = index, self.labelled.graph.gs.nodes[index]

    @property
    def name(self) -> str:
        """What the node is called: by its name, else by its first output."""
        return self.original.name or next((t.name for t in self.original.outputs), "") or self.original.op

    def has(self, position: int) -> bool:
        """Whether the node reads an input there."""
        return position < len(self.original.inputs) and bool(self.original.inputs[position].name)

    def axes(self, position: int) -> Axes:
        """The labels of an input, one array an axis; none where nobody asked for them when the graph was labelled."""
        name = self.original.inputs[position].name
        if name in self.labelled.axes:
            return self.labelled.axes[name]
        for use in ("", self.original.outputs[0].name):
            if (name, use) in self.labelled.constants:
                return self.labelled.constants[name, use].labels
        return ()

    def output_axes(self, position: int = 0) -> Axes:
        """The labels of an output; none where it has no name."""
        return self.labelled.axes.get(self.original.outputs[position].name, ())

    def shape(self, position: int) -> tuple[int, ...]:
        """The shape of an input."""
        return self.labelled.facts.shapes[self.original.inputs[position].name]

    def out_shape(self, position: int = 0) -> tuple[int, ...]:
        """The shape of an output."""
        return self.labelled.facts.shapes[self.original.outputs[position].name]

    def rank(self, position: int) -> int:
        """How many axes an input has."""
        return len(self.shape(position))

    def value(self, position: int) -> Array | None:
        """The numbers of a small input: folded shape arithmetic, or a constant of any size; None where data decide."""
        if not self.has(position):
            return None
        tensor = self.original.inputs[position]
        folded = self.labelled.facts.values.get(tensor.name)
        return constant_values(tensor) if folded is None else folded

    def kind(self, position: int) -> Array:
        """What each number of an input depends on, uint8 of its shape: bits of values.TAINTED and DYNAMIC."""
        name = self.original.inputs[position].name
        kind = self.labelled.kinds.get(name)
        return np.zeros(self.labelled.facts.shapes.get(name, ()), np.uint8) if kind is None else kind
