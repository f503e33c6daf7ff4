"""A graph as a flat list of steps: which function reads which slots and fills which, decided once.

Every tensor has up to three forms, each with a slot of its own: the tensor; its numbers in Python, where they follow
from sizes alone or where an operator needs them (shapes, bounds); and an operand, a number if it is one number, else
the tensor. What depends on constants alone is computed here and now.
"""

from __future__ import annotations

from typing import Any, Literal

import onnx
import torch

from .dtypes import TORCH, to_torch
from .host import GROWING, HOSTED, SIZES, host_function
from .nodes import check_entries, constant_of, live_nodes
from .operators import Context, Function, Operator, Site, find_operator
from .steps import Program, Step, with_deaths
from .weights import Weights, weights

Form = Literal["tensor", "host", "operand"]
_BOOLEAN = frozenset(["And", "Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual", "Not", "Or"])
_SMALL = 64  # elements up to which a constant counts as a part of shape arithmetic
_READABLE = 1 << 12  # elements up to which a builder sees a constant's numbers
_STILL = Context(training=False, batch_statistics=False, device=torch.device("cpu"))


def compile_graph(model: onnx.ModelProto) -> Program:
    """The steps of a model. Raises UsageError for a node that has no entry in the table of operators."""
    opset = next((o.version for o in model.opset_import if o.domain in ("", "ai.onnx")), 1)
    return _Compiler(model.graph, opset).program()


