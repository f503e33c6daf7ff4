"""A graph as a flat list of steps over slots: what a run needs, and nothing of how it was found."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch

from .operators import Function


class Step(NamedTuple):
    """One call: function(*values of the sources) fills the targets.

    function: what is called
    context: whether its first argument is the run's Context
    sources: slots that it reads
    targets: the slot that it fills, or several, -1 for results that nobody reads
    dead: slots that no later step reads
    """

    function: Function
    context: bool
    sources: tuple[int, ...]
    targets: int | tuple[int, ...]
    dead: tuple[int, ...] = ()


@dataclass
class Program:
    """What a run needs.

    inputs, outputs: names, in the model's order
    parameters: what is trained, by name
    statistics: running means and variances, by name
    constants: what belongs to the module as buffers
    constant_slots: their slots
    values: what every slot holds before a run
    slots: ONNX name -> the slot of the tensor
    steps: what is called, in order
    """

    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    parameters: dict[str, torch.Tensor]
    statistics: dict[str, torch.Tensor]
    constants: list[torch.Tensor] = field(default_factory=list)
    constant_slots: list[int] = field(default_factory=list)
    values: list[Any] = field(default_factory=list)
    slots: dict[str, int] = field(default_factory=dict)
    steps: list[Step] = field(default_factory=list)


def with_deaths(steps: list[Step], outputs: list[int]) -> list[Step]:
    """Each step with the slots that it reads as the last one."""
    seen, finished = set(outputs), []
    for step in reversed(steps):
        dead = tuple(dict.fromkeys(s for s in step.sources if s not in seen))
        seen.update(dead)
        finished.append(step._replace(dead=dead))
    return finished[::-1]
