"""What is removed from a model, as a value that can be written as JSON, read, edited and applied again."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Literal

from ...errors import ReadError, UsageError, a_kind
from ...graph.files import as_path, write_text
from ...graph.reading import check_regular
from ..budget import Budget
from .plan_json import MalformedError, expect, flag, layout, members, numbers, pair

FORMAT, VERSION = "onnx-prune plan", 1
_WRITTEN = "give a file that --plan wrote"
Slices = Mapping[str, Mapping[str, tuple[int, ...]]]  # constant of the cut model -> axis -> removed indices


@dataclass(frozen=True, slots=True)
class PlannedGroup:
    """One group in a plan.

    removed: the numbers of the units that go, ascending
    pinned: why none can go, or None
    """

    name: str
    units: int
    removed: tuple[int, ...]
    pinned: str | None


@dataclass(frozen=True, slots=True)
class Plan:
    """Which units of which groups go, how that was decided, and what it is in the constants.

    model: its name
    graph_sha256: `Graph.sha256`, names and shapes without values, so that another checkpoint fits
    budget: as it was asked for; what is kept, where it was not
    criterion, allocation, reconstruct: their words
    seed: of all that was drawn
    macs, params: before and after
    groups: all of the graph, in its order
    slices: the cut without any knowledge of groups, by the names that the constants have in the cut model; None where
        they were deleted from the file: they follow from the groups
    sampled: whether the graph was given channel samplers first, whose channels are groups as well
        (passes/rewrite/sample.py)
    placed: whether it was given channel placers, so that layers of a residual stream have groups of their own
        (passes/rewrite/place.py)
    computed: constant of the slices that the file does not store but computes -> the stored tensors that it computes it
        from: its value has to be stored in the place of its nodes before it is cut
    nested: constant of the slices that the file keeps in the body of a node or in a function, by the name that it has
        once control flow is written out and functions are inlined -> where the file has it
    settings: the flags that were given, for people; None where it was not made on the command line
    """

    model: str
    graph_sha256: str
    budget: Budget
    criterion: str
    allocation: str
    reconstruct: str
    seed: int
    macs: tuple[int, int]
    params: tuple[int, int]
    groups: tuple[PlannedGroup, ...]
    slices: Slices | None
    sampled: bool = False
    placed: bool = False
    settings: Mapping[str, object] | None = None
    computed: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    nested: Mapping[str, str] = field(default_factory=dict)

    def __repr__(self) -> str:
        gone = sum(map(len, self.removed.values()))
        return f"Plan({self.model!r}, {gone} units of {len(self.removed)} groups removed, macs={self.macs})"

    @property
    def removed(self) -> dict[str, tuple[int, ...]]:
        """Group -> its removed units, of the groups that are cut."""
        return {group.name: group.removed for group in self.groups if group.removed}

    @property
    def extra(self) -> Literal["samplers", "placers"] | None:
        """What the graph was given first."""
        return "samplers" if self.sampled else "placers" if self.placed else None

    @property
    def digest(self) -> str:
        """sha256 of what is cut: the graph, and the units that go. How that was decided does not count."""
        text = json.dumps([self.graph_sha256, sorted(self.removed.items())])
        return hashlib.sha256(text.encode()).hexdigest()

    def to_json(self) -> str:
        """A line a group and a constant, so that it can be edited. The same plan gives the same bytes."""
        data: dict[str, object] = {
            "format": FORMAT,
            "version": VERSION,
            "model": {"name": self.model, "graph_sha256": self.graph_sha256},
            "budget": self.budget.to_json(),
            "criterion": self.criterion,
            "allocation": self.allocation,
            "reconstruct": self.reconstruct,
            "seed": self.seed,
            "macs": self.macs,
            "params": self.params,
            "groups": [asdict(group) for group in self.groups],
        }
        data |= {name: True for name in ("sampled", "placed") if getattr(self, name)}
        if self.settings is not None:
            data["settings"] = self.settings
        if self.computed:
            data["computed"] = self.computed
        if self.nested:
            data["nested"] = self.nested
        if self.slices is not None:
            data["slices"] = self.slices
        return layout(data, blocks=("groups", "slices"))

    @staticmethod
    def from_json(text: str, where: str = "a plan") -> Plan:
        """The inverse of `to_json`; "slices" may be missing. Raises ReadError for anything else."""
        if not isinstance(text, str):
            raise UsageError(
                f"{a_kind(text)} is not a plan", where="Plan.from_json", fix="give the text of a plan.json"
            )
        try:
            data = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise ReadError(f"the plan is not valid JSON ({error})", where=where, fix=_WRITTEN) from None
        if not isinstance(data, dict) or data.get("format") != FORMAT:
            raise ReadError("this is not a plan of onnx-prune", where=where, fix=_WRITTEN)
        if data.get("version") != VERSION:
            version = f"the plan has version {data.get('version')!r}, this program reads {VERSION}"
            raise ReadError(version, where=where, fix="make the plan again with this version")
        try:
            return _plan(data)
        except (UsageError, MalformedError) as error:
            raise ReadError(f"the plan is malformed: {error.args[0]}", where=where, fix=_WRITTEN) from None

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write the JSON; the file appears whole or not at all. Raises UsageError where it cannot be written."""
        return write_text(path, self.to_json())

    @staticmethod
    def load(path: str | os.PathLike[str]) -> Plan:
        """Read a file that `save` wrote. Raises ReadError."""
        path = as_path(path, "Plan.load")
        check_regular(path)
        try:
            text = path.read_text(encoding="utf-8-sig")
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "it is not text"
            raise ReadError(
                f"the plan cannot be read ({reason})", where=str(path) or "an empty path", fix="check the path"
            ) from None
        return Plan.from_json(text, str(path))


