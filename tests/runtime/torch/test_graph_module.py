"""The graph as a module: the same numbers as ONNX Runtime, values that go back, edits on the way."""

import copy
import subprocess
import sys

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper
from onnx_prune.models.resnet import resnet_cifar
from onnx_prune.passes.errors import UsageError
from onnx_prune.passes.graph.model import load
from onnx_prune.runtime.session import open_session
from onnx_prune.runtime.torch.graph_module import GraphModule

from .test_operators import drawn

HEADER = '<ir_version: 8, opset_import: ["": 17]>'


def images(count=2):
    return np.random.default_rng(0).standard_normal((count, 3, 32, 32)).astype(np.float32)


def values(model):
    return {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}


@pytest.fixture(scope="module")
def network():
    """ResNet-8 with its BatchNormalizations."""
    return resnet_cifar(8)


@pytest.mark.shared
@pytest.mark.parametrize("name", ["resnet20-cifar10", "resnet20-cifar10-bn", "resnet56-cifar10", "resnet56-cifar10-bn"])
def test_a_trained_network_computes_what_onnx_runtime_computes(name, shared):
    model = onnx.load(shared / "models" / f"{name}.onnx")
    module = GraphModule(model).eval()
    expected = open_session(model, optimise=False).run({module.input_names[0]: images()})[module.output_names[0]]
    with torch.no_grad():
        logits = module(torch.from_numpy(images()))[0].numpy()
    assert np.abs(logits - expected).max() < 2e-6 * np.abs(expected).max()


# ---- the way back


@pytest.mark.parametrize("source", ["proto", "graph", "path"])
def test_writing_back_without_training_changes_no_bit(network, source, tmp_path):
    onnx.save(network, tmp_path / "model.onnx")
    given = {"proto": network, "graph": load(network), "path": tmp_path / "model.onnx"}[source]
    assert GraphModule(given).to_model().SerializeToString() == network.SerializeToString()


def test_every_encoding_of_values_stays_as_it_is():
    model = drawn(f"{HEADER} g (float[N, 2] x) => (float y) <float[2, 2] w> {{ y = MatMul (x, w) }}")
    model.graph.initializer[0].CopyFrom(onnx.helper.make_tensor("w", 1, [2, 2], [1.0, 2.0, 3.0, 4.0]))
    assert GraphModule(model).to_model().SerializeToString() == model.SerializeToString()


def test_a_module_moved_to_another_type_goes_back_to_the_models(network):
    assert GraphModule(network).double().to_model().SerializeToString() == network.SerializeToString()


def test_only_what_was_changed_changes(network):
    module = GraphModule(network)
    name = "layer1.0.conv1.weight"
    with torch.no_grad():
        module.get_parameter(module.parameter_names[name]).mul_(2)
    before, after = values(network), values(module.to_model())
    assert np.array_equal(after.pop(name), 2 * before.pop(name))
    assert all(np.array_equal(after[n], before[n]) for n in before)
    assert module.to_model().graph.node == network.graph.node


def test_weights_in_constant_nodes_are_trained_and_go_back():
    model = drawn(f"{HEADER} g (float[N, 2] x) => (float y) <float[2, 2] w> {{ y = MatMul (x, w) }}")
    tensor = model.graph.initializer.pop()
    model.graph.node.insert(0, onnx.helper.make_node("Constant", [], ["w"], value=tensor))
    module = GraphModule(model)
    with torch.no_grad():
        module.get_parameter("w").zero_()
    node = module.to_model().graph.node[0]
    assert not numpy_helper.to_array(node.attribute[0].t).any()


def test_running_statistics_go_back(network):
    module = GraphModule(network).train()
    seen = {}
    conv, norm = network.graph.node[:2]
    module(torch.from_numpy(images(8)), edits={conv.output[0]: lambda t: seen.setdefault("x", t)})
    after = values(module.to_model())
    keeps = (
        onnx.helper.get_node_attr_value(norm, "momentum") if any(a.name == "momentum" for a in norm.attribute) else 0.9
    )
    x = seen["x"].detach().numpy()
    mean, var = (values(network)[name] for name in norm.input[3:])
    assert after[norm.input[3]] == pytest.approx(keeps * mean + (1 - keeps) * x.mean((0, 2, 3)), rel=1e-4, abs=1e-5)
    assert after[norm.input[4]] == pytest.approx(keeps * var + (1 - keeps) * x.var((0, 2, 3), ddof=1), rel=1e-4)


