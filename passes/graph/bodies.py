"""Control flow: what the bodies of If, Loop and Scan read from the graph around them."""

from __future__ import annotations

import onnx_graphsurgeon as gs


def captured_names(node: gs.Node) -> set[str]:
    """Names of tensors that the bodies of a node read without making them; none for other operators."""
    names: set[str] = set()
    for value in node.attrs.values():
        if isinstance(value, gs.Graph):
            made = {t.name for t in value.inputs} | {o.name for n in value.nodes for o in n.outputs}
            read = {t.name for n in value.nodes for t in n.inputs} | {t.name for t in value.outputs}
            for inner in value.nodes:
                read |= captured_names(inner)
            names |= read - made
    names.discard("")
    return names
