"""The ONNX graph as a torch module: it computes what ONNX Runtime computes, and its values go back into the graph."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType

import onnx
import torch
import torch.nn.functional as F
from onnx import numpy_helper
from torch import Tensor, nn

from ...passes.errors import UsageError
from ...passes.graph.export import to_model
from ...passes.graph.mapped import tensor_array
from ...passes.graph.model import Graph
from ...passes.graph.reading import read_model
from ...passes.rewrite.batch_norm import stored_tensors
from .dtypes import to_numpy
from .operators import Context
from .program import compile_graph
from .steps import Program

Edit = Callable[[Tensor], Tensor]
_NONE: Mapping[str, Edit] = MappingProxyType({})


class GraphModule(nn.Module):
    """The ONNX graph as a module: parameters are its float weights, by name; running statistics are buffers.

    parameter_names: ONNX name -> torch's name, in which dots are slashes (`statistics_names` likewise).
    frozen_statistics: BatchNormalization takes the running statistics in training too; batch_norm: what computes it.
    """

    def __init__(self, model: onnx.ModelProto | Graph | str | Path) -> None:
        """Raises UsageError naming operator and node for what torch cannot do here, ReadError where it is no model."""
        super().__init__()
        self._source = _read(model)
        program = compile_graph(self._source)
        self.input_names, self.output_names = program.inputs, program.outputs
        self.parameter_names: dict[str, str] = {}
        self.statistics_names: dict[str, str] = {}
        self.frozen_statistics = False
        self.batch_norm: Callable[..., Tensor] = F.batch_norm
        for name, tensor in program.parameters.items():
            self.parameter_names[name] = own = self._free_name(name)
            self.register_parameter(own, nn.Parameter(tensor))
        for name, tensor in program.statistics.items():
            self.statistics_names[name] = own = self._free_name(name)
            self.register_buffer(own, tensor)
        self._constant_names: list[str] = []
        for position, tensor in enumerate(program.constants):
            self._constant_names.append(own := self._free_name(f"constant{position}"))
            self.register_buffer(own, tensor, persistent=False)
        self._load(program)

    def _load(self, program: Program) -> None:
        """What a run needs, as plain lists: slots of values, and steps between them."""
        self._values = program.values
        self._steps = program.steps
        self._slots = program.slots
        self._input_slots = [program.slots[name] for name in program.inputs]
        self._output_slots = [program.slots[name] for name in program.outputs]
        self._parameter_slots = [(program.slots[name], own) for name, own in self.parameter_names.items()]
        statistics = [(program.slots[name], own) for name, own in self.statistics_names.items()]
        constants = list(zip(program.constant_slots, self._constant_names, strict=True))
        self._buffer_slots = statistics + constants

    def _free_name(self, name: str) -> str:
        own = name.replace(".", "/") or "_"
        while hasattr(self, own):
            own += "_"
        return own

    def forward(self, *inputs: Tensor, edits: Mapping[str, Edit] = _NONE) -> tuple[Tensor, ...]:
        """The graph's outputs, for its inputs in the order of `input_names`.

        edits: ONNX name -> what is done to that tensor as soon as it is computed; the graph goes on with the result.
        """
        if len(inputs) != len(self._input_slots):
            raise UsageError(
                f"{len(inputs)} inputs were given",
                where="the call of a GraphModule",
                fix=f"give {', '.join(self.input_names)}",
            )
        values = list(self._values)
        parameters, buffers = self._parameters, self._buffers
        for slot, name in self._parameter_slots:
            values[slot] = parameters[name]
        for slot, name in self._buffer_slots:
            values[slot] = buffers[name]
        changes = self._changes(edits) if edits else {}
        device = inputs[0].device if inputs else torch.device("cpu")
        context = Context(self.training, self.training and not self.frozen_statistics, device, self.batch_norm)
        for slot, tensor in zip(self._input_slots, inputs, strict=True):
            values[slot] = tensor if slot not in changes else changes[slot](tensor)
        for function, in_context, sources, targets, dead in self._steps:
            args = [values[slot] for slot in sources]
            result = function(context, *args) if in_context else function(*args)
            del args
            for slot in dead:
                values[slot] = None
            if isinstance(targets, int):
                values[targets] = result if targets not in changes else changes[targets](result)
                continue
            for slot, part in zip(targets, result, strict=False):
                if slot >= 0:
                    values[slot] = part if slot not in changes else changes[slot](part)
        return tuple([values[slot] for slot in self._output_slots])

    @property
    def tensor_names(self) -> tuple[str, ...]:
        """The tensors that a run computes and its inputs, in no certain order: what an edit can name."""
        computed = {
            slot for step in self._steps for slot in ([step.targets] if isinstance(step.targets, int) else step.targets)
        }
        computed.update(self._input_slots)
        return tuple(name for name, slot in self._slots.items() if slot in computed)

    def _changes(self, edits: Mapping[str, Edit]) -> dict[int, Edit]:
        computed = set(self.tensor_names)
        for name in edits:
            if name not in computed:
                raise UsageError(
                    f"there is no tensor '{name}'", where="the graph", fix="name an output of one of its nodes"
                )
        return {self._slots[name]: edit for name, edit in edits.items()}

    def to_model(self) -> onnx.ModelProto:
        """The graph with the parameters and running statistics as they are now; nothing else changes."""
        model = onnx.ModelProto()
        model.CopyFrom(self._source)
        own = {name: self._parameters[torch_name] for name, torch_name in self.parameter_names.items()}
        own |= {name: self._buffers[torch_name] for name, torch_name in self.statistics_names.items()}
        for name, tensor in stored_tensors(model.graph):
            if name in own:
                _store(tensor, own[name])
        return model


def refuse_half(module: GraphModule, fix: str) -> None:
    """Raise UsageError where weights are to be trained that are in half precision."""
    half = [name for name, own in module.parameter_names.items() if module.get_parameter(own).dtype.itemsize < 4]
    if half:
        raise UsageError(
            "half-precision weights are not trained: small steps would be lost", where=f"'{half[0]}'", fix=fix
        )


def _store(proto: onnx.TensorProto, tensor: Tensor | None) -> None:
    """Put the values into the proto; where they are the same it stays as it is, however it is encoded."""
    assert tensor is not None
    array = to_numpy(tensor, proto.data_type)
    before = tensor_array(proto)
    if array.tobytes() != before.tobytes():
        fresh = numpy_helper.from_array(array.reshape(before.shape))
        for field in ("raw_data", "float_data", "double_data", "int32_data", "external_data", "data_location"):
            proto.ClearField(field)
        proto.raw_data = fresh.raw_data


def _read(model: onnx.ModelProto | Graph | str | Path) -> onnx.ModelProto:
    if isinstance(model, Graph):
        return to_model(model)
    if not isinstance(model, onnx.ModelProto | str | os.PathLike):
        raise UsageError(
            "a GraphModule is made from a path, an onnx.ModelProto or a Graph",
            where=f"a {type(model).__name__}",
            fix="give one of these",
        )
    proto, _ = read_model(model)
    if proto.functions:
        from onnx import inliner

        return inliner.inline_local_functions(proto)
    return proto
