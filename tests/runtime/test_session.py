"""Opening and running: names, devices, errors, where the weights go, and silence."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper, parser
from onnx_prune.passes.errors import ReadError, UsageError
from onnx_prune.passes.graph.spill import spill, weight_bytes, without_weights
from onnx_prune.runtime import device as device_module
from onnx_prune.runtime import session as session_module
from onnx_prune.runtime.guards import bounds
from onnx_prune.runtime.session import open_session

TWO_OUTPUTS = """
<ir_version: 8, opset_import: ["" : 17]>
g (float[N, 3] x, float[N, 3] y) => (float[N, 3] total, float[N, 3] product)
{ total = Add(x, y)  product = Mul(x, y) }
"""


def weighted(values: np.ndarray) -> onnx.ModelProto:
    """y = x @ values."""
    rows, columns = values.shape
    text = f"""
    <ir_version: 8, opset_import: ["" : 17]>
    g (float[N, {rows}] x) => (float[N, {columns}] y) {{ y = MatMul(x, W) }}
    """
    model = parser.parse_model(text)
    model.graph.initializer.append(numpy_helper.from_array(values.astype(np.float32), "W"))
    return model


@pytest.fixture
def matrix() -> np.ndarray:
    return np.random.default_rng(0).standard_normal((32, 16)).astype(np.float32)


def test_a_run_returns_the_outputs_by_name():
    session = open_session(parser.parse_model(TWO_OUTPUTS))
    x = np.full((2, 3), 3, np.float32)
    result = session.run({"x": x, "y": 2 * x})
    assert (session.inputs, session.outputs) == (("x", "y"), ("total", "product"))
    assert list(result) == ["total", "product"]
    assert (result["total"] == 9).all()
    assert (result["product"] == 18).all()


def test_only_the_outputs_asked_for_are_returned():
    session = open_session(parser.parse_model(TWO_OUTPUTS))
    x = np.ones((1, 3), np.float32)
    assert list(session.run({"x": x, "y": x}, ["product"])) == ["product"]
    assert session.run({"x": x, "y": x}, []) == {}


def test_a_path_opens_as_the_model_does(tmp_path, matrix):
    onnx.save(weighted(matrix), tmp_path / "model.onnx")
    for path in (tmp_path / "model.onnx", str(tmp_path / "model.onnx")):
        assert open_session(path).run({"x": np.eye(32, dtype=np.float32)})["y"] == pytest.approx(matrix, abs=1e-6)


def test_weights_over_the_limit_go_through_a_file_and_compute_the_same(monkeypatch, matrix, tmp_path):
    monkeypatch.setattr(session_module, "SPILL_BYTES", 1)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    model = weighted(matrix)
    before = model.SerializeToString()
    session = open_session(model, optimise=False)
    assert session.run({"x": np.eye(32, dtype=np.float32)})["y"] == pytest.approx(matrix, abs=1e-6)
    assert model.SerializeToString() == before
    assert list(tmp_path.iterdir()) == []


def test_a_spilled_model_keeps_no_weights_and_reads_back_equal(tmp_path, matrix):
    model = weighted(matrix)
    model.metadata_props.add(key="who", value="us")
    light = spill(model, tmp_path)
    assert weight_bytes(model) == matrix.nbytes
    assert weight_bytes(light) == 0
    assert light.ByteSize() < 400
    onnx.load_external_data_for_model(light, str(tmp_path))
    for tensor in light.graph.initializer:
        tensor.ClearField("external_data")
        tensor.ClearField("data_location")
    for tensor in model.graph.initializer:
        tensor.ClearField("data_location")
    assert light == model


def test_a_tensor_not_kept_as_raw_bytes_is_spilled_too(tmp_path):
    model = weighted(np.zeros((32, 16)))
    values = np.arange(512, dtype=np.float32)
    model.graph.initializer[0].CopyFrom(helper.make_tensor("W", TensorProto.FLOAT, [32, 16], values))
    assert not model.graph.initializer[0].raw_data
    light = spill(model, tmp_path)
    onnx.load_external_data_for_model(light, str(tmp_path))
    assert (numpy_helper.to_array(light.graph.initializer[0]).ravel() == values).all()


@pytest.mark.parametrize("limit", [1, 1 << 30])
def test_external_data_are_found_in_their_folder(monkeypatch, tmp_path, matrix, limit):
    monkeypatch.setattr(session_module, "SPILL_BYTES", limit)
    onnx.save(weighted(matrix), tmp_path / "m.onnx", save_as_external_data=True, size_threshold=0, location="w.bin")
    model = onnx.load(tmp_path / "m.onnx", load_external_data=False)
    model.graph.initializer.append(numpy_helper.from_array(np.zeros(512, np.float32), "unused"))
    session = open_session(model, base_dir=tmp_path)
    assert session.run({"x": np.eye(32, dtype=np.float32)})["y"] == pytest.approx(matrix, abs=1e-6)


def test_without_weights_keeps_small_tensors_and_every_shape():
    model = weighted(np.ones((32, 16)))
    model.graph.initializer.append(numpy_helper.from_array(np.array([1, 16]), "shape"))
    light = without_weights(model).graph.initializer
    assert [list(t.dims) for t in light] == [[32, 16], [2]]
    assert not light[0].raw_data
    assert (numpy_helper.to_array(light[1]) == [1, 16]).all()


@pytest.mark.parametrize("limit", [1, 1 << 30])
@pytest.mark.parametrize("saved", [False, True])
def test_additions_join_a_model_that_stays_as_it_is(monkeypatch, tmp_path, matrix, limit, saved):
    monkeypatch.setattr(session_module, "SPILL_BYTES", limit)
    model = weighted(matrix)
    before = model.SerializeToString()
    onnx.save(model, tmp_path / "model.onnx")
    added = helper.make_graph(
        [helper.make_node("Add", ["y", "one"], ["more"])],
        "",
        [],
        [helper.make_tensor_value_info("more", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(np.float32(1), "one")],
    )
    session = open_session(tmp_path / "model.onnx" if saved else model, additions=onnx.ModelProto(graph=added))
    result = session.run({"x": np.eye(32, dtype=np.float32)})
    assert session.outputs == ("y", "more")
    assert (result["more"] == result["y"] + 1).all()
    assert model.SerializeToString() == before


def test_what_is_added_runs_as_soon_as_it_can_so_that_nothing_is_kept_for_it(tmp_path):
    chain = "  ".join(f"t{i + 1} = Neg(t{i})" for i in range(5))
    text = f'<ir_version: 8, opset_import: ["" : 17]> g (float[4] t0) => (float[4] t5) {{ {chain} }}'
    nodes = [helper.make_node("Abs", [f"t{i}"], [f"a{i}"], f"a{i}") for i in range(1, 5)]
    outputs = [helper.make_tensor_value_info(f"a{i}", TensorProto.FLOAT, None) for i in range(1, 5)]
    added = onnx.ModelProto(graph=helper.make_graph(nodes, "", [], outputs))
    session = open_session(parser.parse_model(text), optimise=False, additions=added, record=tmp_path)
    assert session.outputs == ("t5", "a1", "a2", "a3", "a4")
    session.run({"t0": np.ones(4, np.float32)})
    events = json.loads(session.end_record().read_text(encoding="utf-8"))
    ran = [event["args"]["op_name"] for event in events if event["name"].endswith("_kernel_time")]
    assert ran == ["Neg", *["Abs", "Neg"] * 4]


def test_what_an_unoptimised_run_returns_does_not_hold_the_memory_of_its_session():
    session = open_session(parser.parse_model(TWO_OUTPUTS), optimise=False)
    result = session.run({name: np.ones((1, 3), np.float32) for name in session.inputs})
    assert all(array.base is None for array in result.values())


def test_bfloat16_goes_in_and_comes_out():
    text = '<ir_version: 8, opset_import: ["" : 17]> g (bfloat16[N, 2] x) => (bfloat16[N, 2] y) { y = Identity(x) }'
    bfloat16 = helper.tensor_dtype_to_np_dtype(TensorProto.BFLOAT16)
    session = open_session(parser.parse_model(text))
    x = np.array([[1.5, -2]], bfloat16)
    result = session.run({"x": x})["y"]
    assert result.dtype == bfloat16
    assert (result == x).all()
    assert session.run({"x": x[:0]})["y"].shape == (0, 2)


def test_a_model_that_cannot_be_opened_is_a_read_error(tmp_path):
    unknown = parser.parse_model(TWO_OUTPUTS.replace("Add", "Bogus"))
    with pytest.raises(ReadError, match="Bogus") as caught:
        open_session(unknown)
    assert caught.value.exit_code == 3
    (tmp_path / "junk.onnx").write_bytes(b"junk")
    with pytest.raises(ReadError, match=r"where: .*junk"):
        open_session(tmp_path / "junk.onnx")
    with pytest.raises(ReadError, match="fix: "):
        open_session(tmp_path / "absent.onnx")
    with pytest.raises(ReadError, match="absent"):
        open_session(tmp_path / "absent.onnx", additions=onnx.ModelProto())


@pytest.mark.parametrize(
    "feeds", [{}, {"x": np.ones((1, 3), np.float32), "y": np.ones((1, 4), np.float32)}, {"x": np.ones((1, 3))}]
)
def test_input_that_does_not_fit_is_a_read_error(feeds):
    session = open_session(parser.parse_model(TWO_OUTPUTS))
    with pytest.raises(ReadError, match="cannot run the model"):
        session.run(feeds)


def test_an_unknown_device_is_a_usage_error():
    with pytest.raises(UsageError, match="there is no device 'tpu'"):
        open_session(parser.parse_model(TWO_OUTPUTS), device="tpu")


def test_cuda_where_there_is_none_is_a_usage_error(monkeypatch):
    monkeypatch.setattr(device_module, "cuda_available", lambda: False)
    with pytest.raises(UsageError, match="CUDA"):
        open_session(parser.parse_model(TWO_OUTPUTS), device="cuda")
    assert open_session(parser.parse_model(TWO_OUTPUTS), device="auto").device == "cpu"


@pytest.mark.gpu
def test_auto_takes_cuda_where_it_works():
    assert open_session(parser.parse_model(TWO_OUTPUTS)).device == "cuda"


def errors_printed(severity: int) -> str:
    """Standard error of a process that asks for CUDA without a driver and fails to run a model."""
    script = f"""
