"""What was fitted is written into the layer, also a second time."""

import numpy as np
import onnx
import onnx.parser
import pytest
from onnx import numpy_helper
from onnx_prune.passes.algebra.least_squares import Refit
from onnx_prune.passes.channels.apply_removal import apply_removal
from onnx_prune.passes.channels.groups import channel_groups
from onnx_prune.passes.channels.label_channels import label_channels
from onnx_prune.passes.graph.export import to_model
from onnx_prune.passes.graph.model import load
from onnx_prune.passes.graph.shapes import tensor_facts
from onnx_prune.passes.rewrite.taps import find_taps
from onnx_prune.runtime.refit.fits import find_fits
from onnx_prune.runtime.session import open_session

RNG = np.random.default_rng(0)
HIDDEN, OUT = 8, 5
SECOND = {
    "a product": "c = MatMul (r, v) y = Relu (c)",
    "a product with a sum": "c = MatMul (r, v) d = Add (c, b) y = Relu (d)",
    "a sum in front": "c = MatMul (r, v) d = Add (b, c) y = Relu (d)",
    "scaled behind": "c = MatMul (r, v) d = Mul (c, b) y = Relu (d)",
    "a product with a bias": "c = Gemm (r, v, b) y = Relu (c)",
    "one that has none yet": "c = Gemm (r, v) y = Relu (c)",
}


def network(second):
    text = f"g (float[N, 6] x) => (float[N, {OUT}] y) {{ a = MatMul (x, w) r = Relu (a) {second} }}"
    model = onnx.parser.parse_model(f'<ir_version: 8, opset_import: ["": 17]> {text}')
    values = {"w": RNG.normal(size=(6, HIDDEN)), "v": RNG.normal(size=(HIDDEN, OUT)), "b": RNG.normal(size=OUT)}
    read = {name for node in model.graph.node for name in node.input}
    model.graph.initializer.extend(
        numpy_helper.from_array(v.astype(np.float32), k) for k, v in values.items() if k in read
    )
    return model


@pytest.mark.parametrize("form", SECOND)
def test_what_is_written_last_is_what_the_layer_computes(form):
    graph = load(network(SECOND[form]))
    groups = channel_groups(label_channels(graph, tensor_facts(graph)))
    (name,) = (g.name for g in groups.free if g.units == HIDDEN)
    removed = groups.removed_labels({name: [0, 3]})
    cut = apply_removal(groups.labelled, removed)
    (fit,), _ = find_fits(groups.labelled, removed, cut, find_taps(groups.labelled))
    x = RNG.normal(size=(9, 6)).astype(np.float32)
    for _ in range(3):
        refit = Refit(RNG.normal(size=fit.start.weight.shape), RNG.normal(size=OUT))
        fit.write(cut, refit)
    model = to_model(cut)
    model.graph.output.append(onnx.helper.make_empty_tensor_value_info("r"))
    found = open_session(model).run({"x": x})
    wanted = np.maximum(found["r"] @ refit.weight[:, :, 0].T + refit.bias, 0)
    np.testing.assert_allclose(found["y"], wanted, atol=1e-5)
