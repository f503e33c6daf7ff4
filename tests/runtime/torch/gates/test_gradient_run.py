"""A whole run by a criterion on gradients: what it needs, and that it is worth something."""

from __future__ import annotations

import subprocess
import sys

import onnx_prune
import pytest
from onnx_prune.models import digits_data, digits_model
from onnx_prune.passes.errors import UsageError
from onnx_prune.runtime.data.inputs import model_inputs
from onnx_prune.runtime.data.open import open_data
from onnx_prune.runtime.measure.evaluate import accuracy

WITHOUT_TORCH = """
import sys
sys.modules["torch"] = None
sys.argv = ["onnx-prune", "{model}", "--criterion", "fisher", "--calibration", "{data}", "--no-latency", "-o", "{out}"]
from onnx_prune.tools.cli import main
main()
"""


def pruned(criterion, allocation="uniform", macs=0.5, **settings):
    given = {"calibration": digits_data()[1], "samples": 64, "measure": False, **settings}
    budget = onnx_prune.Budget(macs=macs)
    return onnx_prune.prune(digits_model(), budget=budget, criterion=criterion, allocation=allocation, **given)


def top1(model):
    return accuracy(model, open_data(str(digits_data()[0]), model_inputs(model))).top1


@pytest.mark.parametrize(("criterion", "allocation"), [("ccp", "uniform"), ("fisher", "global"), ("ccp-ac", "error")])
def test_accuracy_survives_half_of_the_macs(criterion, allocation):
    result = pruned(criterion, allocation)
    assert result.plan.criterion == criterion
    assert result.plan.reconstruct == "sequential"
    assert result.report.proof < 1e-5
    assert top1(result.model) > 0.97


def test_gradients_choose_better_than_chance_where_nothing_is_refitted():
    settings = {"reconstruct": "none", "samples": 256, "exclude": "conv1|layer2.0.conv2", "macs": 0.7}
    by_loss, by_chance = (top1(pruned(word, **settings).model) for word in ("ccp", "random"))
    assert by_loss > by_chance + 0.1


def test_without_data_the_error_says_what_to_give():
    with pytest.raises(UsageError, match="'ccp' needs gradients"):
        onnx_prune.prune(digits_model(), criterion="ccp", calibration="none")


def test_without_torch_the_error_says_what_to_install(tmp_path):
    code = WITHOUT_TORCH.format(model=digits_model(), data=digits_data()[1], out=tmp_path / "out.onnx")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "onnx-prune[torch]" in done.stderr
    assert not (tmp_path / "out.onnx").exists()
