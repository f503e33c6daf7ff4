"""`onnx-prune demo`: the bundled model, pruned to half of its MACs, with accuracy before and after."""

from __future__ import annotations

import numpy as np
import onnx

from ..models import digits_data, digits_model
from ..passes.selection.budget import Budget
from ..pipeline.prune import prune
from ..pipeline.write import Result
from ..runtime.progress import Stage
from ..runtime.session import Runnable, open_session


def run_demo(progress: Stage, *, measure: bool = True) -> tuple[Result, tuple[float, float]]:
    """The result, and top-1 on the held-out digits before and after."""
    test, calibration = digits_data()
    result = prune(
        digits_model(), budget=Budget(macs=0.5), calibration=str(calibration), progress=progress, measure=measure
    )
    progress("evaluating")
    with np.load(test) as data:
        images, labels = data["input"], data["label"]
    return result, (_accuracy(onnx.load(digits_model()), images, labels), _accuracy(result.model, images, labels))


def _accuracy(model: Runnable, images: np.ndarray, labels: np.ndarray) -> float:
    session = open_session(model)
    (logits,) = session.run({session.inputs[0]: images}).values()
    return float((logits.argmax(1) == labels).mean())
