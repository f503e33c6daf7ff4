"""What processes of torchrun do together, each writing what it found: `torchrun ... shared_work.py FOLDER`."""

import pickle
import sys
from pathlib import Path

import torch
from onnx_prune import models
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


def found():
    """Moments, sensitivities and accuracy."""
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
    }


if __name__ == "__main__":
    torch.set_num_threads(1)
    group = together()
    Path(sys.argv[1], f"{group.count}.{group.rank}.pickle").write_bytes(pickle.dumps(found()))
