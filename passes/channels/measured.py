"""Whether moments can be those of a network: a file of them may come from anyone."""

from __future__ import annotations

from ..algebra.moments import MomentsSet
from ..algebra.moments_file import spoilt_moments
from .affine import float_values, weight_matrices
from .labels import Consumer, LabelledGraph


def check_moments(labelled: LabelledGraph, moments: MomentsSet, path: str) -> None:
    """Raise ReadError where moments have not the channels and kernel of the consumer that they are of.

    Statistics have as many entries as their tensor has channels.
    """
    for consumer in labelled.consumers:
        name = labelled.graph.gs.nodes[consumer.node].outputs[0].name
        wanted = _inputs(labelled, consumer)
        if wanted is None or name not in moments:
            continue
        found = [(part.channels, part.kernel) for part in moments.groups(name)]
        if found != wanted:
            raise spoilt_moments(path, f"'{name}' has {found} (channels, kernel), and the model {wanted}")
    for name, statistics in moments.activations.items():
        sizes = {len(labels) for labels in labelled.axes.get(name, ())}
        if sizes and len(statistics.mean) not in sizes:
            raise spoilt_moments(path, f"'{name}' has statistics of {len(statistics.mean)} channels")


def _inputs(labelled: LabelledGraph, consumer: Consumer) -> list[tuple[int, int]] | None:
    """(channels, kernel) of each group of the consumer; None where nothing is measured for its kind."""
    layout = consumer.layout
    values = float_values(labelled.graph.gs.nodes[consumer.node].inputs[consumer.weight_at.input])
    grouped = None if layout is None or values is None else weight_matrices(values, layout)
    return None if grouped is None else [grouped.shape[2:]] * len(grouped)
