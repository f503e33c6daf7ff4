"""The comparison of GraphModule with ONNX Runtime can tell a difference."""

import pytest
from onnx_prune import models
from onnx_prune.runtime.data.random_feeds import sample_feeds
from onnx_prune.runtime.torch import agreement as agreement_module
from onnx_prune.runtime.torch.agreement import agreement
from onnx_prune.runtime.torch.graph_module import GraphModule

from .test_operators import drawn

TEXT = """
<ir_version: 8, opset_import: ["": 17]>
g (float[2, 3] x) => (float[2, 4] y, float[2, 4] z) <float[3, 4] w> {
  a = MatMul (x, w)
  y = Sigmoid (a)
  z = Relu (a)
}
"""


def test_equal_networks_agree():
    model = drawn(TEXT)
    assert agreement(model, sample_feeds(model)).error < 1e-6


@pytest.mark.parametrize(("operator", "output"), [("Sigmoid", "y"), ("Relu", "z")])
def test_another_number_is_seen(operator, output, monkeypatch):
    class Shifted(GraphModule):
        def forward(self, *inputs, edits):
            shifted = dict(edits)
            if operator == "Sigmoid":
                shifted["a"] = lambda t: edits["a"](t * (1 + 1e-3))
            else:
                shifted["z"] = lambda t: t * (1 + 1e-3)
            return super().forward(*inputs, edits=shifted)

    monkeypatch.setattr(agreement_module, "GraphModule", Shifted)
    model = drawn(TEXT)
    assert agreement(model, sample_feeds(model)).error == pytest.approx(1e-3, rel=0.1)


BUILDERS = {
    "densenet40": models.densenet40,
    "digits_resnet": models.digits_resnet,
    "lenet5": models.lenet5,
    "mobilenet_v1": lambda: models.mobilenet_v1(input_size=64),
    "mobilenet_v2": lambda: models.mobilenet_v2(input_size=64),
    "resnet20": lambda: models.resnet_cifar(20),
    "resnet20 folded": lambda: models.resnet_cifar(20, folded=True),
    "resnet34": lambda: models.resnet34(input_size=64),
    "resnet50": lambda: models.resnet50(input_size=64),
    "unet": models.unet,
    "vgg16_cifar": models.vgg16_cifar,
}


@pytest.mark.parametrize("name", BUILDERS)
def test_our_networks_agree(name):
    model = BUILDERS[name]()
    proof = agreement(model, sample_feeds(model, batch=2))
    assert proof.error < 1e-5
