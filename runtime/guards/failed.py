"""What ONNX Runtime says of a run that failed, as an error of ours."""

from __future__ import annotations

import re
from collections.abc import Mapping

import numpy as np

from ...passes.errors import BoundError, ReadError

_NO_MEMORY = re.compile("allocate memory|bad_alloc|bad allocation")
_SCARCE = "on a machine with more memory"
_GROWS = "a part of it: that is far more than its weights and input account for, a loop or a size in it may grow"


def run_error(error: Exception, name: str, feeds: Mapping[str, np.ndarray], limit: int | None) -> ReadError:
    """The error to raise for a failed run of the model `name`.

    limit: bytes that the run was allowed where that is less than what the machine had; else None.
    """
    shapes = ", ".join(f"{n} {value.dtype}{list(value.shape)}" for n, value in feeds.items()) or "no input"
    if isinstance(error, MemoryError) or _NO_MEMORY.search(str(error)):
        scarce = limit is None
        return BoundError(
            f"one run of the model takes more {'memory than there is' if scarce else f'than {limit / 2**30:.3g} GiB'}",
            where=f"{name}, on {shapes}: {first_words(error) or 'MemoryError'}",
            fix=f"prune it for a smaller input (--size-of), or {_SCARCE if scarce else _GROWS}",
            shapes={n: value.shape for n, value in feeds.items()},
        )
    return ReadError(
        f"ONNX Runtime cannot run the model: {first_words(error)}",
        where=f"{name}, on {shapes}",
        fix="check that the inputs' names, types and sizes are what the model expects",
    )


def first_words(error: Exception) -> str:
    """ONNX Runtime's message, on one line, without its codes and its source paths."""
    text = re.sub(r"\[ONNXRuntimeError\] : \d+ : [A-Z_]+ : |\S+\.(?:cc|h):\d+ ", "", str(error))
    return " ".join(text.split())[:400]
