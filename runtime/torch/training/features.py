"""Inner tensors that student and teacher both have, for the student to come close to the teacher's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from ..graph_module import Edit, GraphModule
from .losses import relative_error


class Recorder:
    """Keeps tensors by name on their way through a module: `module(x, edits=recorder.edits)`."""

    def __init__(self, names: Sequence[str]) -> None:
        self.seen: dict[str, Tensor] = {}
        self.edits: Mapping[str, Edit] = {name: self._keeper(name) for name in names}

    def _keeper(self, name: str) -> Edit:
        def keep(tensor: Tensor) -> Tensor:
            self.seen[name] = tensor
            return tensor

        return keep


def common_features(student: GraphModule, teacher: GraphModule, inputs: Sequence[Tensor]) -> tuple[str, ...]:
    """Of the tensors with channels that have the same name and shape in both, the last one of each shape.

    In a residual network these are the outputs of its stages, where their sums were left whole.
    """
    shapes = []
    with torch.no_grad():
        for module in (student, teacher):
            recorder = Recorder([name for name in module.tensor_names if name not in module.input_names])
            module(*inputs, edits=recorder.edits)
            shapes.append({n: v.shape for n, v in recorder.seen.items() if isinstance(v, Tensor) and v.dim() > 2})
    of_student, of_teacher = shapes
    return tuple({shape: name for name, shape in of_teacher.items() if of_student.get(name) == shape}.values())


def feature_distance(student: Recorder, teacher: Recorder) -> Tensor:
    """The sum over the samples of |student - teacher|^2 / |teacher|^2, mean over the tensors."""
    parts = [relative_error(student.seen[name], teacher.seen[name]) for name in teacher.edits]
    return torch.stack(parts).mean()
