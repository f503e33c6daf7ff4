"""How much of a model may stay, in the unit that the user has."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

from ..errors import UsageError, a_kind

Amount = float | str
KINDS = ("macs", "params", "size", "latency", "channels")
DEFAULT_SHARE = 0.5  # of the MACs, where no budget is given

_COUNTS = {"": 1, "k": 1e3, "m": 1e6, "g": 1e9, "b": 1e9, "t": 1e12}
_BYTES = {"": 1, "b": 1, "k": 1e3, "m": 1e6, "g": 1e9, "kb": 1e3, "mb": 1e6, "gb": 1e9}
_BYTES |= {"ki": 2**10, "mi": 2**20, "gi": 2**30, "kib": 2**10, "mib": 2**20, "gib": 2**30}
_UNITS: dict[str, dict[str, float]] = {
    "macs": _COUNTS,
    "params": _COUNTS,
    "size": _BYTES,
    "latency": {"": 1, "ms": 1, "us": 1e-3, "s": 1e3},
    "channels": {"": 1},
}
_EXAMPLES = {
    "macs": "50%, 0.5 or 300M",
    "params": "50%, 0.5 or 10M",
    "size": "50%, 0.5 or 20MB",
    "latency": "50%, 0.5 or 5ms",
    "channels": "50%, 0.5, or 'layer3.*=40%' with a regular expression that matches whole names of groups",
}
_NUMBER = re.compile(r"(\d+\.?\d*(?:e[+-]?\d+)?|\.\d+)\s*([a-z%]*)", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Budget:
    """What is kept: exactly one of the fields, or `macs=0.5` where none is given.

    A number up to 1, or a text such as "50%", is a share of the original; anything else is absolute: "300M", "10M",
    "20MB" (bytes; k, M, G and Ki, Mi, Gi), "5ms" (also us, s; always absolute where a unit is given).
    channels may also name shares by groups: {pattern: share}, or texts "pattern=share"; a pattern is a regular
    expression that matches the group's whole name, the first that does decides, other groups stay whole.
    The fields hold the parsed form: a share as a float, a count as an int, a latency as "5ms".
    Raises UsageError for what makes no sense.
    """

    macs: Amount | None = None
    params: Amount | None = None
    size: Amount | None = None
    latency: Amount | None = None
    channels: Amount | Mapping[str, Amount] | Sequence[str] | None = None

    def __post_init__(self) -> None:
        given = [f.name for f in fields(self) if getattr(self, f.name) is not None]
        if len(given) > 1:
            both = " and ".join(f"--{name}" for name in given)
            raise UsageError("more than one budget is given", where=both, fix="choose one of them")
        kind = given[0] if given else "macs"
        value = getattr(self, kind) if given else DEFAULT_SHARE
        parsed = _by_pattern(value) if kind == "channels" else None
        object.__setattr__(self, kind, _amount(kind, value) if parsed is None else parsed)

    @property
    def kind(self) -> str:
        """The field that is given: one of KINDS."""
        return next(kind for kind in KINDS if getattr(self, kind) is not None)

    @property
    def amount(self) -> float:
        """A share where `is_share`, else a number, bytes or milliseconds. There is none with patterns."""
        value = getattr(self, self.kind)
        assert not isinstance(value, Mapping), "shares by groups are not one amount"
        return float(value.removesuffix("ms")) if isinstance(value, str) else value

    @property
    def is_share(self) -> bool:
        """Whether the amount is a share of the original's."""
        return isinstance(getattr(self, self.kind), float)

    @property
    def shares(self) -> Mapping[str, float] | None:
        """Pattern -> kept share, where that is what is given."""
        return self.channels if isinstance(self.channels, Mapping) else None  # type: ignore[return-value]

    def limit(self, original: float) -> float:
        """What may stay of `original`, in its unit."""
        return self.amount * original if self.is_share else self.amount

    def to_json(self) -> dict[str, Any]:
        """One key, its value as it can be given again."""
        value = getattr(self, self.kind)
        return {self.kind: dict(value) if isinstance(value, Mapping) else value}

    @staticmethod
    def from_json(data: object) -> Budget:
        """The inverse of `to_json`. Raises UsageError."""
        if not isinstance(data, dict) or len(data) != 1 or not set(data) <= set(KINDS):
            raise UsageError(f"{data!r} is not a budget", where="the plan", fix=f"give one of {', '.join(KINDS)}")
        return Budget(**data)


def _by_pattern(value: object) -> Mapping[str, float] | None:
    """Shares by pattern; None where `value` is an amount."""
    if isinstance(value, str):
        value = [value]
    if isinstance(value, Sequence):
        if len(value) == 1 and "=" not in str(value[0]):
            return None
        pairs = [str(text).rpartition("=") for text in value]
        if not pairs or any(not pattern for pattern, _, _ in pairs):
            raise _error("channels", value)
        value = {pattern: share for pattern, _, share in pairs}
    if not isinstance(value, Mapping):
        return None
    if not value:
        raise _error("channels", value)
    return {pattern: _share(pattern, share) for pattern, share in value.items()}


def _share(pattern: str, value: object) -> float:
    try:
        re.compile(pattern)
    except re.error as error:
        raise UsageError(
            f"'{pattern}' is not a valid regular expression ({error})",
            where="--channels",
            fix="escape special characters with a backslash",
        ) from None
    amount = _amount("channels", value)
    if not isinstance(amount, float):
        raise UsageError(
            f"what groups keep is a share, not a number: {value}",
            where=f"--channels '{pattern}'",
            fix="give 40% or 0.4",
        )
    return amount


def _amount(kind: str, value: object) -> float | int | str:
    """A share as a float, a count as an int, a latency as text with its unit."""
    if isinstance(value, Sequence) and not isinstance(value, str) and len(value) == 1:
        value = value[0]
    match = _NUMBER.fullmatch(str(value).strip())
    if isinstance(value, bool) or match is None:
        raise _error(kind, value)
    number, unit = float(match[1]), match[2].lower()
    if unit == "%":
        number /= 100
        if number > 1:
            raise UsageError(f"{value} is more than the model has", where=f"--{kind}", fix="ask for at most 100%")
    elif unit not in _UNITS[kind]:
        raise _error(kind, value)
    if not 0 < number < math.inf:
        raise _error(kind, value)
    if unit == "%" or (not unit and number <= 1):
        return number
    number *= _UNITS[kind][unit]
    if kind == "latency":
        return f"{number:.12g}ms"
    if round(number) <= 1:  # reads as a share
        raise _error(kind, value)
    return round(number)


def _error(kind: str, value: object) -> UsageError:
    return UsageError(f"{value!r} is not a budget", where=f"--{kind}", fix=f"give for example {_EXAMPLES[kind]}")


def as_budget(budget: Budget | float | str | None) -> Budget | None:
    """A number or a text as a budget of MACs: 0.5, "50%", "300M". Raises UsageError."""
    if budget is None or isinstance(budget, Budget):
        return budget
    if isinstance(budget, bool) or not isinstance(budget, int | float | str):
        raise UsageError(
            f"{a_kind(budget)} is not a budget",
            where="budget",
            fix='give 0.5, "50%", or a Budget such as Budget(latency="5ms")',
        )
    return Budget(macs=budget)
