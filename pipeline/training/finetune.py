"""Fine-tuning, for users: the model before pruning teaches the pruned one, and labels help. Needs torch."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from ...passes.graph.model import ModelLike, load
from ...runtime.data.open import DataSource
from ...runtime.data.preprocess import Preprocessing
from ...runtime.device import Device
from ...runtime.progress import Stage, silent
from ..arguments import checked

if TYPE_CHECKING:
    from ...runtime.torch.training.recipe import Recipe
    from ...runtime.torch.training.run import Epoch, FineTuned


@checked
def finetune(  # noqa: PLR0913 - each argument is a flag of the command line
    model: ModelLike,
    train: DataSource,
    *,
    teacher: ModelLike | None = None,
    evaluation: DataSource | None = None,
    recipe: Recipe | None = None,
    preprocessing: Preprocessing | None = None,
    folder: str | os.PathLike[str] | None = None,
    resume: bool = False,
    device: Device = "auto",
    progress: Stage = silent,
    watch: Callable[[Epoch], None] = silent,
) -> FineTuned:
    """Train the weights of `model` further; the same graph comes back, as `.model`, with other values.

    Args:
        model: as for `prune`.
        train: data as for `prune`; labels help.
        teacher: the model before pruning, whose outputs are learned.
        evaluation: data to measure on after each epoch; they decide which epoch stays.
        recipe: a `Recipe`: epochs, rate and the like.
        preprocessing: of images.
        folder: where the state of the run is kept.
        resume: continue the run whose state is there.
        device: "auto", "cpu" or "cuda".
        progress: is told each stage, in words.
        watch: is told each epoch.

    Raises:
        UsageError: what is asked for makes no sense: torch is missing, or there are neither a teacher nor labels.
        AccuracyError: the training diverges.
    """
    from ...runtime.torch.training.finetune import finetune as train_weights
    from ...runtime.torch.training.run import Examples, Keeping, Watch

    return train_weights(
        load(model).source,
        Examples(train, evaluation, preprocessing, None if teacher is None else load(teacher).source),
        recipe,
        keeping=Keeping(None if folder is None else Path(folder), resume),
        device=device,
        watch=Watch(progress, watch),
    )
