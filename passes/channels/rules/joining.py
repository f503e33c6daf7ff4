"""Concat, Split: label arrays are joined and taken apart like the tensors."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import numpy as np

from . import Rule, between_convolutions
from .elementwise import same

if TYPE_CHECKING:
    from ..cut import Cut
    from ..sweep import Sweep


def concat(s: Sweep, positions: Iterable[int] | None = None) -> None:
    """Labels are joined like the tensors.

    positions: the inputs that are operands, by default all.
    """
    positions = list(range(len(s.node.inputs)) if positions is None else positions)
    operands = [s.axes(i) for i in positions]
    axis = int(s.node.attrs["axis"]) % len(operands[0])
    joined = [o[axis] for o in operands]
    result = [same(s, [o[i] for o in operands]) if i != axis else a for i, a in enumerate(operands[0])]
    if all(map(s.is_moved_constant, positions)):
        s.labelled.joined += [(a, o[i]) for o in operands for i, a in enumerate(result) if i != axis and a is not o[i]]
    result[axis] = joined[0] if len(joined) == 1 else np.concatenate(joined)
    s.set(0, result)


def _rewrite_concat(cut: Cut) -> None:
    """Operands without channels are left out."""
    axis = int(cut.node.attrs["axis"])
    cut.keep_inputs([i for i in range(len(cut.node.inputs)) if cut.size(cut.axes(i)[axis])])


def _split(s: Sweep) -> None:
    """Each part gets its piece of the labels; sizes are rewritten."""
    data = s.axes(0)
    axis = int(s.node.attrs.get("axis", 0)) % len(data)
    sizes = [s.out_shape(i)[axis] for i in range(len(s.node.outputs))]
    for i, labels in enumerate(np.split(data[axis], np.cumsum(sizes)[:-1])):
        s.set(i, (*data[:axis], labels, *data[axis + 1 :]))


def _rewrite_split(cut: Cut) -> None:
    """Explicit sizes are rewritten; unequal parts get explicit sizes; a part without channels is left out."""
    axis = int(cut.node.attrs.get("axis", 0)) % len(cut.axes(0))
    sizes = [cut.size(cut.output_axes(i)[axis]) for i in range(len(cut.node.outputs))]
    if not cut.touched(cut.axes(0)[axis]):
        return
    cut.node.attrs.pop("num_outputs", None)
    sizes = cut.keep_outputs(sizes)
    if len(sizes) == 1:
        cut.pass_on()
    elif cut.opset < 13:
        cut.node.attrs["split"] = sizes
    else:
        cut.set_input(1, np.asarray(sizes, np.int64))


RULES = (
    Rule(
        "Concat",
        concat,
        _rewrite_concat,
        samples={
            "one operand twice": between_convolutions(
                "c = Conv (x, w3)\n z = Concat <axis = 1> (c, a, c)", ", float[4, 3, 1, 1] w3", reads=16
            ),
            "axis from the end": between_convolutions("r = Relu (a)\n z = Concat <axis = -3> (a, r)", reads=16),
        },
    ),
    Rule(
        "Split",
        _split,
        _rewrite_split,
        samples={
            "sizes as an input": between_convolutions(
                "u, v = Split <axis = 1> (a, sizes)\n z = Concat <axis = 1> (v, u)", ", int64[2] sizes = {3, 5}"
            ),
            "sizes as an attribute": between_convolutions(
                "u, v = Split <axis = 1, split = [2, 6]> (a)\n z = Relu (v)", opset=11, reads=6
            ),
            "equal halves": between_convolutions("u, v = Split <axis = 1> (a)\n z = Mul (u, v)", reads=4),
            "a number of parts": between_convolutions(
                "u, v, t = Split <axis = 1, num_outputs = 3> (a)\n z = Concat <axis = 1> (t, u)", opset=18, reads=5
            ),
        },
    ),
)
