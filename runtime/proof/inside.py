"""The comparison of what flows inside two models, on as many inputs as it takes to see all that was cut."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import onnx

from ...passes.errors import ProofError, ReadError
from ..device import Device
from .compare import Proof
from .difference import Difference
from .inner import Feeds, Rounding, Watched, differences, wrong
from .other_inputs import further, positive
from .reach import Reach

_DRAWS = 18  # of rounding errors at most, while a difference is above the largest of them
_FOR_BLANK = 1  # further inputs that are tried for single channels: what is zero on all of them may be dead
_LIKE = (0.5, 8.0)  # how far a channel may move on another input that explains its difference, relative to the first
_ENOUGH = 2  # further inputs of that kind on which it differs as well: that is no rounding
REPORT = "nothing was written; this is a bug of onnx-prune: please report it with the graph (no weights are needed)"


@dataclass(slots=True)
class _Bad:
    """Channels of a tensor whose difference nothing explains so far.

    channels: one bool each
    spread: how far their numbers were apart
    times: on how many further inputs that moved them as far some differed again
    """

    channels: np.ndarray
    spread: np.ndarray
    times: int = 0

    def again(self, now: np.ndarray, found: Difference) -> _Bad:
        """What another input leaves of them: rounding is far smaller on one, a fault is not.

        The input has to move the channel about as far: on small numbers a dead channel shows no fault, on very large
        ones a bias does not.
        """
        if found.spread.shape != self.channels.shape:  # of another size: only what differs there is known
            return _Bad(now, found.spread) if now.shape else self
        alike = (found.spread > _LIKE[0] * self.spread) & (found.spread < _LIKE[1] * self.spread)
        still = self.channels & now & alike
        return _Bad(self.channels & (now | ~(found.varied & alike)), self.spread, self.times + bool(still.any()))


@dataclass(slots=True)
class Inside:
    """The comparison of what flows inside two models.

    reach: what has to be seen, and what has been
    bad: what differs, by tensor
    shadow: the tensors behind those that no input has shown yet: what changes there may be seen with them only
    blank: tensor of few numbers -> the kept channels of which nothing was seen so far
    ranges: tensor -> the smallest and the largest number of each kept channel so far
    """

    tensors: Sequence[Watched]
    reach: Reach
    device: Device
    seen: set[str] = field(default_factory=set)
    bad: dict[str, _Bad] = field(default_factory=dict)
    blank: dict[str, np.ndarray] = field(default_factory=dict)
    worst: float = 0.0
    ranges: dict[str, tuple[np.ndarray, np.ndarray]] = field(default_factory=dict)
    shadow: set[str] = field(default_factory=set)

    def prove(
        self, model: onnx.ModelProto, twin: onnx.ModelProto, runs: Sequence[Feeds], proof: Proof, more: Iterable[Feeds]
    ) -> Proof:
        """Compare, on further inputs too until all is seen and no difference is left unexplained."""
        wanted: Sequence[Watched] = self.tensors
        first, elsewhere = _by_size(runs)
        if elsewhere:  # what is compared at some positions only has them at the size that it was labelled for
            self._compare(model, twin, [tensor for tensor in self.tensors if not tensor.steps], elsewhere)
        # A number alone cannot vary: two inputs at least. Of a batch of two the first sample is not run once more.
        both = [*(first[1:] if _begins(first) else first), positive(first[0])]
        for number, inputs in enumerate(itertools.chain([both], further(first, twin, more))):
            if not wanted or not self._tried(model, twin, wanted, inputs, () if number else first):
                break
            if any(bad.times >= _ENOUGH for bad in self.bad.values()):
                break
            missing = self.reach.missing()
            self.shadow = self.reach.behind(missing)
            blank = {name for name, channels in self.blank.items() if channels.any() and number < _FOR_BLANK}
            wanted = [
                t
                for t in self.tensors
                if t.name in self.bad or t.name in missing | self.shadow | blank or (t.kept and t.name not in self.seen)
            ]
        self._refuse()
        cut = [t.name for t in self.tensors if t.kept and t.evidence]
        return replace(
            proof, tensors=(len(self.seen.intersection(cut)), len(cut)), inner=self.worst, unseen=self.reach.unseen()
        )

    def _tried(
        self,
        model: onnx.ModelProto,
        twin: onnx.ModelProto,
        wanted: Sequence[Watched],
        inputs: Sequence[Feeds],
        known: Sequence[Feeds],
    ) -> bool:
        """`_compare`; where they do not run on these inputs, as on indices out of range, on those known to run."""
        try:
            return self._compare(model, twin, wanted, inputs)
        except ReadError:
            return not known or self._compare(model, twin, wanted, known)

    def _compare(
        self, model: onnx.ModelProto, twin: onnx.ModelProto, wanted: Sequence[Watched], inputs: Sequence[Feeds]
    ) -> bool:
        """Count these inputs in; False where no other input can decide: a tensor has another shape."""
        found = differences(model, twin, wanted, inputs, self.device)
        now = wrong(wanted, found, {})
        noise: dict[str, np.ndarray] = {}
        rounding = Rounding(twin, inputs, self.device)
        for seed in range(_DRAWS):  # of many channels, a few draws miss one now and then
            left = [t for t in wanted if t.name in now]
            if not left:
                break
            drawn = rounding.drawn(left, seed)
            noise |= {name: np.maximum(noise.get(name, 0.0), far) for name, far in drawn.items()}
            now = wrong(left, found, noise)
        for name in [name for name in self.bad if name in found]:
            self.bad[name] = self.bad[name].again(now.get(name, np.array(False)), found[name])
        known = self.seen - self.shadow
        fresh = {name: _Bad(channels, found[name].spread) for name, channels in now.items() if name not in known}
        self.bad = {name: bad for name, bad in (fresh | self.bad).items() if bad.channels.any()}
        for name, difference in found.items():
            difference.widen(self.ranges.get(name, (difference.low, difference.high)))
            self.ranges[name] = (difference.low, difference.high)
        self.worst = max([self.worst, *(float(d.relative().max()) for n, d in found.items() if n not in noise)])
        few = [t.name for t in wanted if t.few and t.name in found]
        self.blank |= {name: _still_blank(self.blank.get(name), found[name].varied) for name in few}
        self.seen.update(name for name, difference in found.items() if difference.varied.any())
        self.reach.add(wanted, found)
        return not any(d.error.shape == () and np.isinf(d.error) for d in found.values())

    def _refuse(self) -> None:
        if self.bad:
            name = next(t.name for t in self.tensors if t.name in self.bad)
            raise ProofError(
                f"the cut model differs from the original with silenced channels in {len(self.bad)} inner tensors",
                where=f"the first is '{name}', in {int(np.sum(self.bad[name].channels))} of its channels",
                fix=REPORT,
            )


def _still_blank(known: np.ndarray | None, varied: np.ndarray) -> np.ndarray:
    """The channels of which nothing was seen so far; of another size, where they are others, those of this one."""
    return ~varied if known is None or known.shape != varied.shape else known & ~varied


def _begins(runs: Sequence[Feeds]) -> bool:
    """Whether the first of several inputs is the beginning of the second one, sample by sample."""
    return len(runs) > 1 and all(np.array_equal(runs[1][name][: len(a)], a) for name, a in runs[0].items() if a.ndim)


def _by_size(runs: Sequence[Feeds]) -> tuple[list[Feeds], list[Feeds]]:
    """Those of the first one's size, whatever their batch, and the others."""
    size = {name: array.shape[1:] for name, array in runs[0].items()}
    same = [{name: array.shape[1:] for name, array in feeds.items()} == size for feeds in runs]
    return [f for f, is_same in zip(runs, same, strict=True) if is_same], [
        f for f, is_same in zip(runs, same, strict=True) if not is_same
    ]