def test_frozen_statistics_stay_and_are_used(network):
    module = GraphModule(network).train()
    module.frozen_statistics = True
    trained = module(torch.from_numpy(images()))[0]
    assert torch.equal(trained, module.eval()(torch.from_numpy(images()))[0])
    assert module.to_model().SerializeToString() == network.SerializeToString()


# ---- what is a parameter


def test_parameters_are_weights_not_statistics_shapes_nor_scalars():
    model = drawn(f"""
        {HEADER} g (float[N, 4] x) => (float y)
        <float[4, 6] w, float[6] b, float[6] s, float[6] t, float[6] m, float[6] v, float half = {{0.5}},
         float[6] slope, int64[2] k = {{0, -1}}> {{
          a = MatMul (x, w)
          c = Add (a, b)
          n = BatchNormalization (c, s, t, m, v)
          h = Mul (n, half)
          p = PRelu (h, slope)
          y = Reshape (p, k)
        }}""")
    module = GraphModule(model)
    assert sorted(module.parameter_names) == ["b", "s", "slope", "t", "w"]
    assert sorted(module.statistics_names) == ["m", "v"]


def test_masks_image_means_and_anchors_are_none():
    model = drawn(f"""
        {HEADER} g (float[N, 2, 2] x) => (float y)
        <float[2] mean, float[2, 2] mask = {{0, -100, 0, 0}}, float[2, 2] w, float[2] bias, float[2, 2] anchors> {{
          d = Sub (x, mean)
          e = Relu (d)
          m = Add (e, mask)
          s = Softmax (m)
          a = MatMul (s, w)
          b = Add (a, bias)
          y = Mul (b, anchors)
        }}""")
    assert sorted(GraphModule(model).parameter_names) == ["bias", "w"]


def test_a_table_behind_the_first_layer_is_trained():
    model = drawn(f"""
        {HEADER} g (float[N, 4, 4] x) => (float y) <float[4, 4] w, float[4, 4] table, float[4, 2] u> {{
          a = MatMul (x, w)
          t = Add (a, table)
          y = MatMul (t, u)
        }}""")
    assert sorted(GraphModule(model).parameter_names) == ["table", "u", "w"]


def test_weights_that_are_moved_before_they_are_read_are_trained():
    model = drawn(f"""
        {HEADER} g (float[N, 4] x) => (float y) <float[6, 4] w, int64[3] rows = {{0, 2, 4}}> {{
          p = Gather (w, rows)
          t = Transpose (p)
          y = MatMul (x, t)
        }}""")
    assert sorted(GraphModule(model).parameter_names) == ["w"]


def test_ones_and_zeros_that_an_exporter_wrote_are_not():
    model = drawn(f"""
        {HEADER} g (float[N, 4, 3] x) => (float y) <float[4, 4, 1] w, float[4] s = {{1, 1, 1, 1}}> {{
          a = Conv (x, w)
          o = Constant <value = float[4] {{1, 1, 1, 1}}> ()
          z = Constant <value = float[4] {{0, 0, 0, 0}}> ()
          n = InstanceNormalization (a, o, z)
          y = InstanceNormalization (n, s, z)
        }}""")
    assert sorted(GraphModule(model).parameter_names) == ["s", "w"]


def test_names_that_a_module_has_or_torch_refuses_are_written_otherwise():
    model = drawn(f"{HEADER} g (float[N, 2] x) => (float y) <float[2, 2] w, float[2] b> {{ y = Gemm (x, w, b) }}")
    for old, new in (("w", "training"), ("b", "layer.bias")):
        for tensor in model.graph.initializer:
            tensor.name = new if tensor.name == old else tensor.name
        model.graph.node[0].input[:] = [new if name == old else name for name in model.graph.node[0].input]
    module = GraphModule(model)
    assert module.parameter_names == {"training": "training_", "layer.bias": "layer/bias"}
    assert module.to_model().SerializeToString() == model.SerializeToString()


# ---- runs

MODEL = f"""
{HEADER}
g (float[N, 3] x) => (float[N, 2] y)
<float[3, 2] w = {{1, 2, 3, 4, 5, 6}}> {{
  a = MatMul (x, w)
  named = Relu (a)
  y = Neg (named)
}}
"""


