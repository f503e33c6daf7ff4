"""Taps: ordinary nodes behind the tensors that consumers read, so that only sampled patches leave the device.

Behind a tensor, its channels move last and everything before them becomes rows, (images * inner, C). A patch is k of
these rows, those that the kernel covers at one output position; which ones is a table, made once, so that stride,
dilation, padding and transposed convolution are all the same Gather. The row numbers are fed with every batch:

    Transpose, Flatten    (images * inner, C)          once a tensor
    Gather                (images, positions, k, C)    whole rows, so that it copies contiguous memory

Where the kernel covers padding any row is taken, and cleared on the host: as a node that cost more than the Gather.
Measured on ResNet-56 with 16 positions an image: 1.1 times the time of the model alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace

import numpy as np
import onnx
from onnx import TensorProto, helper

from ..algebra.im2col import patch_table
from ..algebra.positions import Positions
from ..channels.activations import Activation
from ..channels.labels import Consumer, LabelledGraph
from ..graph.shapes import Shape, input_shapes
from .statistics import statistics

Array = np.ndarray
_PREFIX = "onnx_prune"


@dataclass(frozen=True, slots=True, eq=False)
class Tap:
    """Where patches of a tensor are taken.

    tensor: what is read
    consumers: who reads it in this way, by the names of their first outputs
    perm: what brings the channels last, None where they are
    rank: of the tensor
    inner: rows of the tensor an image
    grid: output positions an image
    table: (grid, k) int64, the rows of a position's patch, -1 for padding
    groups: of the convolution
    dtype: of the tensor, as in onnx.TensorProto
    batched: whether it grows with the batch; where not, it is as one image
    most: positions an image that are taken; None for as many as of every tap of a run
    first: of so many samples alone, those that come first; None for all
    """

    tensor: str
    consumers: tuple[str, ...]
    perm: tuple[int, ...] | None
    rank: int
    inner: int
    grid: int
    table: Array
    groups: int = 1
    dtype: int = TensorProto.FLOAT
    batched: bool = True
    most: int | None = None
    first: int | None = None

    def of(self, images: int, done: int) -> int:
        """Of how many of the next images patches are taken, after so many others."""
        count = images if self.first is None else min(max(self.first - done, 0), images)
        return count if self.batched else 1

    def reads_like(self, other: Tap) -> bool:
        """Whether both take the same patches."""
        mine = (self.tensor, self.perm, self.inner, self.grid, self.groups)
        theirs = (other.tensor, other.perm, other.inner, other.grid, other.groups)
        return mine == theirs and np.array_equal(self.table, other.table)


@dataclass(frozen=True, slots=True, eq=False)
class Taps:
    """Taps of one graph, for inputs of one size.

    taps: one for each way in which a tensor is read
    sizes: input -> its shape without the batch axis
    """

    taps: tuple[Tap, ...]
    sizes: dict[str, Shape]

    def __iter__(self) -> Iterator[Tap]:
        return iter(self.taps)

    def __len__(self) -> int:
        return len(self.taps)

    def __getitem__(self, consumer: str) -> Tap:
        return next(tap for tap in self.taps if consumer in tap.consumers)

    def only(self, consumers: Iterable[str]) -> Taps:
        """The taps of these consumers, one each, in their order."""
        return Taps(tuple(self[name] for name in consumers), self.sizes)

    def outputs(self, tensors: Mapping[str, str], dtypes: Mapping[str, int] | None = None) -> Taps:
        """Taps of tensors at the output positions of consumers: `{consumer: tensor}`, one each, in their order.

        A tensor is of the form of the consumer's output: it itself, or a sum that it goes into. Its "patch" is its n
        channels at the position. dtypes: of the tensors, as in onnx.TensorProto, where they are not those of the
        consumers' inputs.
        """
        return Taps(tuple(self._output(c, t, dtypes or {}) for c, t in tensors.items()), self.sizes)

    def at_output(self, consumer: str, tensors: Iterable[str], dtypes: Mapping[str, int] | None = None) -> Taps:
        """`outputs` of several tensors for one consumer."""
        return Taps(tuple(self._output(consumer, tensor, dtypes or {}) for tensor in tensors), self.sizes)

    def _output(self, consumer: str, tensor: str, dtypes: Mapping[str, int]) -> Tap:
        at = self[consumer]
        table = np.arange(at.grid)[:, None]
        kind = dtypes.get(tensor, at.dtype)
        return replace(at, tensor=tensor, consumers=(consumer,), inner=at.grid, table=table, groups=1, dtype=kind)


def find_taps(labelled: LabelledGraph, consumers: Iterable[Consumer] | None = None) -> Taps:
    """The taps of these consumers, by default of all that read channels; those that read alike share one.

    Left out: Einsum, arithmetic on integers, weights with batch axes, tensors of unknown shape, and those that no graph
    input reaches.
    """
    if consumers is None:
        consumers = [c for c in labelled.consumers if (c.labels >= 0).any()]
    sizes = {name: labelled.facts.shapes[name][1:] for name in input_shapes(labelled.graph)}
    reached = _reached(labelled, set(sizes))
    taps: list[Tap] = []
    for consumer in consumers:
        tap = _tap(labelled, consumer) if consumer.data in reached else None
        if tap is None:
            continue
        same = next((i for i, other in enumerate(taps) if tap.reads_like(other)), None)
        if same is None:
            taps.append(tap)
        else:
            taps[same] = replace(tap, consumers=(*taps[same].consumers, *tap.consumers))
    return Taps(tuple(taps), sizes)


def _reached(labelled: LabelledGraph, inputs: set[str]) -> set[str]:
    """The tensors that depend on what is fed; others have no batch."""
    reached = set(inputs)
    for node in labelled.graph.gs.nodes:
        if any(t.name in reached for t in node.inputs):
            reached.update(t.name for t in node.outputs)
    return reached


def _tap(labelled: LabelledGraph, consumer: Consumer) -> Tap | None:
    shapes, node = labelled.facts.shapes, labelled.graph.gs.nodes[consumer.node]
    name = node.outputs[0].name
    layout = consumer.layout
    if layout is None or consumer.weight in labelled.quantised:
        return None
    if any(t not in shapes for t in (consumer.data, consumer.weight, name)):
        return None
    data, weight = shapes[consumer.data], shapes[consumer.weight]
    if layout.window is not None:
        transposed = layout.window == "transposed"
        table = patch_table(node.attrs, data[2:], shapes[name][2:], weight[2:], transposed=transposed)
        samples, rows = data[0], int(np.prod(data[2:]))
    elif len(weight) < 3:
        table, rows = np.zeros((1, 1), np.int64), 1
        samples = int(np.prod(data)) // data[consumer.data_at.axis]
    else:
        return None
    axis = consumer.data_at.axis
    perm = (*(i for i in range(len(data)) if i != axis), axis) if axis + 1 < len(data) else None
    images = _images(labelled)
    batched = samples % images == 0
    samples = samples // images if batched else samples
    table = np.concatenate([np.where(table < 0, -1, table + i * rows) for i in range(samples)])
    return Tap(
        tensor=consumer.data,
        consumers=(name,),
        perm=perm,
        rank=len(data),
        inner=samples * rows,
        grid=len(table),
        table=table,
        groups=layout.groups,
        dtype=labelled.facts.dtypes.get(consumer.data, TensorProto.UNDEFINED),
        batched=batched,
    )


def _images(labelled: LabelledGraph) -> int:
    """The batch size for which the shapes are known."""
    shape = next((labelled.facts.shapes[name] for name in input_shapes(labelled.graph)), ())
    return shape[0] if shape else 1


@dataclass(frozen=True, slots=True)
class Instrument:
    """What is added to a model so that it shows its patches, and how it is fed.

    additions: nodes, inputs and outputs that join the model's (`open_session(additions=)`)
    rows: the output of each tap, (images, positions, k, C) float32
    statistics: tensor -> the outputs with mean, mean square and share of non-zeros, (C,) each
    taps: whose patches these are
    tables: a tap for each different choice of rows
    table_of: the number of each tap's choice
    """

    additions: onnx.ModelProto
    rows: tuple[str, ...]
    statistics: dict[str, tuple[str, str, str]]
    taps: Taps
    tables: tuple[Tap, ...]
    table_of: tuple[int, ...]

    def draw(self, images: int, positions: Positions, done: int = 0) -> Draw:
        """Choose patches of the next `images` images; done: how many came before."""
        wanted = dict.fromkeys((tap.grid, tap.of(images, done), tap.most) for tap in self.tables)
        drawn = {key: positions(*key) for key in wanted}
        feeds: dict[str, Array] = {}
        outside: list[Array] = []
        for number, tap in enumerate(self.tables):
            count = tap.of(images, done)
            rows = tap.table[drawn[tap.grid, count, tap.most]]
            padding = rows < 0
            offsets = tap.inner * np.arange(count)[:, None, None]
            feeds[_rows_input(number)] = np.where(padding, 0, rows + offsets)
            outside.append(np.flatnonzero(padding))
        return Draw(feeds, tuple(outside[number] for number in self.table_of))

    def patches(self, outputs: Mapping[str, Array], draw: Draw) -> list[Array]:
        """Tap by tap the patches among the model's outputs, (images, positions, k, C), with zeros for padding."""
        patches = [outputs[name] for name in self.rows]
        for patch, outside in zip(patches, draw.outside, strict=True):
            patch.reshape(-1, patch.shape[-1])[outside] = 0
        return patches


