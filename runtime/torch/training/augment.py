"""Augmentation of a batch of images, all of it drawn from (seed, epoch, step): a run that goes on draws the same.

The numbers are drawn for the whole batch, so that processes that share it see what one process alone would see.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

WORDS = ("crop", "resized-crop", "flip", "cutout", "mixup")
_PADDING, _HOLE = 8, 2  # a crop moves by up to 1/8 of the size, as 4 of 32 pixels; a hole is half as wide as the image


@dataclass(frozen=True, slots=True)
class Draws:
    """What is done to each image of a batch of n; None where it is not done.

    shift: (n, 2) pixels by which rows and columns are moved
    flip: (n,) bool
    hole: (n, 2) its centre, as shares of the size
    partner: (n,) the image that is mixed in
    share: what is left of the image's own, one for the batch
    part: (n,) int64, the seed of the random part that is read of each image in the place of the middle
    """

    shift: Tensor | None = None
    flip: Tensor | None = None
    hole: Tensor | None = None
    partner: Tensor | None = None
    share: float = 1.0
    part: Tensor | None = None

    def of(self, rows: Tensor) -> Draws:
        """Those of some images."""
        shift, flip, hole, partner = (v if v is None else v[rows] for v in self._each())
        return Draws(shift, flip, hole, partner, self.share, None if self.part is None else self.part[rows])

    def _each(self) -> tuple[Tensor | None, ...]:
        return self.shift, self.flip, self.hole, self.partner


def draw(words: Collection[str], count: int, size: tuple[int, int], rng: np.random.Generator) -> Draws:
    """The numbers for a batch of `count` images of (height, width) pixels."""
    reach = [max(side // _PADDING, 1) for side in size]
    shift = torch.from_numpy(rng.integers([0, 0], [2 * r + 1 for r in reach], (count, 2)) - reach)
    flip = torch.from_numpy(rng.random(count) < 0.5)
    hole = torch.from_numpy(rng.random((count, 2)))
    partner = torch.from_numpy(rng.permutation(count))
    share = float(rng.beta(1.0, 1.0))
    part = torch.from_numpy(rng.integers(0, 2**62, count)) if "resized-crop" in words else None
    return Draws(
        shift if "crop" in words else None,
        flip if "flip" in words else None,
        hole if "cutout" in words else None,
        partner if "mixup" in words else None,
        share if "mixup" in words else 1.0,
        part,
    )


def moved(images: Tensor, draws: Draws) -> Tensor:
    """Flip and shift (n, c, h, w) of any type; zeros come in. Source: the usual crop after padding (He et al. 2015)."""
    if draws.shift is None and draws.flip is None:
        return images
    n, _, height, width = images.shape
    rows, columns = torch.arange(height).expand(n, height), torch.arange(width).expand(n, width)
    if draws.flip is not None:
        columns = torch.where(draws.flip[:, None], width - 1 - columns, columns)
    if draws.shift is not None:
        reach = max(int(draws.shift.abs().max()), 1)
        images = F.pad(images, (reach,) * 4)
        rows, columns = rows + draws.shift[:, :1] + reach, columns + draws.shift[:, 1:] + reach
    device = images.device
    sample = torch.arange(n, device=device)[:, None, None]
    picked = images.movedim(1, -1)[sample, rows.to(device)[:, :, None], columns.to(device)[:, None, :]]
    return picked.movedim(-1, 1)


def holed(images: Tensor, draws: Draws) -> Tensor:
    """Zero a square in each of (n, c, h, w), in part beyond the edge. Source: DeVries and Taylor 2017, Cutout."""
    if draws.hole is None:
        return images
    height, width = images.shape[2:]
    side = max(min(height, width) // _HOLE, 1)
    inside = []
    for length, centre in ((height, draws.hole[:, 0]), (width, draws.hole[:, 1])):
        begin = (centre * length).floor() - side // 2
        place = torch.arange(length)
        inside.append((place >= begin[:, None]) & (place < begin[:, None] + side))
    hole = inside[0][:, None, :, None] & inside[1][:, None, None, :]
    return images.masked_fill(hole.to(images.device), 0)
