"""LSTM, GRU and RNN: torch's own where it computes the same, else step by step."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from . import Function, Operator, Site, refuse

# Gates of a cell as ONNX stacks them -> their places in torch's order.
_LSTM_ORDER = (0, 2, 3, 1)  # i o f c -> i f c o
_GRU_ORDER = (1, 0, 2)  # z r h -> r z h
_ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "Sigmoid": torch.sigmoid,
    "Tanh": torch.tanh,
    "Relu": torch.relu,
    "HardSigmoid": lambda x: torch.clamp(0.2 * x + 0.5, 0, 1),
    "Softsign": lambda x: x / (1 + x.abs()),
    "Softplus": torch.nn.functional.softplus,
}
_DEFAULTS = {"LSTM": ("Sigmoid", "Tanh", "Tanh"), "GRU": ("Sigmoid", "Tanh"), "RNN": ("Tanh",)}


def _recurrent(site: Site) -> Function:
    """X (time, batch, input) -> Y (time, directions, batch, hidden), and the last hidden (and cell) state."""
    op, attrs = site.node.op_type, site.attrs
    _check(site)
    directions = 2 if attrs.get("direction", "forward") == "bidirectional" else 1
    backwards = attrs.get("direction", "forward") == "reverse"
    functions = attrs.get("activations", _DEFAULTS[op] * directions)
    functions = tuple(f if isinstance(f, str) else f.decode() for f in functions)
    usual = functions == _DEFAULTS[op] * directions or (op == "RNN" and set(functions) == {"Relu"})
    native = usual and not attrs.get("clip") and not attrs.get("input_forget") and not site.has(7)
    native = native and (op != "GRU" or attrs.get("linear_before_reset", 0))
    run = _native(op, functions[0], directions) if native else _stepwise(site, functions)
    layout = attrs.get("layout", 0)

    def whole(x: Tensor, w: Tensor, r: Tensor, b: Tensor | None = None, _=None, *states: Tensor | None) -> tuple:
        initial = [None if s is None else (s.transpose(0, 1) if layout else s) for s in states]
        x = x.transpose(0, 1) if layout else x
        zeros = x.new_zeros(directions, x.shape[1], r.shape[2])
        hidden = initial[0] if initial and initial[0] is not None else zeros
        cell = initial[1] if len(initial) > 1 and initial[1] is not None else zeros
        peepholes = states[2] if len(states) > 2 else None
        y, *last = run(x.flip(0) if backwards else x, w, r, b, hidden, cell, peepholes)
        y = y.unflatten(2, (directions, -1)).transpose(1, 2)
        y = y.flip(0) if backwards else y
        if layout:
            return y.permute(2, 0, 1, 3), *(s.transpose(0, 1) for s in last)
        return y, *last

    return whole if site.outputs > 1 else lambda *args: whole(*args)[0]


def _check(site: Site) -> None:
    if site.has(4):
        raise refuse(site, "has sequences of several lengths")
    known = {f if isinstance(f, str) else f.decode() for f in site.attrs.get("activations", ())}
    if known - set(_ACTIVATIONS) or "activation_alpha" in site.attrs:
        raise refuse(site, "has an unusual activation")


def _native(op: str, activation: str, directions: int) -> Function:
    order = {"LSTM": _LSTM_ORDER, "GRU": _GRU_ORDER, "RNN": (0,)}[op]

    def run(
        x: Tensor, w: Tensor, r: Tensor, b: Tensor | None, hidden: Tensor, cell: Tensor, _: None
    ) -> Sequence[Tensor]:
        flat: list[Tensor] = []
        for d in range(directions):
            flat += [_in_order(w[d], order), _in_order(r[d], order)]
            if b is not None:
                flat += [_in_order(half, order) for half in b[d].chunk(2)]
        settings = (flat, b is not None, 1, 0.0, False, directions == 2, False)
        if op == "LSTM":
            return torch.lstm(x, (hidden.contiguous(), cell.contiguous()), *settings)
        function = torch.gru if op == "GRU" else torch.rnn_relu if activation == "Relu" else torch.rnn_tanh
        return function(x, hidden.contiguous(), *settings)

    return run


def _in_order(gates: Tensor, order: Sequence[int]) -> Tensor:
    parts = gates.chunk(len(order))
    return torch.cat([parts[i] for i in order])


def _stepwise(site: Site, functions: Sequence[str]) -> Function:
    op, attrs = site.node.op_type, site.attrs
    clip = attrs.get("clip", 0.0)
    cells = {"LSTM": _lstm_cell, "GRU": _gru_cell, "RNN": _rnn_cell}

    def limited(name: str) -> Callable[[Tensor], Tensor]:
        function = _ACTIVATIONS[name]
        return (lambda x: function(x.clamp(-clip, clip))) if clip else function

    def run(
        x: Tensor, w: Tensor, r: Tensor, b: Tensor | None, hidden: Tensor, cell: Tensor, peepholes: Tensor | None
    ) -> Sequence[Tensor]:
        outputs, hiddens, last = [], [], []
        count = len(functions) // w.shape[0]
        for d in range(w.shape[0]):
            chosen = [limited(f) for f in functions[d * count : (d + 1) * count]]
            bias = b[d].chunk(2) if b is not None else (r.new_zeros(r.shape[1]), r.new_zeros(r.shape[1]))
            h, c, steps = hidden[d], cell[d], []
            for step in x if d == 0 else x.flip(0):
                peep = None if peepholes is None else peepholes[d].chunk(3)
                h, c = cells[op](attrs, chosen, step @ w[d].t() + bias[0], (h, c), (r[d], bias[1], peep))
                steps.append(h)
            outputs.append(torch.stack(steps if d == 0 else steps[::-1]))
            hiddens.append(h)
            last.append(c)
        states = [torch.stack(hiddens)] + ([torch.stack(last)] if op == "LSTM" else [])
        return torch.cat(outputs, 2), *states

    return run


def _lstm_cell(attrs: dict, f: list, x: Tensor, state: tuple, weights: tuple) -> tuple[Tensor, Tensor]:
    """i, f = sigma(.); c' = f * c + i * tanh(.); h' = sigma(.) * tanh(c'); peepholes (i, o, f) look at the cell."""
    (h, c), (r, bias, peep) = state, weights
    i, o, forget, new = (x + h @ r.t() + bias).chunk(4, 1)
    if peep is not None:
        i, forget = i + peep[0] * c, forget + peep[2] * c
    i = f[0](i)
    forget = 1 - i if attrs.get("input_forget") else f[0](forget)
    c = forget * c + i * f[1](new)
    return f[0](o if peep is None else o + peep[1] * c) * f[2](c), c


def _gru_cell(attrs: dict, f: list, x: Tensor, state: tuple, weights: tuple) -> tuple[Tensor, Tensor]:
    """H' = (1 - z) * n + z * h; the reset gate acts before or behind the recurrent product."""
    (h, c), (r, bias, _) = state, weights
    (xz, xr, xn), (rz, rr, rn), (bz, br, bn) = x.chunk(3, 1), r.chunk(3), bias.chunk(3)
    z, reset = f[0](xz + h @ rz.t() + bz), f[0](xr + h @ rr.t() + br)
    inner = reset * (h @ rn.t() + bn) if attrs.get("linear_before_reset") else (reset * h) @ rn.t() + bn
    return (1 - z) * f[1](xn + inner) + z * h, c


def _rnn_cell(attrs: dict, f: list, x: Tensor, state: tuple, weights: tuple) -> tuple[Tensor, Tensor]:  # noqa: ARG001
    (h, c), (r, bias, _) = state, weights
    return f[0](x + h @ r.t() + bias), c


OPERATORS = tuple(Operator(op, _recurrent) for op in ("GRU", "LSTM", "RNN"))
