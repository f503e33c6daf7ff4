"""The graph as a module: the same numbers as ONNX Runtime, values that go back, edits on the way."""

import numpy as np
import onnx
import pytest
import torch
from onnx_prune.passes.errors import UsageError
from onnx_prune.runtime.session import open_session
from onnx_prune.runtime.torch.graph_module import GraphModule


@pytest.mark.shared
@pytest.mark.parametrize("name", ["resnet20-cifar10", "resnet20-cifar10-bn", "resnet56-cifar10", "resnet56-cifar10-bn"])
def test_a_trained_network_computes_what_onnx_runtime_computes(name, shared):
    model = onnx.load(shared / "models" / f"{name}.onnx")
    module = GraphModule(model).eval()
    images = np.random.default_rng(0).standard_normal((2, 3, 32, 32)).astype(np.float32)
    expected = open_session(model, optimise=False).run({module.input_names[0]: images})[module.output_names[0]]
    with torch.no_grad():
        logits = module(torch.from_numpy(images))[0].numpy()
    assert np.abs(logits - expected).max() < 2e-6 * np.abs(expected).max()


@pytest.mark.shared
def test_writing_back_without_training_changes_no_bit(shared):
    model = onnx.load(shared / "models" / "resnet20-cifar10-bn.onnx")
    assert GraphModule(model).to_model().SerializeToString() == model.SerializeToString()


MODEL = """
<ir_version: 8, opset_import: ["": 17]>
g (float[N, 3] x) => (float[N, 2] y)
<float[3, 2] w = {1, 2, 3, 4, 5, 6}> {
  a = MatMul (x, w)
  named = Relu (a)
  y = Neg (named)
}
"""


def test_an_edit_replaces_a_tensor_on_its_way():
    module = GraphModule(onnx.parser.parse_model(MODEL))
    y = module(torch.ones(1, 3), edits={"named": lambda a: a * torch.tensor([1.0, 0.0])})[0]
    assert y.tolist() == [[-9.0, 0.0]]


def test_an_edit_of_nothing_is_refused():
    with pytest.raises(UsageError, match="computes no tensor 'nowhere'"):
        GraphModule(onnx.parser.parse_model(MODEL))(torch.ones(1, 3), edits={"nowhere": torch.neg})


def test_an_operator_without_an_entry_is_named_with_its_node():
    model = onnx.parser.parse_model(MODEL.replace("Relu", "Unheard"))
    model.graph.node[1].name = "here"
    with pytest.raises(UsageError, match=r"operator Unheard .*\n.*'here'"):
        GraphModule(model)
