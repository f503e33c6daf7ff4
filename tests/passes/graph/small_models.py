"""Small models that the tests of this room share."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper


def copy_of(model):
    copied = onnx.ModelProto()
    copied.CopyFrom(model)
    return copied


def chain(opset=17, ir_version=8):
    """Two convolutions without anything that changed between opsets."""
    rng = np.random.default_rng(0)
    shapes = {"first": (6, 2, 3, 3), "second": (4, 6, 3, 3)}
    weights = [numpy_helper.from_array(rng.standard_normal(s).astype(np.float32), n) for n, s in shapes.items()]
    nodes = [
        helper.make_node("Conv", ["x", "first"], ["a"], "a", kernel_shape=[3, 3]),
        helper.make_node("Relu", ["a"], ["b"], "b"),
        helper.make_node("Conv", ["b", "second"], ["y"], "y", kernel_shape=[3, 3]),
    ]
    ends = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)
        for name, shape in (("x", [1, 2, 8, 8]), ("y", [1, 4, 4, 4]))
    ]
    graph = helper.make_graph(nodes, "chain", ends[:1], ends[1:], weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=ir_version)


def with_constant_nodes(model):
    """The same model with its weights in Constant nodes."""
    moved = copy_of(model)
    nodes = [helper.make_node("Constant", [], [t.name], f"{t.name}.node", value=t) for t in moved.graph.initializer]
    nodes += moved.graph.node
    del moved.graph.node[:], moved.graph.initializer[:]
    moved.graph.node.extend(nodes)
    return moved


def decorated():
    """A model with everything around the graph that a tool may write."""
    model = with_constant_nodes(chain())
    weight = model.graph.node.pop(1)
    model.graph.initializer.append(weight.attribute[0].t)
    model.graph.initializer.append(numpy_helper.from_array(np.ones(3, np.float32), "nobody_reads_this"))
    model.doc_string, model.domain, model.model_version = "a model", "org.example", 7
    model.producer_name, model.producer_version = "the exporter", "1.2"
    model.graph.doc_string = "a graph"
    model.metadata_props.add(key="classes", value='["cat", "dog"]')
    model.graph.metadata_props.add(key="stage", value="deployed")
    model.graph.input[0].doc_string = "an image"
    model.graph.input[0].type.denotation = "IMAGE"
    model.graph.output[0].doc_string = "logits"
    model.graph.value_info.append(helper.make_tensor_value_info("a", TensorProto.FLOAT, [1, 6, 6, 6]))
    model.graph.value_info[0].metadata_props.add(key="seen", value="yes")
    model.graph.value_info.append(helper.make_tensor_value_info("first", TensorProto.FLOAT, [6, 2, 3, 3]))
    model.graph.value_info.append(helper.make_tensor_value_info("second", TensorProto.FLOAT, [4, 6, 3, 3]))
    for value in model.graph.value_info:
        value.doc_string = "a value"
    for node in model.graph.node:
        node.doc_string = f"line {node.name}"
        node.metadata_props.add(key="pkg.onnxscript.name_scopes", value=f"['', '{node.name}']")
        for attribute in node.attribute:
            attribute.doc_string = "an attribute"
    note = model.graph.quantization_annotation.add(tensor_name="a")
    note.quant_parameter_tensor_names.add(key="SCALE_TENSOR", value="nobody_reads_this")
    return model


def saved_apart(model, folder, *, attributes=False):
    path = folder / "source.onnx"
    onnx.save(
        copy_of(model),
        path,
        save_as_external_data=True,
        location="weights.bin",
        size_threshold=0,
        convert_attribute=attributes,
    )
    return path


def weights_of(model):
    return {t.name: numpy_helper.to_array(t).tobytes() for t in model.graph.initializer}
