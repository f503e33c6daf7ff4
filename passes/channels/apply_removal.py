"""Remove units from every constant and correct what speaks of the cut axes: constants first, then node by node."""

from __future__ import annotations

import numpy as np

from ..graph.model import Graph
from .constants import edit_constants
from .cut import Cut
from .labels import LabelledGraph
from .rules import find_rule

Array = np.ndarray


def apply_removal(labelled: LabelledGraph, removed: Array) -> Graph:
    """A new graph without the removed labels (one bool a label). The original is left alone.

    With nothing removed the graph is a plain copy.
    """
    graph = labelled.graph.copy()
    cut = Cut(graph, labelled, removed)
    edit_constants(graph, labelled, removed, cut.compress)
    for index, node in enumerate(list(graph.gs.nodes)):
        cut.begin(index)
        rule = find_rule(node)
        if rule is not None and rule.rewrite is not None and cut.any_touched():
            rule.rewrite(cut)
    for index, position in labelled.frozen:
        cut.begin(index)
        cut.freeze(position)
    cut.finish()
    return graph
