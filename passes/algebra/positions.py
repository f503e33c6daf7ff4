"""Where patches are taken: output positions drawn at random, image by image."""

from __future__ import annotations

import math

import numpy as np

Array = np.ndarray


class Positions:
    """Random output positions, image after image: the same for every batch size, and for every model.

    A call draws for the next images; each grid and number of positions has a stream of its own, so that what is drawn
    depends on nothing but these two, the seed and the number of the image.
    """

    def __init__(self, seed: int, most: int | None) -> None:
        """most: positions an image, all where a grid has no more; None: `default_positions`."""
        self._seed, self._most = seed, most
        self._streams: dict[tuple[int, int], np.random.Generator] = {}

    def __call__(self, grid: int, images: int, most: int | None = None) -> Array:
        """(images, positions) int64 in [0, grid), ascending: one from each of as many equal parts of the grid.

        most: as that of __init__, where it is another for this grid.
        """
        count = positions_of(grid, self._most if most is None else most)
        stream = self._streams.setdefault((grid, count), np.random.default_rng([self._seed, grid]))
        parts = np.arange(count) + stream.random((images, count))
        return np.minimum((parts * (grid / count)).astype(np.int64), grid - 1)


def positions_of(grid: int, most: int | None) -> int:
    """How many are drawn of a grid: `most`, all where it has no more; None: `default_positions`."""
    return default_positions(grid) if most is None else min(most, grid)


def default_positions(grid: int) -> int:
    """Twice the square root of the side of a square map: 15 of 56 x 56, 12 of 32 x 32, 6 of 8 x 8.

    A fit from R rows has an excess error of about C k / R, and a row costs (C k)^2; so for a given time, wide layers,
    whose maps are small, want fewer positions. ResNet-56, 2,048 images, half of each layer's channels re-fitted: the
    error on other images is 0.3, 1 and 3 % above that of unlimited positions in its three stages.
    """
    return min(grid, math.ceil(2 * grid**0.25))