class _Compiler:
    def __init__(self, graph: onnx.GraphProto, opset: int) -> None:
        self.graph = graph
        self.opset = opset
        self.weights: Weights = weights(graph)
        self.nodes = live_nodes(graph)
        check_entries(self.nodes)
        self.constants = self._stored_constants()
        self.sites: dict[int, Site] = {}
        self.on_host: set[str] = set(self.constants)  # names whose numbers follow from sizes and constants
        self.light = {name for name, value in self.constants.items() if value.numel() <= _SMALL}
        self.dtypes = {name: value.dtype for name, value in self.constants.items()}  # of what is on the host
        self.wanted: dict[str, set[Form]] = {}
        self._slots: dict[tuple[str, Form], int] = {}

    def program(self) -> Program:
        self._learn()
        self._ask()
        stored = self.weights.stored
        initial = {tensor.name for tensor in self.graph.initializer}
        self.done = Program(
            inputs=tuple(value.name for value in self.graph.input if value.name not in initial),
            outputs=tuple(value.name for value in self.graph.output),
            parameters={
                n: t for n in self.weights.trained if n in self.wanted and (t := to_torch(stored[n])) is not None
            },
            statistics={
                n: t for n in self.weights.statistics if n in self.wanted and (t := to_torch(stored[n])) is not None
            },
        )
        self._emit()
        return self.done

    def _stored_constants(self) -> dict[str, torch.Tensor]:
        kept = {*self.weights.trained, *self.weights.statistics}
        read = {name for node in self.nodes for name in node.input} | {o.name for o in self.graph.output}
        constants = {n: to_torch(t) for n, t in self.weights.stored.items() if n not in kept and n in read}
        for node in self.nodes:
            if node.op_type == "Constant" and node.output[0] not in self.weights.stored:
                constants[node.output[0]] = constant_of(node)
        return {name: value for name, value in constants.items() if value is not None}

    def _learn(self) -> None:
        """Forward: compute what is constant, and mark what follows from sizes."""
        for node in self.nodes:
            if node.op_type == "Constant":
                continue
            names = [name for name in node.input if name]
            operator = find_operator(node)
            site = self._site(node)
            self.sites[id(node)] = site
            if operator and not operator.random and all(n in self.constants for n in names):
                self._compute(operator, site)
            elif node.op_type in SIZES or (node.op_type in HOSTED and all(n in self.on_host for n in names)):
                self.on_host.update(node.output)
                self.dtypes.update(dict.fromkeys(node.output, self._dtype(site)))
                if node.op_type in SIZES or (node.op_type not in GROWING and all(n in self.light for n in names)):
                    self.light.update(node.output)

    def _dtype(self, site: Site) -> torch.dtype:
        """What type numbers in Python stand for."""
        op = site.node.op_type
        if op in SIZES or op in _BOOLEAN:
            return torch.int64 if op in SIZES else torch.bool
        if op == "ConstantOfShape":
            return TORCH[site.attrs["value"].data_type] if "value" in site.attrs else torch.float32
        if op == "Cast":
            return TORCH[site.attrs["to"]]
        return self.dtypes.get(site.node.input[op == "Where"], torch.int64)

    def _site(self, node: onnx.NodeProto) -> Site:
        constants = (self.constants.get(name) for name in node.input)
        return Site(
            node, self.opset, tuple(v.tolist() if v is not None and v.numel() <= _READABLE else None for v in constants)
        )

    def _compute(self, operator: Operator, site: Site) -> None:
        args: list[Any] = []
        for position, name in enumerate(site.node.input):
            value = self.constants.get(name)
            args.append(value.tolist() if value is not None and operator.on_host(position) else value)
        function = operator.build(site)
        with torch.no_grad():
            result = function(_STILL, *args) if operator.context else function(*args)
        results = result if isinstance(result, tuple) else (result,)
        for name, value in zip(site.node.output, results, strict=False):
            if name:
                self.constants[name] = value
                self.on_host.add(name)
                self.dtypes[name] = value.dtype
                if value.numel() <= _SMALL:
                    self.light.add(name)

    def _ask(self) -> None:
        """Backward: in which forms each tensor is wanted."""
        for value in self.graph.output:
            self._want(value.name, "tensor")
        for node in reversed(self.nodes):
            if node.op_type == "Constant" or all(o in self.constants for o in node.output if o):
                continue
            if self._hosted(node):
                for name in node.input:
                    self._want(name, "tensor" if node.op_type in SIZES else "host")
            if self._in_torch(node):
                operator = find_operator(node)
                assert operator is not None
                for position, name in enumerate(node.input):
                    self._want(name, self._form(operator, position, name))

    def _want(self, name: str, form: Form) -> None:
        if name:
            self.wanted.setdefault(name, set()).add(form)

    def _form(self, operator: Operator, position: int, name: str) -> Form:
        if operator.on_host(position):
            return "host"
        return "operand" if operator.scalars and name in self.light else "tensor"

    def _forms(self, node: onnx.NodeProto) -> set[Form]:
        return {form for name in node.output for form in self.wanted.get(name, ())}

    def _hosted(self, node: onnx.NodeProto) -> bool:
        """Whether the node is computed in Python: it can be, and somebody wants the numbers or they are few."""
        forms = self._forms(node)
        names = [o for o in node.output if o]
        if not forms or not all(n in self.on_host for n in names):
            return False
        return "host" in forms or all(n in self.light for n in names)

    def _in_torch(self, node: onnx.NodeProto) -> bool:
        forms = self._forms(node)
        names = [o for o in node.output if o]
        if not all(n in self.on_host for n in names):
            return bool(forms)
        return bool(forms & {"tensor", "operand"}) and not all(n in self.light for n in names)

    def _slot(self, name: str, form: Form) -> int:
        key = (name, form)
        if key not in self._slots:
            self._slots[key] = len(self.done.values)
            self.done.values.append(None)
        return self._slots[key]

    def _emit(self) -> None:
        done = self.done
        for name in ("", *done.inputs, *done.parameters, *done.statistics):
            self._slot(name, "tensor")
        for name in (*done.inputs, *done.parameters, *done.statistics):
            self._convert(name)
        for name in self.constants:
            self._place(name)
        for node in self.nodes:
            if node.op_type == "Constant" or all(o in self.constants for o in node.output if o):
                continue
            if self._hosted(node):
                self._emit_host(node)
            if self._in_torch(node):
                self._emit_torch(node)
            for name in filter(None, node.output):
                self._convert(name)
        done.slots = {name: slot for (name, form), slot in self._slots.items() if form == "tensor" and name}
        done.steps = with_deaths(done.steps, [done.slots[name] for name in done.outputs])

    def _place(self, name: str) -> None:
        """A constant in the forms that are wanted: numbers lie in their slots, tensors become buffers."""
        value, forms = self.constants[name], set(self.wanted.get(name, ()))
        if "operand" in forms and value.dim() == 0 and value.dtype is not torch.bool:
            self.done.values[self._slot(name, "operand")] = value.item()
            forms.discard("operand")
        if "host" in forms:
            self.done.values[self._slot(name, "host")] = value.tolist()
        if forms & {"tensor", "operand"}:
            slot = self._slot(name, "tensor")
            if "operand" in forms:
                self._slots[name, "operand"] = slot
            self.done.constants.append(value)
            self.done.constant_slots.append(slot)

    def _emit_host(self, node: onnx.NodeProto) -> None:
        form: Form = "tensor" if node.op_type in SIZES else "host"
        sources = tuple(self._slot(name, form) for name in node.input)
        self.done.steps.append(Step(host_function(self.sites[id(node)]), False, sources, self._targets(node, "host")))

    def _emit_torch(self, node: onnx.NodeProto) -> None:
        operator = find_operator(node)
        assert operator is not None
        forms: list[Form] = [self._form(operator, position, name) for position, name in enumerate(node.input)]
        sources = tuple(
            self._slot(name, form) if name else self._slot("", "tensor")
            for name, form in zip(node.input, forms, strict=True)
        )
        function = operator.build(self.sites[id(node)])
        self.done.steps.append(Step(function, operator.context, sources, self._targets(node, "tensor")))

    def _targets(self, node: onnx.NodeProto, form: Form) -> int | tuple[int, ...]:
        if len(node.output) == 1:
            return self._slot(node.output[0], form)
        wanted = {name for name in node.output if name and name in self.wanted}
        return tuple(self._slot(name, form) if name in wanted else -1 for name in node.output)

    def _convert(self, name: str) -> None:
        """Put the forms that are wanted beside the one that was computed."""
        forms: set[Form] = self.wanted.get(name, set())
        computed: Form = "host" if (name, "host") in self._slots else "tensor"
        for form in forms:
            if (name, form) in self._slots:
                continue
            if form == "host":
                function, context = torch.Tensor.tolist, False
            elif computed == "host":
                function, context = _to_tensor(self.dtypes[name], numbers=form == "operand"), True
            else:
                self._slots[name, form] = self._slot(name, "tensor")
                continue
            source = (self._slot(name, computed),)
            self.done.steps.append(Step(function, context, source, self._slot(name, form)))


def _to_tensor(dtype: torch.dtype, *, numbers: bool) -> Function:
    """Python values as a tensor; numbers: a single one stays what it is."""

    def convert(context: Context, value: Any) -> torch.Tensor | float:  # noqa: ANN401 - numbers, nested
        if numbers and not isinstance(value, list | tuple):
            return value
        return torch.tensor(value, dtype=dtype, device=context.device)

    return convert
