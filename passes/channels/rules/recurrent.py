"""LSTM, GRU and RNN: hidden units, tied over the gates, both directions and the recursion."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from . import Rule

if TYPE_CHECKING:
    from ..cut import Cut
    from ..sweep import Sweep

GATES = {"LSTM": 4, "GRU": 3, "RNN": 1}
PEEPHOLES = 3  # input, output and forget gate look at the cell


def _recurrent(s: Sweep) -> None:
    """Hidden units are rows of W and R, columns of R, and entries of B, P and the states.

    X [steps, batch, I] ([batch, steps, I] with layout 1), W [D, gates*H, I], R [D, gates*H, H], B [D, 2*gates*H],
    P [D, 3*H], states [D, batch, H]; Y [steps, D, batch, H]. Both directions share the units, as they share Y's axis.
    """
    if not (s.is_moved_constant(1) and s.is_moved_constant(2)):
        s.opaque(f"{s.node.op} with computed weights has no rule")
        return
    data, weight, recurrence = s.axes(0), s.axes(1), s.axes(2)
    hidden, gates = recurrence[2], GATES[s.node.op]
    for axis in data[:2]:
        s.keep(axis, "steps over this axis")
    s.contract((0, 2), (1, 2))
    s.produces(weight[1])
    s.tie(weight[1], np.tile(hidden, gates))
    s.tie(recurrence[1], weight[1])
    s.labelled.consumed.append(hidden)  # the recursion sums over R's last axis
    if s.has(3):
        s.tie(s.axes(3)[1], np.tile(hidden, 2 * gates))
    for position in (5, 6):  # initial_h, initial_c
        if s.has(position):
            s.tie(s.axes(position)[2], hidden)
    if s.has(7):
        s.tie(s.axes(7)[1], np.tile(hidden, PEEPHOLES))
    for position in range(len(s.node.outputs)):
        if s.node.outputs[position].name:
            s.set(position, (*(s.fixed(n) for n in s.out_shape(position)[:-1]), hidden))
    s.note(hidden)
    steps = len(weight[0]) * len(data[1 if s.node.attrs.get("layout", 0) else 0])
    s.macs(steps, (weight[1], weight[2]))
    s.macs(steps, (recurrence[1], recurrence[2]))


def _rewrite(cut: Cut) -> None:
    """`hidden_size` counts the units that are left."""
    cut.node.attrs["hidden_size"] = cut.size(cut.note[0])


def _sample(nodes: str, weights: str, size: int = 5, inputs: str = "") -> str:
    return f"""
        <ir_version: 8, opset_import: ["": 17]>
        g (float[4, 2, 3] x{inputs}) => (float[4, 2, 2] y)
        <float[3, 6] w1, float[{size}, 2] w2, {weights}> {{
          a = MatMul (x, w1)
          {nodes}
          y = MatMul (z, w2)
        }}
        """


_ONE, _BOTH, _BACK = "int64[1] d = {1}", "int64[3] shape = {0, 0, -1}", "Transpose <perm = [0, 2, 1, 3]>"
RULES = (
    Rule(
        "LSTM",
        _recurrent,
        _rewrite,
        samples={
            "all inputs": _sample(
                "h = LSTM <hidden_size = 5> (a, w, r, b, , h0, c0, p)\n z = Squeeze (h, d)",
                "float[1, 20, 6] w, float[1, 20, 5] r, float[1, 40] b, float[1, 2, 5] h0, float[1, 2, 5] c0, "
                f"float[1, 15] p, {_ONE}",
            ),
            "both directions": _sample(
                f'h = LSTM <hidden_size = 5, direction = "bidirectional"> (a, w, r, b)\n'
                f"t = {_BACK} (h)\n z = Reshape (t, shape)",
                f"float[2, 20, 6] w, float[2, 20, 5] r, float[2, 40] b, {_BOTH}",
                size=10,
            ),
            "all outputs": _sample(
                "h, last, cell = LSTM <hidden_size = 5> (a, w, r)\n u = Squeeze (h, d)\n v = Add (u, last)\n"
                "z = Mul (v, cell)",
                f"float[1, 20, 6] w, float[1, 20, 5] r, {_ONE}",
            ),
        },
    ),
    Rule(
        "GRU",
        _recurrent,
        _rewrite,
        samples={
            "reset after the product": _sample(
                "h = GRU <hidden_size = 5, linear_before_reset = 1> (a, w, r, b)\n z = Squeeze (h, d)",
                f"float[1, 15, 6] w, float[1, 15, 5] r, float[1, 30] b, {_ONE}",
            ),
            "two in a row": _sample(
                "h = GRU <hidden_size = 4> (a, w, r)\n g = Squeeze (h, d)\n"
                "k = GRU <hidden_size = 5> (g, w3, r3)\n z = Squeeze (k, d)",
                f"float[1, 12, 6] w, float[1, 12, 4] r, float[1, 15, 4] w3, float[1, 15, 5] r3, {_ONE}",
            ),
        },
    ),
    Rule(
        "RNN",
        _recurrent,
        _rewrite,
        samples={
            "batch first": _sample(
                "h = RNN <hidden_size = 5, layout = 1> (a, w, r, b)\n z = Squeeze (h, d)",
                "float[1, 5, 6] w, float[1, 5, 5] r, float[1, 10] b, int64[1] d = {2}",
            ),
        },
    ),
)