@dataclass(frozen=True, slots=True)
class Draw:
    """The patches chosen of one batch.

    feeds: row numbers, int64 (images, positions, k), that the additions ask for
    outside: for each tap, the flat indices of those that are padding
    """

    feeds: dict[str, Array]
    outside: tuple[Array, ...]


def instrument(taps: Taps, opset: int, activations: Iterable[Activation] = ()) -> Instrument:
    """Nodes for these taps in a model of this opset, and for statistics of these activations."""
    nodes, inputs, outputs = [], [], []
    tables: list[Tap] = []
    table_of: list[int] = []
    rows: list[str] = []
    sources: dict[tuple[str, tuple[int, ...] | None], str] = {}
    for tap in taps:
        key = (tap.tensor, tap.perm)
        if key not in sources:
            sources[key] = f"{_PREFIX}.rows_of.{len(sources)}"
            nodes += _flatten(tap, sources[key])
        number = next((i for i, t in enumerate(tables) if _same_rows(t, tap)), len(tables))
        if number == len(tables):
            tables.append(tap)
            inputs.append(helper.make_tensor_value_info(_rows_input(number), TensorProto.INT64, [None] * 3))
        table_of.append(number)
        rows.append(f"{_PREFIX}.patches.{len(rows)}")
        nodes += _gather(tap, sources[key], number, rows[-1])
        outputs.append(helper.make_tensor_value_info(rows[-1], TensorProto.FLOAT, None))
    measuring, measured = statistics(activations, opset)
    nodes += measuring
    outputs += [helper.make_tensor_value_info(o, TensorProto.FLOAT, None) for names in measured.values() for o in names]
    additions = onnx.ModelProto(graph=onnx.GraphProto(node=nodes, input=inputs, output=outputs))
    return Instrument(additions, tuple(rows), measured, taps, tuple(tables), tuple(table_of))


