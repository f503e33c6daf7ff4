"""What criteria, allocations and refits need besides the weights: each says so itself, in `needs`.

moments: of what every consumer reads; activations: statistics of every channel; gradients: of the loss by gates on the
units; sensitivity: how far the outputs move when one group alone is cut; samples: the data themselves, once more;
training: of a copy of the network on the data;
costs: what a unit costs in the unit of the budget; removed: what is gone upstream, so that groups are ranked one after
another. A criterion of one's own may do without `needs`; it gets moments where there are data.
"""

from __future__ import annotations

from typing import Literal, TypeVar, get_args

from .errors import UsageError

Need = Literal["moments", "activations", "gradients", "sensitivity", "samples", "training", "costs", "removed"]
Value = TypeVar("Value")

_KNOWN: frozenset[str] = frozenset(get_args(Need))
OF_MOMENTS: frozenset[Need] = frozenset({"moments", "activations"})  # a file of measured moments serves as well
OF_DATA: frozenset[Need] = frozenset({"moments", "activations", "gradients", "sensitivity", "samples", "training"})
_WORDS: dict[Need, str] = {
    "moments": "the moments of what layers read",
    "activations": "statistics of activations",
    "gradients": "gradients of the loss",
    "sensitivity": "the change of the outputs",
    "samples": "the samples themselves",
    "training": "a training of the network",
}
_INSTEAD = {"--criterion": "l2", "--allocation": "uniform", "--reconstruct": "none"}


def needs_of(chosen: object) -> frozenset[Need]:
    """What a criterion or an allocation declares; nothing where it declares none. Raises UsageError for other words."""
    declared = getattr(chosen, "needs", frozenset())
    if isinstance(declared, frozenset) and declared <= _KNOWN:
        return declared
    known = ", ".join(sorted(_KNOWN))
    raise UsageError(
        "what it needs is not a frozen set of known words",
        where=f"{type(chosen).__name__}.needs = {str(declared)[:80]}",
        fix=f"give a frozenset of some of {known}",
    )


def unmet(need: Need, by: str = "this criterion", flag: str = "--criterion") -> UsageError:
    """The error that there is nothing to measure a need on. by: what has it; flag: where it was chosen."""
    instead = f", or {flag} {_INSTEAD[flag]}" if flag in _INSTEAD else ""
    return UsageError(
        f"{by} needs {_WORDS[need]}, and there are no data to measure on",
        where=flag,
        fix=f"give --calibration with images or arrays (no labels are needed) or with the word synthetic{instead}",
    )


def met(value: Value | None, need: Need) -> Value:
    """What was measured for a criterion. Raises UsageError where nothing was."""
    if value is None:
        raise unmet(need)
    return value
