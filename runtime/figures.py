"""Numbers and names as people read them: three digits, and no name wider than its column."""

from __future__ import annotations

import math
import re

_DECIMAL = ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"))
_FEW = 8  # samples, of which a share says next to nothing
_QUOTED = re.compile(r"'([^']+)'")


def count(value: float) -> str:
    """3.30 M; whole numbers below a thousand as they are."""
    return _scaled(value, "") or str(int(value))


def size(value: float) -> str:
    """Bytes: 391 kB."""
    return _scaled(value, "B") or f"{int(value)} B"


def digits(value: float) -> str:
    """Three significant digits: 3.30, 391, 0.0885."""
    return f"{value:#.3g}".rstrip(".") if math.isfinite(value) and abs(value) < 999.5 else f"{value:.0f}"


def took(seconds: float) -> str:
    """1.55 s, 3:42 min."""
    return f"{digits(seconds)} s" if seconds < 60 else duration(seconds)


def pinned_words(pinned: int, groups: int) -> str:
    """1 of 6 groups is pinned."""
    return f"{pinned} of {groups} groups {'is' if pinned == 1 else 'are'} pinned"


def nearness(same_class: float | None, distance: float | None, samples: int) -> str | None:
    """How near a result is to the original: 'same top class as the original on 94.0% of 64 samples'.

    Few samples are counted, and said to be few. None where nothing was compared.
    """
    if distance is None and same_class is None:
        return None
    few = samples < _FEW
    seen = f"{samples} sample{'s' * (samples != 1)}"
    far = "" if distance is None else f"relative distance from the original's outputs {distance:.2g}"
    if same_class is None:
        said = f"{far} on {seen}"
    elif few:
        said = ", ".join(
            filter(None, [f"same top class as the original on {round(same_class * samples)} of {seen}", far])
        )
    else:
        said = f"same top class as the original on {same_class:.1%} of {seen}"
    return f"{said}: too few to say much" if few else said


def duration(seconds: float) -> str:
    """45 s, 3:20 min, 1:05 h."""
    whole = max(round(seconds), 0)
    if whole < 60:
        return f"{whole} s"
    minutes, rest = divmod(whole, 60)
    if minutes < 60:
        return f"{minutes}:{rest:02d} min"
    return f"{minutes // 60}:{minutes % 60:02d} h"


def shortened(name: str, most: int = 44) -> str:
    """The name with its middle left out where it is longer than that; names of TensorFlow have 120 characters."""
    if len(name) <= most:
        return name
    head = (most - 1) // 2
    return f"{name[:head]}…{name[len(name) - (most - 1 - head) :]}"


def shortened_inside(text: str, most: int = 44) -> str:
    """The text with every quoted name in it shortened."""
    return _QUOTED.sub(lambda found: f"'{shortened(found[1], most)}'", text)


def listed(names: list[str], most: int = 8) -> str:
    """The first few of the names, and how many more there are."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(shortened(name) for name in names[:most]) + more


def _scaled(value: float, unit: str) -> str | None:
    for factor, letter in _DECIMAL:
        if abs(value) >= 0.9995 * factor:
            return f"{digits(value / factor)} {letter}{unit}"
    return None