def _same_rows(a: Tap, b: Tap) -> bool:
    alike = (a.inner, a.grid, a.batched, a.most, a.first) == (b.inner, b.grid, b.batched, b.most, b.first)
    return alike and np.array_equal(a.table, b.table)


def _rows_input(number: int) -> str:
    return f"{_PREFIX}.row_numbers.{number}"


def _flatten(tap: Tap, output: str) -> list[onnx.NodeProto]:
    """Rows of channels, (images * inner, C)."""
    if tap.perm is None:
        return [helper.make_node("Flatten", [tap.tensor], [output], axis=tap.rank - 1)]
    last = f"{output}.last"
    transpose = helper.make_node("Transpose", [tap.tensor], [last], perm=tap.perm)
    return [transpose, helper.make_node("Flatten", [last], [output], axis=tap.rank - 1)]


def _gather(tap: Tap, source: str, number: int, output: str) -> list[onnx.NodeProto]:
    if tap.dtype == TensorProto.FLOAT:  # ONNX Runtime copies where it casts to the same type
        return [helper.make_node("Gather", [source, _rows_input(number)], [output], axis=0)]
    raw = f"{output}.raw"
    return [
        helper.make_node("Gather", [source, _rows_input(number)], [raw], axis=0),
        helper.make_node("Cast", [raw], [output], to=TensorProto.FLOAT),
    ]
