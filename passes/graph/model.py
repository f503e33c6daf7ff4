"""The model in and out: a graph to read and cut, and the envelope that onnx-graphsurgeon does not carry.

`load` reads a path, bytes or a ModelProto; `to_model` writes the graph back and restores what the import drops
(metadata, doc strings, quantisation notes, unused initializers, the declared types of the interface);
`save` makes the file appear whole or not at all.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass, field, replace

import numpy as np
import onnx
import onnx_graphsurgeon as gs
from onnx import TensorProto, numpy_helper
from onnx_graphsurgeon.util.exception import OnnxGraphSurgeonException

from ..errors import ReadError
from .bodies import Nested, nested_weights
from .mapped import tensor_array
from .names import Names, tensor_names
from .reading import CHECK, ModelSource, read_model
from .unrolling import unrolled
from .valid.functions import inlined

_LARGE_BYTES = 1 << 20  # computed when read; smaller ones are kept, which is quicker


@dataclass(slots=True)
class Graph:
    """A model as a graph that can be read and cut.

    gs: its nodes and tensors
    source: the ModelProto that it came from, for what gs drops; never changed
    external: whether the source kept its weights in a file beside it
    origin: what it was read from
    computed: weight that the model computes, and that is stored here -> the stored tensors that it is computed from
    nested: weights that the file keeps in bodies and functions; see bodies.py
    """

    gs: gs.Graph
    source: onnx.ModelProto
    external: bool = False
    origin: ModelSource | None = None
    computed: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    nested: Nested = ()

    def __repr__(self) -> str:
        return f"Graph({self.source.graph.name!r}, {len(self.gs.nodes)} nodes)"

    @property
    def opset(self) -> int:
        return self.gs.opset

    def __deepcopy__(self, memo: dict[int, object]) -> Graph:
        """What was read is a value: whoever changes a graph takes `copy`."""
        return self

    def copy(self) -> Graph:
        """A graph whose nodes and tensors can be changed; the values of the weights are shared, not copied."""
        return replace(self, gs=self.gs.copy())

    def names(self) -> Names:
        """The names of tensors that are taken: by the graph, the bodies in it, and weights that nobody reads."""
        return Names([*tensor_names(self.gs), *(tensor.name for tensor in self.source.graph.initializer)])

    def sha256(self) -> str:
        """Digest of the graph: operators, attributes, names and shapes, not the weights' values."""
        digest = hashlib.sha256()
        digest.update(repr([(o.domain, o.version) for o in self.source.opset_import]).encode())
        for node in self.source.graph.node:
            digest.update(repr((node.domain, node.op_type, list(node.input), list(node.output))).encode())
            for attribute in sorted(node.attribute, key=lambda a: a.name):
                if attribute.type == onnx.AttributeProto.TENSOR:
                    digest.update(repr((attribute.name, attribute.t.data_type, list(attribute.t.dims))).encode())
                else:
                    digest.update(attribute.SerializeToString(deterministic=True))
        for tensor in self.source.graph.initializer:
            digest.update(repr((tensor.name, tensor.data_type, list(tensor.dims))).encode())
        return digest.hexdigest()


ModelLike = ModelSource | Graph


def load(source: ModelLike) -> Graph:
    """Read a model from a path, serialised bytes or a ModelProto. Functions of the model are inlined.

    Control flow that goes the same way in every run is written out. Raises ReadError where it is no valid ONNX model,
    or has an opset below 7.
    """
    if isinstance(source, Graph):
        return source
    model, external = read_model(source, mapped=True)
    nested = nested_weights(model)
    if model.functions:
        model = inlined(model)
    model = unrolled(model)
    try:
        with quiet():
            graph = gs.import_onnx(model)
    except (OnnxGraphSurgeonException, KeyError, TypeError, ValueError) as error:
        name = model.graph.name or "the model"
        raise ReadError("the model cannot be read as a graph", where=f"{name}: {error}", fix=CHECK) from error
    return Graph(graph, model, external, source, nested=nested)


