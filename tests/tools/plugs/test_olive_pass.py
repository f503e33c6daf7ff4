"""The pass for Olive: with Olive itself where it is installed, else against the interface that it has.

`pip install olive-ai requests` in an environment of its own has all that the first part needs.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
import json
import shutil
import subprocess
import sys
from types import ModuleType, SimpleNamespace

import onnx
import pytest
from onnx_prune import Plan, models

OLIVE = importlib.util.find_spec("olive") is not None
MODULE = "onnx_prune.tools.plugs.olive_pass"
_, CALIBRATION = map(str, models.digits_data())


class _Handler:
    def __init__(self, model_path, onnx_file_name=None):
        self.model_path = model_path if onnx_file_name is None else f"{model_path}/{onnx_file_name}"


def _olive(folder):
    """Modules with what the pass takes of Olive 0.13."""
    default = folder / "olive_config.json"
    default.write_text(json.dumps({"passes": {"OnnxConversion": {"module_path": "olive.passes.onnx.conversion"}}}))
    contents = {
        "olive": {},
        "olive.common": {},
        "olive.common.config_utils": {
            "ParamCategory": SimpleNamespace(NONE="none", PATH="path"),
            "validate_config": None,
        },
        "olive.data": {},
        "olive.data.config": {"DataConfig": type("DataConfig", (), {})},
        "olive.hardware": {"AcceleratorSpec": SimpleNamespace},
        "olive.model": {"ONNXModelHandler": _Handler},
        "olive.model.utils": {
            "resolve_onnx_path": lambda path: path if path.endswith(".onnx") else f"{path}/model.onnx"
        },
        "olive.package_config": {
            "OlivePackageConfig": SimpleNamespace(get_default_config_path=lambda: str(default)),
        },
        "olive.passes": {"Pass": type("Pass", (), {})},
        "olive.passes.pass_config": {
            "BasePassConfig": object,
            "PassConfigParam": SimpleNamespace,
        },
    }
    return {name: _module(name, parts) for name, parts in contents.items()}


def _module(name, parts):
    module = ModuleType(name)
    vars(module).update(parts, __path__=[])
    return module


@pytest.fixture
def olive_pass(tmp_path, monkeypatch):
    if not OLIVE:
        for name, module in _olive(tmp_path).items():
            monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.delitem(sys.modules, MODULE, raising=False)
    yield importlib.import_module(MODULE)
    sys.modules.pop(MODULE, None)


def configured(olive_pass, **given):
    """The pass with its defaults and what is given, as Olive makes it."""
    params = olive_pass.OnnxPrune._default_config(None)
    assert set(given) <= set(params)
    values = {name: param.default_value for name, param in params.items()} | given
    config = SimpleNamespace(model_dump=lambda: values)
    made = olive_pass.OnnxPrune.__new__(olive_pass.OnnxPrune)
    made.accelerator_spec = SimpleNamespace(accelerator_type="cpu")
    return made, config


def test_it_prunes_and_leaves_the_plan_beside_the_model(olive_pass, tmp_path):
    made, config = configured(olive_pass, macs="50%", calibration=CALIBRATION, measure=False)
    handler = made._run_for_config(_handler(olive_pass), config, str(tmp_path / "out"))
    slim = onnx.load(handler.model_path)
    onnx.checker.check_model(slim, full_check=True)
    plan = Plan.load(tmp_path / "out/model.plan.json")
    assert plan.macs[1] <= 0.5 * plan.macs[0]


def _handler(olive_pass):
    return olive_pass.ONNXModelHandler(model_path=str(models.digits_model()))


def test_every_option_is_an_argument_of_prune_with_its_default(olive_pass):
    import inspect

    from onnx_prune import prune

    arguments = inspect.signature(prune).parameters
    params = olive_pass.OnnxPrune._default_config(None)
    ours = {
        "macs",
        "params",
        "size",
        "latency",
        "channels",
        "mean",
        "std",
        "resize",
        "crop",
        "scale",
        "layout",
        "data_config",
    }
    assert set(params) - set(arguments) == ours
    for name in set(params) & set(arguments):
        assert params[name].default_value == arguments[name].default, name
    left_out = set(arguments) - set(params)
    assert left_out == {"model", "budget", "preprocessing", "save_moments", "device", "progress"}


def test_its_place_is_in_the_packages_and_the_entry_point(olive_pass):
    known = olive_pass.packages()["passes"]
    assert known["OnnxPrune"]["module_path"] == f"{MODULE}.OnnxPrune"
    assert len(known) > 1
    (point,) = importlib.metadata.entry_points(group="olive.passes", name="OnnxPrune")
    assert point.load().__name__ == "OnnxPrune"


@pytest.mark.skipif(not OLIVE, reason="Olive is not installed: pip install olive-ai requests")
def test_olive_runs_it_in_a_workflow(tmp_path):
    shutil.copy(models.digits_model(), tmp_path / "digits.onnx")
    packages = subprocess.run([sys.executable, "-m", MODULE], capture_output=True, check=True).stdout
    (tmp_path / "packages.json").write_bytes(packages)
    workflow = {
        "input_model": {"type": "OnnxModel", "model_path": "digits.onnx"},
        "passes": {
            "prune": {"type": "OnnxPrune", "macs": "50%", "calibration": CALIBRATION, "measure": False},
            "quantize": {"type": "OnnxDynamicQuantization"},
        },
        "output_dir": "out",
        "evaluate_input_model": False,
    }
    (tmp_path / "workflow.json").write_text(json.dumps(workflow))
    command = [
        "-m",
        "olive",
        "run",
        "--config",
        "workflow.json",
        "--package-config",
        "packages.json",
        "--disable_telemetry",
    ]
    subprocess.run([sys.executable, *command], cwd=tmp_path, check=True, timeout=250)
    written = onnx.load(tmp_path / "out/model.onnx")
    assert "DynamicQuantizeLinear" in {node.op_type for node in written.graph.node}
    assert list(tmp_path.rglob("*.plan.json"))
