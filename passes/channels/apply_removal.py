"""Remove units from every constant and correct what speaks of the cut axes: constants first, then node by node."""

from __future__ import annotations

import numpy as np

from ..graph.model import Graph
from .constants import edit_constants
from .cut import Cut
from .labels import LabelledGraph
from .rules import find_rule
from .vanish.take_out import Biases, settled_cut, take_out

Array = np.ndarray


def apply_removal(labelled: LabelledGraph, removed: Array, biases: Biases | None = None) -> Graph:
    """A new graph without the removed labels (one bool a label). The original is left alone.

    With nothing removed the graph is a plain copy. What holds no channels any more goes, see `take_out`; biases: what
    consumers that read nothing more give, by their output, where it is not their own bias.
    """
    graph = labelled.graph.copy()
    cut = Cut(graph, labelled, removed)
    settled = settled_cut(labelled, removed)
    gone = frozenset() if settled is None else settled.gone.difference(settled.folded, settled.stored)
    edit_constants(graph, labelled, removed, cut.compress)
    for index, node in enumerate(list(graph.gs.nodes)):
        cut.begin(index)
        rule = find_rule(node)
        if index not in gone and rule is not None and rule.rewrite is not None and cut.any_touched():
            rule.rewrite(cut)
    for index, position in labelled.frozen:
        if index not in gone:
            cut.begin(index)
            cut.freeze(position)
    if settled is not None:
        take_out(graph, labelled, removed, settled, biases or {})
    cut.finish()
    return graph
