"""Within what widths may move: which counts a group may keep, which groups stay whole, which may go entirely."""

from __future__ import annotations

import re
from collections.abc import Collection
from typing import Literal

import numpy as np

from ..channels.cost import CostModel
from ..channels.groups import ChannelGroups
from ..errors import UsageError
from .methods import EPSILON, Frame

Array = np.ndarray
Align = int | Literal["auto"]


def menus(units: Array, align: Align, *, coarse: bool = False) -> list[Array]:
    """What each group's kept count is a multiple of, (groups,) int64; several where auto: the first that serves.

    ONNX Runtime computes convolutions in blocks of 8 or 16 channels, CUDA and tensor cores in 8, 16 or 32; a count
    between costs as much as the next block, or falls out of the blocked layout (docs/methods.md). auto: `_FINE`, where
    groups of fewer than 8 units stay whole; then multiples of 4; then, for budgets that are not reached so, any
    count. coarse: `_COARSE` comes before, for allocations that measure no harm: nothing speaks for a finer width.
    Raises UsageError.
    """
    if align == "auto":
        stairs = [_COARSE, _FINE] if coarse else [_FINE]
        menu = [np.select([units >= n for n, _ in stair], [m for _, m in stair], units) for stair in stairs]
        return [*menu, np.where(units >= _SMALL, _SMALL, units), np.ones_like(units)]
    if not isinstance(align, int) or isinstance(align, bool) or not 1 <= align <= _WIDEST:
        raise UsageError(f"channels cannot be aligned to {align}", where="--align", fix="give 1, 8, 16, 32 or auto")
    return [np.full(len(units), align)]


_WIDEST = 1 << 20  # no layer has so many channels
# Units a group has at least, and what its kept count is then a multiple of. CPU time on AVX2 at half of the MACs, as a
# share of the original's (l2, uniform): coarse / fine / any count: resnet56 0.61 / 0.73 / 0.88, yolox_nano 0.63 / 0.69
# / 0.87, mobilenet_v2 0.57 / 0.59 / 1.07, resnet50 0.505 / 0.52 / 0.59, YuNet 0.84 / 0.80 / 1.53.
_COARSE = ((64, 32), (32, 16), (16, 8), (8, 4))
_FINE = ((128, 16), (32, 8), (8, 4))
_SMALL = 4


def excluded(groups: ChannelGroups, exclude: str | Collection[str] | None) -> frozenset[str]:
    """Names of the groups that stay. Raises UsageError for a regular expression that matches none."""
    if not isinstance(exclude, str):
        return frozenset(exclude or ())
    names = tuple(group.name for group in groups.groups)
    return frozenset(np.array(names)[matches(exclude, names, "--exclude")].tolist())


def frame_of(cost: CostModel, protect: float, multiple: Array, exclude: str | Collection[str] | None) -> Frame:
    """Within what widths may move. protect: the share of every group that stays; multiple: (groups,) int64."""
    names = tuple(group.name for group in cost.groups.groups)
    stays = ~cost.free | np.isin(names, list(excluded(cost.groups, exclude)))
    least = np.ceil(np.maximum(cost.units * protect - EPSILON, 1) / multiple).astype(np.int64) * multiple
    return Frame(names, cost.units, np.where(stays, cost.units, np.minimum(least, cost.units)), multiple)


def may_go(cost: CostModel, exclude: str | Collection[str] | None) -> Array:
    """One bool a group: those that may keep nothing, and take no group with them that has to stay."""
    names = [group.name for group in cost.groups.groups]
    stays = np.isin(names, list(excluded(cost.groups, exclude))) & cost.free
    return cost.vanishing.sparing(cost.vanishing.may_go & ~stays, frozenset(np.flatnonzero(stays).tolist()))


def matches(pattern: str, names: tuple[str, ...], option: str) -> Array:
    """One bool a name: whether the regular expression matches the whole of it.

    option: that the pattern was given with. Raises UsageError for one that is not valid, or matches nothing.
    """
    try:
        found = np.array([re.fullmatch(pattern, name) is not None for name in names], bool)
    except re.error as error:
        raise UsageError(
            f"'{pattern}' is not a valid regular expression ({error})",
            where=option,
            fix="escape special characters with a backslash",
        ) from None
    if not found.any():
        raise UsageError(
            f"no group's name matches '{pattern}'",
            where=f"{option}; the groups are {', '.join(names[:5])}{', ...' if len(names) > 5 else ''}",
            fix="a pattern has to match the whole name, as in 'layer3.*'; onnx-prune inspect lists all names",
        )
    return found
