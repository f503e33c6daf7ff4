"""Other inputs for a proof: of another batch or size, and of other numbers for what the first ones do not show."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import onnx

from ...passes.graph.model import Graph
from ...passes.graph.shapes import input_shapes
from ..data.inputs import numeric_inputs
from ..data.random_feeds import known_words
from ..data.synthetic import reads_images, synthetic_data
from ..device import Device
from ..trial import runs_on
from .inner import Feeds

_SIZES = (0.5, 1.5, 2.0)  # times the free sizes; the first on which the model runs
# Seed, standard deviation: large numbers first, which get over biases and thresholds.
_DRAWS = ((1, 30.0), (2, 0.1), (3, 3.0), (4, 1.0), (5, 1e3), (6, 30.0), (7, 1e3))


def further(runs: Sequence[Feeds], model: onnx.ModelProto, more: Iterable[Feeds]) -> Iterator[Sequence[Feeds]]:
    """What is given, large numbers, images, small and very large numbers: each in the sizes of the runs.

    more: input for single runs, of which a few are taken.
    """
    for given in more:
        if all(given[name].shape == array.shape for name, array in runs[0].items()):
            yield [given]
    runs = [*runs, runs[0]] if len(runs) == 1 else runs  # a number alone cannot vary
    words = known_words(model.graph)
    draws = iter(
        [redrawn(f, 10 * seed + i, std) | _others(f, 10 * seed + i, words) for i, f in enumerate(runs)]
        for seed, std in _DRAWS
    )
    yield next(draws)
    inputs = numeric_inputs(model)
    if reads_images(inputs, runs[0]):
        yield [synthetic_data(inputs, runs[0], None, len(runs[0][inputs[0].name]), seed=1).example()]
    yield from draws


def positive(feeds: Feeds) -> dict[str, np.ndarray]:
    """The same numbers without their signs."""
    return {name: np.asarray(np.abs(array)) if array.dtype.kind == "f" else array for name, array in feeds.items()}


def redrawn(feeds: Feeds, seed: int, amplitude: float) -> dict[str, np.ndarray]:
    """Other random floats of the same shapes; integers, which may be indices, stay."""
    rng = np.random.default_rng(seed)
    return {
        name: np.asarray(amplitude * rng.standard_normal(array.shape), array.dtype)
        if array.dtype.kind == "f"
        else array
        for name, array in feeds.items()
    }


def _others(feeds: Feeds, seed: int, words: Sequence[str]) -> dict[str, np.ndarray]:
    """Other integers, truth values and strings of the same shapes: ids and masks show nothing where they never change.

    Integers in another order, 0 and 1 drawn anew: each is one that was there, or that random input may be.
    """
    rng = np.random.default_rng(seed)
    found = {}
    for name, array in feeds.items():
        if array.dtype.kind == "b" or (array.dtype.kind in "iu" and np.isin(array, (0, 1)).all()):
            found[name] = np.asarray(rng.integers(0, 2, array.shape), array.dtype)
        elif array.dtype.kind in "iu":
            found[name] = rng.permutation(array.ravel()).reshape(array.shape)
        elif array.dtype.kind == "O":
            found[name] = np.asarray(rng.choice(np.array(words, object), array.shape), object)
    return found


def second_batch(graph: Graph, feeds: Feeds) -> list[Feeds]:
    """Where the batch is free, one more input of another batch size: nothing may be wired to the first one."""
    shapes = input_shapes(graph)
    if not shapes or any(not dims or isinstance(dims[0], int) for dims in shapes.values()):
        return []
    rng = np.random.default_rng(1)
    doubled = {}
    for name, array in feeds.items():
        fresh = rng.standard_normal(array.shape).astype(array.dtype) if array.dtype.kind == "f" else array
        doubled[name] = np.concatenate([array, fresh])
    return [doubled]


def other_size(graph: Graph, model: onnx.ModelProto, feeds: Feeds, device: Device) -> list[Feeds]:
    """Where more than the batch is free, one more input of another size, if the model runs on one that is tried.

    Sizes of one name stay equal; integers are repeated.
    """
    shapes = input_shapes(graph)
    if not any(not isinstance(dim, int) or dim <= 0 for dims in shapes.values() for dim in dims[1:]):
        return []
    for factor in _SIZES:
        resized = {name: _resized(array, shapes.get(name, ()), factor) for name, array in feeds.items()}
        changed = any(resized[name].shape != array.shape for name, array in feeds.items())
        if changed and runs_on(model, resized, device=device):
            return [resized]
    return []


def _resized(array: np.ndarray, declared: Sequence[int | str | None], factor: float) -> np.ndarray:
    shape = [
        max(int(size * factor), 1) if axis and (not isinstance(dim, int) or dim <= 0) else size
        for axis, (size, dim) in enumerate(zip(array.shape, declared, strict=True))
    ]
    if array.dtype.kind != "f":
        return np.resize(array, shape)
    return np.random.default_rng(2).standard_normal(shape).astype(array.dtype)
