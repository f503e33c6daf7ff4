# What this project uses of onnx-graphsurgeon, which annotates attributes as `object` and tensors without their names.
from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx

from . import ir as ir

class Tensor:
    name: str
    inputs: list[Node]
    outputs: list[Node]

class Variable(Tensor):
    dtype: Any
    shape: Sequence[int | str | None] | None
    def __init__(self, name: str, dtype: Any = ..., shape: Sequence[int | str | None] | None = ...) -> None: ...
    @staticmethod
    def empty() -> Variable: ...

class Constant(Tensor):
    _values: np.ndarray | ir.tensor.LazyValues | ir.tensor.SparseValues
    @property
    def values(self) -> np.ndarray: ...
    @values.setter
    def values(self, values: np.ndarray | ir.tensor.LazyValues) -> None: ...
    shape: tuple[int, ...]
    dtype: Any
    def __init__(self, name: str, values: np.ndarray | ir.tensor.LazyValues) -> None: ...

class Node:
    op: str
    name: str
    domain: str | None
    attrs: dict[str, Any]
    inputs: list[Tensor]
    outputs: list[Tensor]
    def __init__(
        self,
        op: str,
        name: str = ...,
        attrs: dict[str, Any] = ...,
        inputs: Sequence[Tensor] = ...,
        outputs: Sequence[Tensor] = ...,
    ) -> None: ...

class Graph:
    nodes: list[Node]
    inputs: list[Tensor]
    outputs: list[Tensor]
    opset: int
    name: str
    def copy(self) -> Graph: ...
    def tensors(self) -> dict[str, Tensor]: ...

def import_onnx(model: onnx.ModelProto) -> Graph: ...
def export_onnx(graph: Graph, do_type_check: bool = ...) -> onnx.ModelProto: ...
