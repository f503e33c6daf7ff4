"""What a loss looks at: the outputs of a module, in front of what saturates, and tensors on the way."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from types import MappingProxyType

import onnx
from torch import Tensor

from ....passes.errors import UsageError
from ...proof.saturation import observed
from ..graph_module import Edit, GraphModule
from .samples import TensorBatch

Edits = Mapping[str, Edit]


@dataclass(frozen=True, slots=True)
class Readout:
    """A module's floating-point outputs; in front of a last sigmoid or softmax (see runtime/proof/saturation.py)."""

    module: GraphModule
    tensors: tuple[str, ...]

    @staticmethod
    def of(module: GraphModule, graph: onnx.GraphProto) -> Readout:
        """graph: what the module was made from."""
        return Readout(module, tuple(dict.fromkeys(observed(graph).values())))

    def __call__(
        self, samples: TensorBatch, edits: Edits = MappingProxyType({}), watch: Iterable[str] = ()
    ) -> tuple[list[Tensor], dict[str, Tensor]]:
        """The outputs and the watched tensors, by name, of the model with these edits."""
        seen: dict[str, Tensor] = {}

        def keep(x: Tensor, name: str) -> Tensor:
            seen[name] = edits[name](x) if name in edits else x
            return seen[name]

        names = {*self.tensors, *watch} - {*self.module.output_names}
        kept = {name: partial(keep, name=name) for name in names}
        outputs = self.module(*samples.inputs, edits={**edits, **kept})
        seen.update(zip(self.module.output_names, outputs, strict=True))
        values = [seen[name] for name in self.tensors]
        return [v for v in values if v.is_floating_point()], seen


def as_logits(value: Tensor, samples: int) -> Tensor | None:
    """(samples, classes) where the output is of that form, also with further axes of size 1; else None."""
    if value.dim() < 2 or len(value) != samples or value.shape[1] < 2 or value.numel() != samples * value.shape[1]:
        return None
    return value.flatten(1)


def check_labels(labels: Tensor, logits: Tensor) -> None:
    """Raises UsageError for labels that the model has no class for."""
    least, most = int(labels.min()), int(labels.max())
    if least < 0 or most >= logits.shape[1]:
        raise UsageError(
            f"a label is {most if least >= 0 else least}, and the model has {logits.shape[1]} classes",
            where="the labels of the data",
            fix="give labels from 0, in the order of the model's outputs",
        )
