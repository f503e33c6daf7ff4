"""Whether a network tells images apart better in another form than the one they are given in: pixels scaled otherwise.

Most networks that are met have their normalisations folded away and store no statistics of what they were trained on.
But on images as in training the outputs differ from image to image, and on others they are much alike. With

    p(k | x) = softmax(2 (y - mean_k y) / s),    s: the standard deviation of all centred outputs,

the information I = H(mean_x p) - mean_x H(p), in nats, says how far the outputs tell the images apart, whatever their
scale. ResNet-20 and ResNet-56 (CIFAR-10, 64 images), trained with ImageNet's mean and deviation, have 1.60 and 1.81; on
pixels of 0 to 1 they have 0.71 and 1.17, of -1 to 1 1.47 and 1.70, of 0 to 255 0.12 and 0.05.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ...passes.graph.model import Graph
from ..device import Device
from ..session import Session, open_session
from .batches import Data
from .inputs import numeric_inputs
from .synthetic import reads_images

Array = np.ndarray
Form = tuple[tuple[float, ...], tuple[float, ...]]  # mean and deviation, one a channel or one for all

_IMAGES, _FEWEST = (8, 64), 8  # of 8 no more draws of 40 are told wrongly than of 32, on ResNet-20 and ResNet-56
_MACS, _BYTES = 16 << 30, 64 << 20  # of one pass over the images; of the images, float32
_MORE, _TIMES = 0.25, 1.25  # nats, and times the information, that another form has to bring
_LEAST = 0.25  # of what telling all images apart is: noise stays below in every form
_SHARPNESS = 2.0
_SAME = 1e-3  # of two forms of the same pixels
_OUTPUTS = 3  # of one image, at least
# Mean and deviation of pixels of 0 to 1 (grey images: the mean over the channels), and how to ask for it.
_FORMS: dict[str, Form] = {
    "--mean 0.485,0.456,0.406 --std 0.229,0.224,0.225": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    "--mean 0.5 --std 0.5": ((0.5,), (0.5,)),
    "pixels of 0 to 1 (no --mean, no --std)": ((0.0,), (1.0,)),
    "pixels of 0 to 255 (--scale 1)": ((0.0,), (1 / 255,)),
}


def better_form(graph: Graph, data: Data, device: Device = "auto", macs: float = 0) -> str | None:
    """In which form the network tells the images apart better, in words; None where in none, or where it cannot tell.

    Of networks of one batch of float images whose first output of two axes has a row an image. macs: of one image.
    """
    inputs = numeric_inputs(graph.source)
    if len(inputs) != 1 or inputs[0].dtype.kind != "f":
        return None
    name = inputs[0].name
    parts = _first(data, name, int(np.clip(_MACS // max(macs, 1), *_IMAGES)))
    count = sum(map(len, parts))
    if count < _FEWEST or not reads_images(inputs, {name: parts[0]}):
        return None
    axis = 1 if parts[0].shape[1] in (1, 3) else 3
    pixels = _pixels(np.concatenate(parts).astype(np.float32), axis)
    if pixels is None:
        return None
    session = open_session(graph.source, device=device)
    ends = np.cumsum([len(part) for part in parts])[:-1]

    def told(form: Form) -> float:
        images = np.split(_formed(pixels, form, axis).astype(inputs[0].dtype), ends)
        same = all(np.allclose(image, part, atol=_SAME) for image, part in zip(images, parts, strict=True))
        return given if same else _information(_rows(session, name, images))

    given = _information(_rows(session, name, parts))
    others = {words: told(form) for words, form in _FORMS.items()} if given >= 0 else {}
    best = max(others, key=lambda words: others[words], default="")
    if not best or others[best] < max(given + _MORE, given * _TIMES, _LEAST * np.log(count)):
        return None
    return f"the network tells these images apart better with {best}: {others[best]:.2g} against {given:.2g} nats"


def _first(data: Data, name: str, count: int) -> list[Array]:
    """The first images, in the batches that the model may fix; none where they are large, or not all of a size."""
    parts: list[Array] = []
    for batch in data.first(count):
        array = batch.feeds[name]
        held = sum(map(len, parts))
        most = min(count, _BYTES // max(4 * array[:1].size, 1)) - held
        if most < (len(array) if data.fixed else 1):
            break
        parts.append(array if data.fixed else array[:most])
    return parts if len({part.shape[1:] for part in parts}) == 1 else []


def _pixels(images: Array, axis: int) -> Array | None:
    """The images as numbers of 0 to 1, in whatever of the forms they are, or in none; None where all are constant."""
    low, high = float(images.min()), float(images.max())
    if not np.isfinite([low, high]).all() or low == high:
        return None
    if low >= 0 and high <= 255:
        return images if high <= 1 else images / 255
    for mean, deviation in list(_FORMS.values())[1::-1]:
        pixels = images * _along(deviation, images, axis) + _along(mean, images, axis)
        if pixels.min() > -0.01 and pixels.max() < 1.01:
            return pixels
    return (images - low) / (high - low)


def _along(numbers: tuple[float, ...], images: Array, axis: int) -> Array:
    channels = images.shape[axis]
    given = np.array(numbers if len(numbers) == channels else [np.mean(numbers)], np.float32)
    return given.reshape([-1 if i == axis else 1 for i in range(images.ndim)])


def _formed(pixels: Array, form: Form, axis: int) -> Array:
    mean, deviation = form
    return (pixels - _along(mean, pixels, axis)) / _along(deviation, pixels, axis)


def _rows(session: Session, name: str, parts: Sequence[Array]) -> Array | None:
    """The first output of two axes with a row an image, (n, k); None where there is none."""
    rows: list[Array] = []
    for part in parts:
        outputs = session.run({name: part}, session.outputs).values()
        found = [o for o in outputs if isinstance(o, np.ndarray) and o.dtype.kind == "f" and o.ndim == 2]
        fitting = [o for o in found if o.shape[0] == len(part) and o.shape[1] >= _OUTPUTS]
        if not fitting:
            return None
        rows.append(fitting[0])
    return np.concatenate(rows).astype(np.float64)


def _information(rows: Array | None) -> float:
    """Nats; -1 where there is nothing to tell by."""
    if rows is None or not np.isfinite(rows).all():
        return -1.0
    centred = rows - rows.mean(1, keepdims=True)
    sharp = _SHARPNESS * centred / (centred.std() or 1)
    p = np.exp(sharp - sharp.max(1, keepdims=True))
    p /= p.sum(1, keepdims=True)
    return float(_entropy(p.mean(0)) - _entropy(p).mean())


def _entropy(p: Array) -> Array:
    return np.asarray(-(p * np.log(np.maximum(p, 1e-30))).sum(-1))
