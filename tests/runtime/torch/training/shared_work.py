"""What processes of torchrun do together, each writing what it found: `torchrun ... shared_work.py FOLDER`."""

import pickle
import sys
from pathlib import Path

import onnx_prune
import torch
from onnx import numpy_helper
from onnx_prune import models
from onnx_prune.models import NetBuilder
from onnx_prune.passes.selection.criteria import make_criterion
from onnx_prune.passes.selection.ranking import Evidence, rank_groups
from onnx_prune.pipeline.job import Goal, prepare
from onnx_prune.pipeline.measure import sensitivities_of
from onnx_prune.pipeline.settings import Settings
from onnx_prune.runtime.data.inputs import model_inputs
from onnx_prune.runtime.data.open import open_data
from onnx_prune.runtime.measure.evaluate import accuracy
from onnx_prune.runtime.measure.metric import Evaluation
from onnx_prune.runtime.processes.together import together
from onnx_prune.runtime.progress import silent

TEST, CALIBRATION = (str(path) for path in models.digits_data())


def chosen_by_training(seed):
    """The plan and the weights of a small network by discrimination-aware pruning."""
    net = NetBuilder("tiny", (1, 8, 8))
    x = net.input
    for number in range(3):
        x = net.relu(net.conv(x, f"conv{number}", 12, 3), f"relu{number}")
    model = net.model(net.gemm(net.flatten(net.global_average_pool(x, "pool"), "flat"), "head", 10))
    given = {"preset": "dcp", "criterion": "dcp:losses=1,passes=1,at_once=4", "samples": 96, "measure": False}
    result = onnx_prune.prune(model, budget=0.5, calibration=CALIBRATION, seed=seed, **given)
    return result.plan.removed, [numpy_helper.to_array(t) for t in result.model.graph.initializer]


def found(rank):
    """Moments, sensitivities and accuracy; and what training has chosen, by other numbers drawn in each process."""
    settings = Settings(
        calibration=CALIBRATION, samples=288, criterion="l1", allocation="sensitivity", reconstruct="full"
    )
    job = prepare(models.digits_model(), settings, Goal(Evaluation(None)), None, silent)
    rankings = rank_groups(make_criterion("l1"), Evidence(job.run.analysis.groups))
    test = open_data(TEST, model_inputs(job.run.original))
    return {
        "moments": {name: [(m.rows, m.mean, m.second) for m in of] for name, of in job.moments.consumers.items()},
        "sensitivity": sensitivities_of(job.run, rankings, job.moments).values,
        "accuracy": accuracy(job.run.original, test, group=together()),
        "trained": chosen_by_training(rank),
    }


if __name__ == "__main__":
    torch.set_num_threads(1)
    group = together()
    Path(sys.argv[1], f"{group.count}.{group.rank}.pickle").write_bytes(pickle.dumps(found(group.rank)))