import numpy as np
from onnx import parser
from onnx_prune.passes.errors import ReadError
from onnx_prune.runtime import device, session
device.FATAL = session.FATAL = {severity}
device._has_cuda_device = lambda: True
device.cuda_available()
opened = session.open_session(parser.parse_model('''{TWO_OUTPUTS}'''))
try:
    opened.run({{"x": np.ones((2, 3), np.float32), "y": np.ones((4, 3), np.float32)}})
except ReadError:
    print("failed")
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == "failed\n"
    return done.stderr


def test_a_failing_run_and_a_missing_gpu_print_nothing():
    assert errors_printed(device_module.FATAL) == ""


def test_what_is_printed_is_seen():
    assert "Attempting to broadcast" in errors_printed(severity=2)


def test_a_loop_without_end_is_ended(monkeypatch):
    """2^62 rounds, of which one run waits for none."""
    monkeypatch.setattr(bounds, "LONGEST_RUN", 0.5)
    body = helper.make_graph(
        [helper.make_node("Identity", ["c"], ["more"]), helper.make_node("Add", ["v", "v"], ["w"])],
        "body",
        [
            helper.make_tensor_value_info("i", TensorProto.INT64, []),
            helper.make_tensor_value_info("c", TensorProto.BOOL, []),
            helper.make_tensor_value_info("v", TensorProto.FLOAT, [1]),
        ],
        [
            helper.make_tensor_value_info("more", TensorProto.BOOL, []),
            helper.make_tensor_value_info("w", TensorProto.FLOAT, [1]),
        ],
    )
    constants = [numpy_helper.from_array(np.int64(2**62), "n"), numpy_helper.from_array(np.array(True), "t")]
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, [1]) for name in "xy")
    graph = helper.make_graph([helper.make_node("Loop", ["n", "t", "x"], ["y"], body=body)], "g", [x], [y], constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    with pytest.raises(ReadError, match=r"takes more than 0\.5 s"):
        open_session(model, device="cpu").run({"x": np.ones(1, np.float32)})


def test_telemetry_is_off_unless_the_user_says_so():
    ask = "import os, onnx_prune.runtime.session; print(os.environ['ORT_DISABLE_TELEMETRY'])"
    free = {name: value for name, value in os.environ.items() if name != "ORT_DISABLE_TELEMETRY"}
    for given, expected in (({}, "1"), ({"ORT_DISABLE_TELEMETRY": "0"}, "0")):
        done = subprocess.run([sys.executable, "-c", ask], capture_output=True, text=True, check=True, env=free | given)
        assert done.stdout.strip() == expected


def in_a_process(code, folder, *flags):
    """Run code in this folder, which comes first on the path."""
    path = os.pathsep.join([str(folder), *filter(None, sys.path)])
    ran = subprocess.run(
        [sys.executable, *flags, "-c", code],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=False,
    )
    return ran.returncode, ran.stderr


PRUNE = "import sys; from onnx_prune.tools import cli; sys.argv = ['onnx-prune', 'demo']; cli.main()"


def test_without_onnx_runtime_the_first_run_says_which_to_install(tmp_path):
    code = f"import sys; sys.modules['onnxruntime'] = None; {PRUNE}"
    status, said = in_a_process(code, tmp_path)
    assert status == 2
    assert "ONNX Runtime is not installed" in said
    assert "onnx-prune[cpu]" in said
    assert "onnx-prune[gpu]" in said


def test_what_an_uninstalled_twin_has_left_of_onnx_runtime_is_said(tmp_path):
    (tmp_path / "onnxruntime").mkdir()
    (tmp_path / "onnxruntime" / "__init__.py").touch()
    status, said = in_a_process(PRUNE, tmp_path)
    assert status == 2
    assert "ONNX Runtime is not whole" in said
    assert "pip install onnxruntime" in said


def test_both_builds_of_onnx_runtime_side_by_side_are_warned_of_once(tmp_path):
    for name in ("onnxruntime", "onnxruntime_gpu"):
        folder = tmp_path / f"{name}-1.99.dist-info"
        folder.mkdir()
        (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name.replace('_', '-')}\nVersion: 1.99\n")
    status, said = in_a_process(PRUNE, tmp_path)
    assert status == 0, said
    assert said.count("onnxruntime and onnxruntime-gpu are both installed") == 1
    assert "keep onnxruntime alone: pip uninstall -y onnxruntime onnxruntime-gpu && pip install onnxruntime" in said
    assert "device.py" not in said


def test_one_build_of_onnx_runtime_is_not_warned_of(tmp_path):
    code = "from onnx_prune.runtime.device import require_onnxruntime as required; required()"
    status, said = in_a_process(code, tmp_path, "-Werror")
    assert status == 0, said