@contextlib.contextmanager
def quiet() -> Generator[None]:
    """Graphsurgeon's logger writes warnings about valid models (no name, bfloat16) on standard output."""
    from onnx_graphsurgeon.logger import G_LOGGER

    before = G_LOGGER.severity
    G_LOGGER.severity = G_LOGGER.ERROR
    try:
        yield
    finally:
        G_LOGGER.severity = before


def constant_values(tensor: gs.Tensor) -> np.ndarray | None:
    """The array behind an initializer or a Constant node's output, without keeping a second copy; None otherwise.

    Sparse constants are None: nothing here cuts them.
    """
    if isinstance(tensor, gs.Constant):
        return _array(tensor)
    if len(tensor.inputs) == 1 and tensor.inputs[0].op == "Constant":
        return _node_value(tensor.inputs[0])
    return None


def _array(constant: gs.Constant) -> np.ndarray | None:
    held = constant._values
    if isinstance(held, gs.ir.tensor.SparseValues):
        return None
    if isinstance(held, Edited):
        return held.load()
    return tensor_array(held.tensor) if isinstance(held, gs.ir.tensor.LazyValues) else held


def constant_tensor(constant: gs.Constant) -> TensorProto:
    """The message behind an initializer: as it was read, where nothing has changed it."""
    held = constant._values
    return held.tensor if isinstance(held, gs.ir.tensor.LazyValues) else numpy_helper.from_array(held, constant.name)


class Edited(gs.ir.tensor.LazyValues):
    """Values that are computed from others whenever they are asked for, so that nobody holds them.

    compute: makes them
    dtype: theirs, as graphsurgeon says it
    """

    def __init__(self, compute: Callable[[], np.ndarray], dtype: np.dtype | int) -> None:
        self.load, self.dtype = compute, dtype

    @property
    def tensor(self) -> TensorProto:
        return numpy_helper.from_array(self.load())

    @property
    def shape(self) -> tuple[int, ...]:
        return self.load().shape

    @property
    def nbytes(self) -> int:
        return self.load().nbytes


def is_large(tensor: gs.Tensor) -> bool:
    """Whether it is an initializer of so many bytes that a second copy should not be held."""
    return isinstance(tensor, gs.Constant) and tensor._values.nbytes >= _LARGE_BYTES


def edited(tensor: gs.Constant, compute: Callable[[], np.ndarray]) -> Edited:
    """What `compute` makes of the values of an initializer, of the same type."""
    return Edited(compute, tensor._values.dtype)


def _node_value(node: gs.Node) -> np.ndarray | None:
    for key, value in node.attrs.items():
        if key == "value" and isinstance(value, gs.Constant):
            return _array(value)
        if key in ("value_float", "value_floats"):
            return np.asarray(value, np.float32)
        if key in ("value_int", "value_ints"):
            return np.asarray(value, np.int64)
    return None


def set_constant(tensor: gs.Tensor, values: np.ndarray | Edited) -> None:
    """Replace the values behind an initializer or a Constant node's output; shape may change, dtype may not."""
    if isinstance(tensor, gs.Constant):
        tensor.values = _held(values)
    else:
        node = tensor.inputs[0]
        assert node.op == "Constant", f"{tensor.name} is not a constant"
        node.attrs.clear()
        node.attrs["value"] = make_constant(f"{tensor.name}_value", values)


def make_constant(name: str, values: np.ndarray | Edited) -> gs.Constant:
    """A new constant of any type that ONNX has."""
    return gs.Constant(name, _held(values))


def _held(values: np.ndarray | Edited) -> np.ndarray | gs.ir.tensor.LazyValues:
    """Graphsurgeon writes types that numpy lacks byte by byte, four-bit ones too: hold those as ONNX does."""
    if isinstance(values, Edited):
        return values
    return gs.ir.tensor.LazyValues(numpy_helper.from_array(values)) if values.dtype.kind == "V" else values
