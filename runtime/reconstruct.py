"""Sequential refit: front to back, each weight that reads changed activations is fitted to the original outputs.

For a consumer y = W u + b of the cut network with inputs u' (what the network, refitted so far, really delivers) and
the original's outputs y: min E|y - W' u' - b'|^2 + ridge. Where y goes into a residual sum y + s, the target is the
original's sum less the shortcut s' that the cut network delivers, so that the shortcut's error is repaired too.
Source: He et al. 2017, sections 3.2 and 3.3 (asymmetric, multi-branch).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import onnx_graphsurgeon as gs

from ..passes.algebra.least_squares import Refit
from ..passes.algebra.normal_equations import NormalEquations, choose_ridge
from ..passes.channels.affine import AffineConsumer, affine_consumers, write_refit
from ..passes.channels.constants import kept
from ..passes.channels.labels import LabelledGraph
from ..passes.graph.model import Graph
from ..passes.rewrite.taps import Positions, Taps, find_taps
from .data.sources import Batch
from .measure.calibrate import Calibration, iterate_rows
from .measure.segments import Frontier
from .progress import Count, silent

Array = np.ndarray
_ROUNDS = 8  # of the fit behind a ReLU; see `_below_zero`
_TARGET_BYTES = 1 << 30  # of target rows held at once; more consumers than fit take further passes over the data


@dataclass(frozen=True, slots=True, eq=False)
class _Fit:
    """One consumer to refit.

    target: the tensor of the original to match; shortcut: what is taken off it, or None; rectified: whether only a ReLU
    reads the target; inputs, outputs: the channels that are left, bool.
    """

    consumer: AffineConsumer
    target: str
    shortcut: str | None
    rectified: bool
    inputs: Array
    outputs: Array


def refit_sequentially(
    labelled: LabelledGraph,
    removed: Array,
    cut: Graph,
    data: Iterable[Batch],
    how: Calibration | None = None,
    progress: Count = silent,
) -> int:
    """Refit the consumers of `cut` in place, in the order of the graph, and say how many.

    labels: of the original; removed: one bool a label, what was cut; data: iterated once for the
    original's targets and once for the cut network, in segments from one consumer to the next, whose activations are
    kept in memory while they are small (segments.py).
    """
    how = how or Calibration()
    taps = find_taps(labelled)
    fits = _fits(labelled, removed, cut, taps)
    frontier = Frontier(cut, data, device=how.device, threads=how.threads)
    done = 0
    for part in _parts(fits, taps, frontier.samples, how):
        wanted = taps.outputs({fit.consumer.name: fit.target for fit in part})
        rows = list(iterate_rows(labelled.graph.source, wanted, data, how))
        for number, fit in enumerate(part):
            targets = [batch[number][:, fit.outputs] for batch in rows]
            _refit(fit, targets, frontier, taps, how)
            done += 1
            progress(done, len(fits))
    return done


def _fits(labelled: LabelledGraph, removed: Array, cut: Graph, taps: Taps) -> list[_Fit]:
    """Every tapped consumer that reads a changed tensor, with its target."""
    tapped = {name for tap in taps for name in tap.consumers if tap.groups == 1}
    consumers = {consumer.name: consumer for consumer in affine_consumers(labelled)}
    changed: set[str] = set()
    fits = []
    position = {node.outputs[0].name: i for i, node in enumerate(cut.gs.nodes) if node.outputs}
    for node in labelled.graph.gs.nodes:
        name = node.outputs[0].name if node.outputs else ""
        consumer = consumers.get(name)
        inputs = None if consumer is None else kept(consumer.inputs, removed)
        if any(t.name in changed for t in node.inputs) or (inputs is not None and not inputs.all()):
            changed.update(t.name for t in node.outputs)
            if consumer is not None and inputs is not None and name in tapped:
                total, shortcut = _residual(cut, name, position)
                rectified = {n.op for n in cut.gs.tensors()[total].outputs} == {"Relu"}
                fits.append(_Fit(consumer, total, shortcut, rectified, inputs, kept(consumer.outputs, removed)))
    return fits


def _residual(cut: Graph, name: str, position: dict[str, int]) -> tuple[str, str | None]:
    """The sum that the consumer's output goes into and the other summand, where that one is made before it."""
    node = cut.gs.nodes[position[name]]
    readers = node.outputs[0].outputs
    if len(readers) != 1 or readers[0].op != "Add":
        return name, None
    add = readers[0]
    other = add.inputs[1] if add.inputs[0].name == name else add.inputs[0]
    if isinstance(other, gs.Constant) or not other.inputs or other.inputs[0].op == "Constant":
        return name, None
    maker = position.get(other.inputs[0].outputs[0].name, len(position))
    return (add.outputs[0].name, other.name) if maker < position[name] else (name, None)


def _parts(fits: Sequence[_Fit], taps: Taps, samples: int, how: Calibration) -> Iterator[list[_Fit]]:
    """Consecutive consumers whose targets fit into memory together."""
    part: list[_Fit] = []
    size = 0
    for fit in fits:
        positions = len(Positions(0, how.positions)(taps[fit.consumer.name].grid, 1)[0])
        need = 4 * samples * positions * len(fit.consumer.b)
        if part and size + need > _TARGET_BYTES:
            yield part
            part, size = [], 0
        part.append(fit)
        size += need
    if part:
        yield part


def _refit(fit: _Fit, targets: list[Array], frontier: Frontier, taps: Taps, how: Calibration) -> None:
    name = fit.consumer.name
    W = fit.consumer.W[fit.outputs][:, fit.inputs]
    own = taps.only([name])
    wanted = own if fit.shortcut is None else Taps((*own, *taps.outputs({name: fit.shortcut})), taps.sizes)
    halves = [NormalEquations(W.shape[1] * W.shape[2], len(W)) for _ in range(2)]
    seen: list[tuple[Array, Array, Array]] = []
    for number, (rows, Y) in enumerate(zip(frontier.rows(name, wanted, how), targets, strict=True)):
        offset = np.zeros((1, 1), np.float32) if fit.shortcut is None else rows[1]
        halves[number % 2].add(rows[0], Y - offset)
        if fit.rectified:
            seen.append((rows[0], Y, offset))
    fitted, held_out = halves
    ridge = choose_ridge(fitted, held_out, W) if fitted.rows and held_out.rows else 1e-3
    both = fitted + held_out
    refit = both.solve(W, ridge)
    for _ in range(_ROUNDS if fit.rectified else 0):
        refit = both.retargeted([(X, _below_zero(X, Y, offset, refit)) for X, Y, offset in seen]).solve(W, ridge)
    write_refit(frontier.graph, fit.consumer, refit)


def _below_zero(X: Array, Y: Array, offset: Array, refit: Refit) -> Array:
    """Targets of y where a ReLU follows: what the original has below zero may be anything below zero.

    Y: what the original has in front of the ReLU; offset: the shortcut that is added to y.
    """
    W = refit.weight.reshape(len(refit.bias), -1).astype(np.float32)
    now = X @ W.T + refit.bias.astype(np.float32) + offset
    return np.where(Y > 0, Y, np.minimum(now, 0)) - offset