def test_an_edit_replaces_a_tensor_on_its_way():
    module = GraphModule(onnx.parser.parse_model(MODEL))
    y = module(torch.ones(1, 3), edits={"named": lambda a: a * torch.tensor([1.0, 0.0])})[0]
    assert y.tolist() == [[-9.0, 0.0]]


def test_an_edit_of_an_input_counts():
    module = GraphModule(onnx.parser.parse_model(MODEL))
    assert module(torch.ones(1, 3), edits={"x": torch.zeros_like})[0].tolist() == [[0.0, 0.0]]


def test_an_edit_of_nothing_is_refused():
    with pytest.raises(UsageError, match="there is no tensor 'nowhere'"):
        GraphModule(onnx.parser.parse_model(MODEL))(torch.ones(1, 3), edits={"nowhere": torch.neg})


def test_the_number_of_inputs_is_checked():
    with pytest.raises(UsageError, match="give x"):
        GraphModule(onnx.parser.parse_model(MODEL))()


def test_an_operator_without_an_entry_is_named_with_its_node():
    model = onnx.parser.parse_model(MODEL.replace("Relu", "Unheard"))
    model.graph.node[1].name = "here"
    with pytest.raises(UsageError, match=r"operator Unheard .*\n.*'here'"):
        GraphModule(model)


def test_an_operator_that_no_output_needs_may_lack_one():
    model = onnx.parser.parse_model(MODEL.replace("y = Neg", "z = Unheard (a)\n y = Neg"))
    assert GraphModule(model)(torch.ones(1, 3))[0].tolist() == [[-9.0, -12.0]]


def test_sizes_are_those_of_the_run():
    """The batch goes through Shape, Gather and Concat into a Reshape, and through a table of positions."""
    model = drawn(f"""
        {HEADER} g (float[N, 4, 6] x) => (float y)
        <int64 zero = {{0}}, int64[1] first = {{0}}, int64[1] two = {{2}}, int64[1] rest = {{-1}}> {{
          s = Shape (x)
          n = Gather (s, zero)
          n1 = Unsqueeze (n, first)
          n2 = Mul (n1, two)
          t = Concat <axis = 0> (n2, rest)
          r = Reshape (x, t)
          o = Shape (r)
          c = ConstantOfShape (o)
          y = Add (r, c)
        }}""")
    module = GraphModule(model)
    assert [module(torch.ones(n, 4, 6))[0].shape for n in (1, 5)] == [(2, 12), (10, 12)]


def test_a_size_that_is_computed_from_data_works():
    model = drawn(f"""
        {HEADER} g (float[N, 3] x, int64[1] n) => (float y) <int64[1] one = {{1}}> {{
          k = Add (n, one)
          v, i = TopK (x, k)
          y = Relu (v)
        }}""")
    assert GraphModule(model)(torch.ones(2, 3), torch.tensor([1]))[0].shape == (2, 2)


def test_dropout_drops_in_training_alone():
    module = GraphModule(drawn(f"{HEADER} g (float[N, 100] x) => (float y) {{ y = Dropout (x) }}"))
    x = torch.ones(10, 100)
    assert torch.equal(module.eval()(x)[0], x)
    assert set(module.train()(x)[0].unique().tolist()) == {0.0, 2.0}


def test_copies_are_independent(network):
    module = GraphModule(network).train()
    twin = copy.deepcopy(module).eval()
    before = twin(torch.from_numpy(images()))[0]
    module(torch.from_numpy(images()))
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.zero_()
    assert module.training
    assert torch.equal(twin(torch.from_numpy(images()))[0], before)


def test_a_state_goes_from_one_module_to_another(network):
    first, second = GraphModule(network), GraphModule(resnet_cifar(8, seed=1))
    second.load_state_dict(first.state_dict())
    assert values(second.to_model()).keys() == values(network).keys()
    assert all(np.array_equal(v, values(network)[n]) for n, v in values(second.to_model()).items())


def test_torch_functional_call_reaches_the_weights(network):
    module = GraphModule(network).eval()
    zeros = {name: torch.zeros_like(p) for name, p in module.named_parameters()}
    assert not torch.func.functional_call(module, zeros, torch.from_numpy(images()))[0].any()


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_precision_models_run_and_keep_their_types(dtype):
    model = drawn(f"""
        <ir_version: 8, opset_import: ["": 17]> g ({dtype}[N, 3, 6, 6] x) => ({dtype} y)
        <{dtype}[4, 3, 3, 3] w, {dtype}[4] b> {{
          a = Conv (x, w, b)
          y = Relu (a)
        }}""")
    x = torch.randn(2, 3, 6, 6, generator=torch.Generator().manual_seed(0))
    module = GraphModule(model)
    half = module(x.to(getattr(torch, dtype)))[0]
    exact = module.float()(x.to(getattr(torch, dtype)).float())[0]
    assert half.dtype == getattr(torch, dtype)
    assert (half.float() - exact).abs().max() < 2e-2 * exact.abs().max()
    assert module.to_model().SerializeToString() == model.SerializeToString()


