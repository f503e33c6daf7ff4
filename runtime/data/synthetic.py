"""Images of nothing, for models without calibration data.

What layers answer to them is nearer to what they answer to photographs than what they answer to noise
(docs/methods.md has the figures). Images: the dead leaves model (Lee, Mumford, Huang 2001), whose edges, occlusions and
scales have the statistics of natural images. That layers can be refitted on data from elsewhere: OBSPA (Wang et al.
2024).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from .inputs import ModelInput
from .open import Data, open_data
from .preprocess import Preprocessing, image_reader

Array = np.ndarray
_FEWEST, _MOST = 3, 60  # leaves in an image
_SMALLEST = 0.04  # radius of a leaf, as a share of the shorter side; larger ones by a power law of exponent -3
_COLOUR, _SHADE, _GRAIN = 0.35, 0.3, 0.15  # deviations beside the brightness: of colours, within a leaf, of texture
_CHUNK = 1 << 22  # elements drawn at once


def reads_images(inputs: Sequence[ModelInput], feeds: Mapping[str, Array]) -> bool:
    """Whether the model's only input is a batch of images: four axes, one or three channels, floats or bytes."""
    if len(inputs) != 1:
        return False
    shape, kind = feeds[inputs[0].name].shape, inputs[0].dtype
    return (
        len(shape) == 4
        and all(shape)
        and (kind.kind == "f" or kind == np.uint8)
        and bool({shape[1], shape[3]} & {1, 3})
    )


def synthetic_data(
    inputs: Sequence[ModelInput],
    feeds: Mapping[str, Array],
    preprocessing: Preprocessing | None,
    samples: int,
    seed: int = 0,
    held_out: int = 0,
) -> Data:
    """Synthetic images for a model that `reads_images`, in the size of `feeds`.

    With preprocessing they are pixels, 0 to 255, that go the way of an image file; else models that read floats get
    values of mean 0 and deviation 1, as most are trained on.
    """
    (wanted,) = inputs
    reader = image_reader(wanted, preprocessing or Preprocessing())
    shape = feeds[wanted.name].shape
    channels, height, width = shape[1:] if reader.layout == "NCHW" else (shape[3], *shape[1:3])
    images = dead_leaves((samples + held_out, channels, height, width), seed)
    if preprocessing is not None or wanted.dtype.kind != "f":
        images = np.clip(images * 64 + 128, 0, 255).astype(np.uint8)
        if wanted.dtype.kind == "f":
            images = images * reader.factor.reshape(-1, 1, 1) - reader.offset.reshape(-1, 1, 1)
    if reader.layout == "NHWC":
        images = images.transpose(0, 2, 3, 1)
    arrays = {wanted.name: np.ascontiguousarray(images, wanted.dtype)}
    return open_data(arrays, inputs, samples=samples, seed=seed, held_out=held_out)


def dead_leaves(shape: tuple[int, int, int, int], seed: int = 0) -> Array:
    """Images of opaque leaves that cover each other: (n, channels, height, width) float32, mean 0, deviation 1."""
    n, channels, height, width = shape
    rng = np.random.default_rng(seed)
    size = max(1, _CHUNK // (channels * height * width))
    images = np.concatenate([_leaves(rng, min(size, n - at), shape[1:]) for at in range(0, n, size)])
    return (images - images.mean()) / images.std()


def _leaves(rng: np.random.Generator, n: int, shape: tuple[int, int, int]) -> Array:
    channels, height, width = shape
    side = min(height, width)
    images = np.tile(rng.uniform(-0.5, 0.5, (n, channels, 1, 1)).astype(np.float32), (1, 1, height, width))
    count = rng.integers(_FEWEST, _MOST, n)
    for number in range(_MOST):
        radius = np.minimum(side * _SMALLEST / np.sqrt(1 - rng.random(n) * 0.998), side)
        top, left = rng.uniform(0, height, n), rng.uniform(0, width, n)
        angle, elongation = rng.uniform(0, np.pi, n), np.exp(0.4 * rng.standard_normal(n))
        round_ = rng.random(n) < 0.6
        colour = rng.standard_normal((n, 1)) + _COLOUR * rng.standard_normal((n, channels))
        slope = _SHADE * rng.standard_normal((2, n)) / radius
        shapes = np.stack([radius, top, left, angle, elongation], axis=1)
        for i in np.flatnonzero(number < count).tolist():
            leaf = _Leaf(*shapes[i].tolist(), round=bool(round_[i]))
            leaf.cover(images[i], colour[i], slope[:, i])
    return images + _GRAIN * _texture(rng, (n, channels, height, width))


@dataclass(frozen=True, slots=True)
class _Leaf:
    """A disc or a square, stretched along its axis.

    radius, top, left: pixels
    angle: of the axis, radians
    """

    radius: float
    top: float
    left: float
    angle: float
    elongation: float
    round: bool

    def cover(self, image: Array, colour: Array, slope: Array) -> None:
        """Draw it on image (channels, H, W): colour (channels,), and slope (2,) along and across its axis."""
        cosine, sine, stretch = np.cos(self.angle), np.sin(self.angle), self.elongation
        high = self.radius * (stretch * abs(sine) + abs(cosine) / stretch)  # half the box around it
        wide = self.radius * (stretch * abs(cosine) + abs(sine) / stretch)
        rows = slice(max(0, int(self.top - high)), max(0, int(self.top + high) + 2))
        columns = slice(max(0, int(self.left - wide)), max(0, int(self.left + wide) + 2))
        height, width = image[0, rows, columns].shape
        y = np.arange(rows.start, rows.start + height)[:, None] - self.top
        x = np.arange(columns.start, columns.start + width) - self.left
        along, across = (x * cosine + y * sine) / stretch, (y * cosine - x * sine) * stretch
        distance = along**2 + across**2 if self.round else np.maximum(abs(along), abs(across))
        inside = distance < (self.radius**2 if self.round else self.radius)
        shaded = colour[:, None, None] + (slope[0] * along + slope[1] * across)
        np.copyto(image[:, rows, columns], shaded, where=inside, casting="same_kind")


def _texture(rng: np.random.Generator, shape: tuple[int, ...]) -> Array:
    """Noise whose amplitude falls as 1 / frequency, as that of natural images does (Field 1987); deviation 1."""
    height, width = shape[-2:]
    frequency = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width))
    frequency[0, 0] = 1 / max(height, width)
    grey, coloured = (rng.standard_normal((shape[0], c, *shape[2:]), np.float32) for c in (1, shape[1]))
    noise = np.fft.irfft2(np.fft.rfft2(3 * grey + coloured) / frequency, (height, width))
    return (noise / noise.std()).astype(np.float32)
