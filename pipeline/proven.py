"""A cut is proved, or refused; what nothing shows is kept whole."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import TypeVar

import numpy as np
import onnx

from ..passes.algebra.moments_file import spoilt_moments
from ..passes.errors import UnseenError
from ..runtime.analysis import with_pins
from ..runtime.proof.compare import Proof
from ..runtime.proof.prove import prove_cut
from ..runtime.soundness import check_anything_free
from .run import Run

_SAMPLES = 4  # of the data, tried where random input does not show all

Attempt = TypeVar("Attempt")


def proven(run: Run, removed: np.ndarray, model: onnx.ModelProto) -> Proof:
    """The proof of a cut model that is not refitted; removed: one bool a label.

    Raises ProofError where it is not what it must be, UnseenError where nothing shows whether it is.
    """
    run.progress("proving")
    proof = prove_cut(run.analysis.groups, removed, model, run.analysis.trial, run.settings.device, _more(run))
    for group, node in proof.unseen.items():
        raise UnseenError(
            f"nothing shows whether the cut of '{group}' is right: on no input that was tried does what goes into "
            f"{node} and comes out of it hold finite numbers that vary",
            where=f"{run.analysis.name}: {len(proof.unseen)} of the plan's groups",
            fix="take these groups out of the plan; onnx-prune MODEL --calibration DATA tries the data as well",
            nodes=proof.unseen,
        )
    return proof


def _more(run: Run) -> Iterator[Mapping[str, np.ndarray]]:
    """A few of the samples, each in the size of one run."""
    if run.data is not None:
        for batch in itertools.islice(run.data, 1):
            size = len(next(iter(run.analysis.trial.values())))
            for start in range(0, min(batch.size, _SAMPLES * size), size):
                yield {name: array[start : start + size] for name, array in batch.feeds.items()}


def keeping_unseen(run: Run, attempt: Callable[[Run], Attempt]) -> Attempt:
    """What the attempt makes; groups of which its proof sees nothing are pinned, and it starts anew.

    Raises ReadError where moments from a file are those of no data, which only shows when they are solved for.
    """
    try:
        return attempt(run)
    except np.linalg.LinAlgError as error:
        if run.settings.moments is None:
            raise
        raise spoilt_moments(run.settings.moments, error) from error
    except UnseenError as error:
        nodes: Mapping[str, str] = error.values["nodes"]  # type: ignore[assignment]
    pinned = replace(run, analysis=with_pins(run.analysis, nodes))
    check_anything_free(pinned.analysis.groups)
    return keeping_unseen(pinned, attempt)