def test_numbers_that_follow_from_sizes_have_the_graphs_type():
    model = drawn(f"""
        {HEADER} g (float16[N, 4] x) => (float16 y, int32 n) <int64[1] last = {{1}}> {{
          s = Shape (x)
          d = Gather (s, last)
          n = Cast <to = 6> (d)
          f = Cast <to = 10> (d)
          r = Sqrt (f)
          y = Div (x, r)
        }}""")
    y, n = GraphModule(model)(torch.ones(2, 4, dtype=torch.float16))
    assert (y.dtype, n.dtype) == (torch.float16, torch.int32)
    assert y.eq(0.5).all()
    assert n.tolist() == [4]


def test_autocast_computes_in_bfloat16_and_trains_in_float32(network):
    module = GraphModule(network).eval()
    exact = module(torch.from_numpy(images()))[0]
    with torch.autocast("cpu", torch.bfloat16):
        rough = module(torch.from_numpy(images()))[0]
    rough.float().square().sum().backward()
    assert rough.dtype == torch.bfloat16
    assert (rough - exact).abs().max() < 0.05 * exact.abs().max()
    assert all(p.grad is not None and p.grad.dtype == torch.float32 for p in module.parameters())


@pytest.mark.parametrize(
    "body",
    [
        "a = Conv <pads = [1, 0, 0, 1], strides = [2, 1]> (x, w, b); y = Sigmoid (a) | float[2, 3, 2, 2] w, float[2] b",
        "a = ConvTranspose <strides = [2, 2], pads = [0, 1, 1, 0]> (x, w); y = Tanh (a) | float[3, 2, 2, 2] w",
        "y = AveragePool <kernel_shape = [2, 2], pads = [1, 0, 0, 0], ceil_mode = 1, strides = [2, 2]> (x)",
        'y = Resize <mode = "cubic", cubic_coeff_a = -0.5> (x, "", "", s) | int64[4] s = {2, 3, 5, 7}',
        "y = LayerNormalization (x, s, b) | float[4] s, float[4] b",
        "y = LRN <size = 3, alpha = 0.5> (x)",
        "a = Slice (x, i, j, k, k); y = ReduceL2 (a) | int64[1] i = {-1}, int64[1] j = {-9}, int64[1] k = {-2}",
        "a = ScatterND (x, i, u); y = Softmax <axis = 1> (a) | int64[1, 2] i = {1, 2}, float[1, 4, 4] u",
        (
            "r = Squeeze (t); o, h, c = LSTM <hidden_size = 3> (r, w, v); y = Add (o, h)"
            " | float[5, 2, 1, 4] t, float[1, 12, 4] w, float[1, 12, 3] v"
        ),
    ],
)
def test_gradients_are_those_of_finite_differences(body):
    lines, _, stored = body.partition("|")
    text = f"{HEADER} g (float[2, 3, 4, 4] x) => (float y) <{stored}> {{ {lines.replace('; ', chr(10))} }}"
    module = GraphModule(drawn(text)).double().eval()
    x = torch.randn(2, 3, 4, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0), requires_grad=True)
    parameters = dict(module.named_parameters())

    def run(x, *given):
        return torch.func.functional_call(module, dict(zip(parameters, given, strict=True)), x)[0]

    assert torch.autograd.gradcheck(run, (x, *parameters.values()), fast_mode=True)


@pytest.mark.slow
def test_compiling_makes_one_graph(network):
    module = GraphModule(network).eval()
    compiled = torch.compile(module, fullgraph=True, backend="eager")
    assert torch.equal(compiled(torch.from_numpy(images()))[0], module(torch.from_numpy(images()))[0])


def test_without_torch_the_error_says_what_to_install():
    script = "import sys; sys.modules['torch'] = None; import onnx_prune.runtime.torch"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert "UsageError" in done.stderr
    assert "pip install onnx-prune[torch]" in done.stderr