def _plan(data: object) -> Plan:
    keys = ["format", "version", "model", *(f.name for f in fields(Plan)[2:])]
    data = members(data, keys, optional=["slices", "sampled", "placed", "settings", "computed", "nested"])
    model = members(data["model"], ["name", "graph_sha256"])
    groups = tuple(_planned_group(entry) for entry in expect(data["groups"], list, "groups"))
    if len({group.name for group in groups}) < len(groups):
        raise MalformedError("a group is listed twice")
    return Plan(
        model=expect(model["name"], str, "name"),
        graph_sha256=expect(model["graph_sha256"], str, "graph_sha256"),
        budget=Budget.from_json(data["budget"]),
        criterion=expect(data["criterion"], str, "criterion"),
        allocation=expect(data["allocation"], str, "allocation"),
        reconstruct=expect(data["reconstruct"], str, "reconstruct"),
        seed=expect(data["seed"], int, "seed"),
        macs=pair(data["macs"], "macs"),
        params=pair(data["params"], "params"),
        groups=groups,
        slices=_slices(data["slices"]) if "slices" in data else None,
        settings=expect(data["settings"], dict, "settings") if "settings" in data else None,
        sampled=flag(data.get("sampled", False), "sampled"),
        placed=flag(data.get("placed", False), "placed"),
        computed=_names(data.get("computed", {})),
        nested={n: expect(w, str, n) for n, w in expect(data.get("nested", {}), dict, "nested").items()},
    )


def _names(data: object) -> dict[str, tuple[str, ...]]:
    found = expect(data, dict, "computed").items()
    return {name: tuple(expect(one, str, name) for one in expect(read, list, name)) for name, read in found}


def _planned_group(data: object) -> PlannedGroup:
    entry = members(data, ["name", "units", "removed", "pinned"])
    return PlannedGroup(
        name=expect(entry["name"], str, "name"),
        units=expect(entry["units"], int, "units"),
        removed=tuple(sorted(set(numbers(entry["removed"], "removed")))),
        pinned=None if entry["pinned"] is None else expect(entry["pinned"], str, "pinned"),
    )


def _slices(data: object) -> Slices:
    return {
        name: {axis: numbers(indices, name) for axis, indices in expect(axes, dict, name).items()}
        for name, axes in expect(data, dict, "slices").items()
    }
