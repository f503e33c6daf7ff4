"""How good a model is on data, for users."""

from __future__ import annotations

from dataclasses import dataclass

from ...passes.graph.model import ModelLike, load
from ...runtime.data.inputs import model_inputs
from ...runtime.data.open import DataSource, open_data
from ...runtime.data.preprocess import Preprocessing
from ...runtime.device import Device
from ...runtime.measure.evaluate import Accuracy, Divergence, accuracy, divergence, outputs
from ...runtime.measure.metric import Evaluation, MetricLike, make_metric
from ..arguments import checked


@dataclass(frozen=True, slots=True)
class Score:
    """What a metric says of a model; more is better."""

    metric: str
    value: float


@checked
def evaluate(  # noqa: PLR0913 - each argument is a flag of the command line
    model: ModelLike,
    data: DataSource,
    *,
    reference: ModelLike | None = None,
    metric: MetricLike | None = None,
    samples: int | None = None,
    preprocessing: Preprocessing | None = None,
    seed: int = 0,
    device: Device = "auto",
) -> Accuracy | Divergence | Score:
    """Top-1 and top-5 of `model` on labelled data; with a reference, how far its outputs are from that model's.

    data: a folder or zip of images in class folders, .npz, .npy, arrays or module:function; what the metric reads.
    metric: "miou", "map", a function and so on, see `prune`; agreement is with the reference. samples: so many are
    drawn (all by default), with the seed. Raises UsageError where labels are missing or do not fit, ReadError for what
    cannot be read.
    """
    proto = load(model).source
    if metric is not None:
        against = proto if reference is None else load(reference).source
        made = make_metric(metric, against, Evaluation(data, samples, preprocessing, seed, device))
        return Score(made.name, made.of(proto))
    opened = open_data(data, model_inputs(proto), preprocessing, samples=samples, seed=seed)
    if reference is None:
        return accuracy(proto, opened, device=device)
    return divergence(proto, outputs(load(reference).source, opened, device=device), opened, device=device)
