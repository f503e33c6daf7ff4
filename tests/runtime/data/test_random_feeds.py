"""Random input: which inputs, which sizes, which types, and that the model runs on it."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper, parser
from onnx_prune.passes.errors import ReadError
from onnx_prune.runtime.data.random_feeds import runnable_feeds, sample_feeds
from onnx_prune.runtime.session import open_session


def model_of(inputs: str, body: str = "out = Identity(x)", output: str = "float[N] out") -> onnx.ModelProto:
    return parser.parse_model(f'<ir_version: 8, opset_import: ["" : 17]> g ({inputs}) => ({output}) {{ {body} }}')


def sizes_of(inputs: str, **options) -> tuple[int, ...]:
    return sample_feeds(model_of(inputs), **options)["x"].shape


def test_free_sizes_are_one_image_of_224_unless_told_otherwise():
    assert sizes_of("float[N, 3, height, width] x") == (1, 3, 224, 224)
    assert sizes_of("float[N, 3, height, width] x", batch=4, extent=32) == (4, 3, 32, 32)
    assert sizes_of("float[N, 3, height, width] x", sizes={"width": 10, "N": 7}) == (7, 3, 224, 10)


def test_a_fixed_size_stays():
    assert sizes_of("float[2, 3, 8, 8] x", batch=5, sizes={"N": 9}) == (2, 3, 8, 8)


def test_unnamed_and_scalar_and_vector_inputs_have_sizes():
    assert sizes_of("float[?, 3, ?, ?] x") == (1, 3, 224, 224)
    assert sizes_of("float x") == ()
    assert sizes_of("float[length] x", extent=5) == (5,)
    assert sizes_of("float[batch_size] x", batch=6) == (6,)


def test_one_name_has_one_size_in_every_input():
    feeds = sample_feeds(model_of("float[rows, 4] x, float[4, rows] y"), batch=3)
    assert [array.shape for array in feeds.values()] == [(3, 4), (4, 3)]


def test_free_channels_are_what_the_convolution_wants():
    model = model_of("float[?, ?, ?, ?] x", "out = Conv<group=2>(x, W)", "float[?, ?, ?, ?] out")
    model.graph.initializer.append(numpy_helper.from_array(np.ones((4, 6, 3, 3), np.float32), "W"))
    assert sample_feeds(model, extent=8)["x"].shape == (1, 12, 8, 8)


def test_an_initializer_that_is_listed_as_an_input_is_left_out():
    model = model_of("float[N, 2] x, float[2] W", "out = Add(x, W)")
    model.graph.initializer.append(numpy_helper.from_array(np.ones(2, np.float32), "W"))
    assert list(sample_feeds(model)) == ["x"]


@pytest.mark.parametrize(
    "kind", ["float", "double", "float16", "bfloat16", "int8", "int32", "int64", "uint8", "uint16", "bool"]
)
def test_every_type_has_values_that_run(kind):
    model = model_of(f"{kind}[N, 50] x", output=f"{kind}[N, 50] out")
    feeds = sample_feeds(model)
    assert feeds["x"].dtype == helper.tensor_dtype_to_np_dtype(getattr(TensorProto, kind.upper()))
    assert len(np.unique(feeds["x"].astype(np.float64))) > 1
    assert (open_session(model, device="cpu").run(feeds)["out"] == feeds["x"]).all()


def test_integers_may_serve_as_indices_and_bytes_as_images():
    feeds = sample_feeds(model_of("int64[N, 400] ids, uint8[N, 400] image"))
    assert set(feeds["ids"].ravel()) == {0, 1}
    assert feeds["image"].max() > 200


def test_the_seed_and_the_name_say_the_values():
    model = model_of("float[N, 8] x, float[N, 8] y")
    first, second = sample_feeds(model, seed=1), sample_feeds(model, seed=1)
    assert (first["x"] == second["x"]).all()
    assert not (first["x"] == first["y"]).any()
    assert not (first["x"] == sample_feeds(model, seed=2)["x"]).any()


def test_a_type_without_random_values_is_refused_or_left_out():
    model = model_of("seq(float[N]) x, float[N] z")
    with pytest.raises(ReadError, match="input 'x': a sequence"):
        sample_feeds(model)
    assert list(sample_feeds(model, some=True)) == ["z"]


def test_strings_are_those_of_the_graph():
    model = model_of("string[1, 3] x")
    assert sample_feeds(model)["x"].tolist() == [["0", "1", "2"]]
    model.graph.node.append(helper.make_node("LabelEncoder", ["x"], ["i"], keys_strings=["left", "right"]))
    assert sample_feeds(model)["x"].tolist() == [["left", "right", "left"]]


def test_an_input_without_a_shape_is_refused():
    model = model_of("float[N] x")
    model.graph.input[0].type.tensor_type.ClearField("shape")
    with pytest.raises(ReadError, match="has no shape"):
        sample_feeds(model)


def test_sizes_are_tried_until_the_model_runs():
    """It runs on a batch of 2 and sides of 32 only: the reshape says so."""
    body = "s = Constant<value_ints=[2, 1024]>()  f = Reshape(x, s)  out = Identity(f)"
    model = model_of("float[N, 1, h, w] x", body, "float[?, ?] out")
    assert runnable_feeds(model)["x"].shape == (2, 1, 32, 32)
    with pytest.raises(ReadError, match="no input was found"):
        runnable_feeds(model, batch=3)


def test_a_model_may_be_a_path(tmp_path):
    onnx.save(model_of("float[N, 3, h, w] x"), tmp_path / "model.onnx")
    assert runnable_feeds(tmp_path / "model.onnx")["x"].shape == (1, 3, 64, 64)
    with pytest.raises(ReadError, match="cannot be read"):
        sample_feeds(tmp_path / "absent.onnx")


@pytest.mark.shared
@pytest.mark.parametrize("name", ["ppocrv3-det", "ultraface-rfb-320", "yunet-n-dynamic"])
def test_real_models_run_on_what_is_found(shared, name):
    path = shared / "real" / f"{name}.onnx"
    assert open_session(path, device="cpu").run(runnable_feeds(path, device="cpu"))
