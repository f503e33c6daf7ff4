"""`onnx-prune demo`: the bundled model, pruned to half of its MACs, with accuracy before and after."""

from __future__ import annotations

from ..models import digits_data, digits_model
from ..passes.selection.budget import Budget
from ..pipeline.prune import prune
from ..pipeline.write import Result
from ..runtime.progress import Stage


def run_demo(progress: Stage, *, measure: bool = True) -> Result:
    """The result, with top-1 on the held-out digits before and after."""
    test, calibration = digits_data()
    return prune(
        digits_model(),
        budget=Budget(macs=0.5),
        calibration=str(calibration),
        evaluate=str(test),
        progress=progress,
        measure=measure,
    )
