"""Structured channel pruning of ONNX models: fewer channels, the same interface, proved equal.

result = onnx_prune.prune("resnet50.onnx", budget=onnx_prune.Budget(macs=0.5))
result.save("slim.onnx")
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .passes.budget import Budget
    from .passes.errors import (
        AccuracyError,
        BudgetError,
        OnnxPruneError,
        ProofError,
        ReadError,
        UsageError,
    )
    from .passes.plan import Plan
    from .passes.report import Report
    from .pipeline import Analysis, Result, Settings, apply, inspect, prune, sensitivity
    from .runtime.preprocess import Preprocessing

_HOMES = {
    "prune": "pipeline",
    "inspect": "pipeline",
    "sensitivity": "pipeline",
    "apply": "pipeline",
    "Analysis": "pipeline",
    "Result": "pipeline",
    "Settings": "pipeline",
    "Budget": "passes.budget",
    "Plan": "passes.plan",
    "Report": "passes.report",
    "Preprocessing": "runtime.preprocess",
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
    "inspect",
    "prune",
    "sensitivity",
]


def __getattr__(name: str) -> object:
    """Import what is asked for when it is asked for: the command line answers --help without numpy."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f".{_HOMES[name]}", __name__), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
