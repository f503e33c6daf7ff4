"""Structured channel pruning of ONNX models: fewer channels, the same interface, proved equal.

result = onnx_prune.prune("resnet50.onnx", budget=onnx_prune.Budget(macs=0.5))
result.save("slim.onnx")
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .passes.errors import (
        AccuracyError,
        BudgetError,
        OnnxPruneError,
        ProofError,
        ReadError,
        UsageError,
    )
    from .passes.selection.budget import Budget
    from .passes.selection.plans.plan import Plan
    from .pipeline.comparison.evaluate import evaluate
    from .pipeline.prune import apply, inspect, prune, sensitivity
    from .pipeline.report import Report
    from .pipeline.settings import Settings
    from .pipeline.sweep import sweep
    from .pipeline.training.finetune import finetune
    from .pipeline.write import Result
    from .runtime.analysis import Analysis
    from .runtime.data.preprocess import Preprocessing

_HOMES = {
    "prune": "pipeline.prune",
    "inspect": "pipeline.prune",
    "sensitivity": "pipeline.prune",
    "apply": "pipeline.prune",
    "evaluate": "pipeline.comparison.evaluate",
    "finetune": "pipeline.training.finetune",
    "sweep": "pipeline.sweep",
    "Analysis": "runtime.analysis",
    "Result": "pipeline.write",
    "Settings": "pipeline.settings",
    "Budget": "passes.selection.budget",
    "Plan": "passes.selection.plans.plan",
    "Report": "pipeline.report",
    "Preprocessing": "runtime.data.preprocess",
    "OnnxPruneError": "passes.errors",
    "UsageError": "passes.errors",
    "ReadError": "passes.errors",
    "BudgetError": "passes.errors",
    "ProofError": "passes.errors",
    "AccuracyError": "passes.errors",
}
__all__ = [
    "AccuracyError",
    "Analysis",
    "Budget",
    "BudgetError",
    "OnnxPruneError",
    "Plan",
    "Preprocessing",
    "ProofError",
    "ReadError",
    "Report",
    "Result",
    "Settings",
    "UsageError",
    "apply",
    "evaluate",
    "finetune",
    "inspect",
    "prune",
    "sensitivity",
    "sweep",
]


def __getattr__(name: str) -> object:
    """Import what is asked for when it is asked for: the command line answers --help without numpy."""
    if name == "__version__":
        from importlib.metadata import version

        return version("onnx-prune")
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f".{_HOMES[name]}", __name__), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
