"""Wrong cuts of any model: every change of one weight, constant, operand or attribute, and whether it shows."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator

import numpy as np
import onnx
import onnxruntime
from onnx import numpy_helper
from onnx_prune.passes.errors import ProofError

Mutation = tuple[str, Callable[[onnx.ModelProto], object]]


def _put(name: str, change: Callable[[np.ndarray], np.ndarray]) -> Callable[[onnx.ModelProto], None]:
    def mutate(model: onnx.ModelProto) -> None:
        tensor = next(t for t in model.graph.initializer if t.name == name)
        values = numpy_helper.to_array(tensor)
        tensor.CopyFrom(numpy_helper.from_array(np.ascontiguousarray(change(values)).astype(values.dtype), name))

    return mutate


def _swapped(array: np.ndarray, axis: int) -> np.ndarray:
    order = np.arange(array.shape[axis])
    order[:2] = order[1::-1]
    return np.take(array, order, axis)


def _rolled(by: int, axis: int) -> Callable[[np.ndarray], np.ndarray]:
    return lambda a: np.roll(a, by, axis)


def _off(at: int, by: int) -> Callable[[np.ndarray], np.ndarray]:
    return lambda a: a + by * (np.arange(a.size) == at).reshape(a.shape)


def _of_weight(name: str, array: np.ndarray) -> Iterator[Mutation]:
    """Each axis rolled by one, by a third and a quarter (gates, heads), two entries swapped; all of it lost."""
    yield f"{name} lost", _put(name, np.zeros_like)
    for axis, size in enumerate(array.shape):
        for by in sorted({1, size // 3, size // 4} - {0}) if size > 1 else ():
            yield f"{name} rolled by {by} along {axis}", _put(name, _rolled(by, axis))
        if size > 2:
            yield f"{name} swapped along {axis}", _put(name, lambda a, x=axis: _swapped(a, x))


def mutations(model: onnx.ModelProto) -> Iterator[Mutation]:
    """Weights as above, integers off by one; operands swapped, other tensors read, attributes off by one."""
    for tensor in model.graph.initializer:
        array = numpy_helper.to_array(tensor)
        if array.dtype.kind == "f":
            yield from _of_weight(tensor.name, array)
            continue
        for at, by in itertools.product(range(array.size), (1, -1)):
            yield f"{tensor.name}[{at}] off by {by}", _put(tensor.name, _off(at, by))
    for at, node in enumerate(model.graph.node[:-1]):
        yield from _of_node(at, node, model.graph)


def _of_node(at: int, node: onnx.NodeProto, graph: onnx.GraphProto) -> Iterator[Mutation]:
    for i in range(len(node.input) - 1):
        if node.input[i] and node.input[i + 1]:
            yield (
                f"{node.op_type} {at}: inputs {i} swapped",
                lambda m, i=i: m.graph.node[at].input.__setitem__(
                    slice(i, i + 2), m.graph.node[at].input[i : i + 2][::-1]
                ),
            )
    earlier = [v.name for v in graph.input] + [o for n in graph.node[:at] for o in n.output if o]
    for other in earlier:
        if other != node.input[0]:
            yield f"{node.op_type} {at}: reads {other}", lambda m, o=other: m.graph.node[at].input.__setitem__(0, o)
    for number, attribute in enumerate(node.attribute):
        for by in (1, -1):
            if attribute.type == onnx.AttributeProto.INT:
                yield (
                    f"{node.op_type} {at}: {attribute.name} off by {by}",
                    lambda m, k=number, b=by: setattr(
                        m.graph.node[at].attribute[k], "i", m.graph.node[at].attribute[k].i + b
                    ),
                )


def shown(model: onnx.ModelProto, feeds: dict[str, np.ndarray]) -> dict[str, np.ndarray] | None:
    """All that the model computes; None where it does not run."""
    copy = onnx.ModelProto.FromString(model.SerializeToString())
    own = {value.name for value in copy.graph.output}
    names = [o for node in copy.graph.node for o in node.output if o]
    copy.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names if name not in own)
    options = onnxruntime.SessionOptions()
    options.log_severity_level, options.intra_op_num_threads = 4, 1
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    try:
        session = onnxruntime.InferenceSession(copy.SerializeToString(), options, providers=["CPUExecutionProvider"])
        return dict(zip(names, session.run(names, feeds), strict=True))
    except Exception:  # noqa: BLE001 - ONNX Runtime's exceptions have no base of their own
        return None


def changes(before: dict[str, np.ndarray], after: dict[str, np.ndarray] | None) -> bool:
    """Whether any tensor is another one, or the model does not run."""
    if after is None:
        return True
    return any(
        after[name].shape != array.shape or not np.allclose(after[name], array, rtol=1e-4, atol=1e-6)
        for name, array in before.items()
    )


def not_refused(
    cut: onnx.ModelProto,
    every: int,
    is_other: Callable[[onnx.ModelProto], bool],
    prove: Callable[[onnx.ModelProto], object],
) -> tuple[list[str], int]:
    """The mutations of every so manieth that change something and are proved; and how many changed something."""
    passed, changed = [], 0
    for name, mutate in list(mutations(cut))[::every]:
        wrong = onnx.ModelProto.FromString(cut.SerializeToString())
        mutate(wrong)
        if not is_other(wrong):
            continue
        changed += 1
        try:
            prove(wrong)
        except ProofError:
            continue
        passed.append(name)
    return passed, changed
