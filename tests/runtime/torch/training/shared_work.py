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


def chain():
    net = NetBuilder("tiny", (1, 8, 8))
    x = net.input
    for number in range(3):
        x = net.relu(net.conv(x, f"conv{number}", 12, 3), f"relu{number}")
    return net.model(net.gemm(net.flatten(net.global_average_pool(x, "pool"), "flat"), "head", 10))


def vgg():
    """Pools between convolutions, BatchNormalization, and two fully connected layers behind a flattened map."""
    net = NetBuilder("vgg", (1, 8, 8))
    x = net.input
    for number in range(3):
        x = net.relu(net.conv(x, f"conv{number}", 12, 3, norm=f"norm{number}"), f"relu{number}")
        x = net.max_pool(x, f"pool{number}", 2) if number < 2 else x
    hidden = net.relu(net.gemm(net.flatten(x, "flat"), "hidden", 16, norm="norm3"), "relu3")
    return net.model(net.gemm(hidden, "head", 10))


def densenet():
    """Every layer reads what all before it have made: BatchNormalization, ReLU, convolution, concatenation."""
    net = NetBuilder("dense", (1, 8, 8))
    x = net.conv(net.input, "stem", 8, 3, bias=False)
    for number in range(3):
        layer = net.relu(net.batch_norm(x, f"norm{number}"), f"relu{number}")
        x = net.concat([x, net.conv(layer, f"conv{number}", 6, 3, bias=False)], f"concat{number}")
    x = net.relu(net.batch_norm(x, "last"), "rectified")
    return net.model(net.gemm(net.flatten(net.global_average_pool(x, "pool"), "flat"), "head", 10))


def chosen_by_training(model, seed):
    """The plan and the weights of a small network by discrimination-aware pruning."""
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
        "trained": {build.__name__: chosen_by_training(build(), rank) for build in (chain, vgg, densenet)},
    }


if __name__ == "__main__":
    torch.set_num_threads(1)
    group = together()
    Path(sys.argv[1], f"{group.count}.{group.rank}.pickle").write_bytes(pickle.dumps(found(group.rank)))
