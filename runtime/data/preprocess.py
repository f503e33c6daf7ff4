"""From an image file to what a model reads: size, layout, scale, mean and standard deviation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import IO, TYPE_CHECKING, Literal

import numpy as np

from ...passes.errors import ReadError, UsageError
from .inputs import ModelInput

if TYPE_CHECKING:
    from PIL.Image import Image

Layout = Literal["NCHW", "NHWC"]
Size = tuple[int, int]
_LONGEST = 1 << 15  # pixels of one side
_MOST_PIXELS = 1 << 27  # 134 million; a decoded one takes 400 MB
_MODES = {1: "L", 3: "RGB", 4: "RGBA"}  # channels -> pillow's name


@dataclass(frozen=True, slots=True)
class Preprocessing:
    """What is done to an image; None leaves it to the model's input.

    resize: the shorter side becomes this many pixels, or (height, width) exactly
    crop: the part in the middle, (height, width), taken after it: by default the size that the model fixes, else the
        square of `resize`
    scale: 1/255 by default for models that read floats, 1 for those that read integers
    mean, std: one a channel, or one for all; values are (pixel * scale - mean) / std
    layout: where the channels are

    Without resize and crop a model of fixed size gets the largest part in the middle of its proportions, resized.
    """

    mean: Sequence[float] = (0.0,)
    std: Sequence[float] = (1.0,)
    resize: int | Size | None = None
    crop: int | Size | None = None
    scale: float | None = None
    layout: Layout | None = None

    def __post_init__(self) -> None:
        """Raises UsageError for what no image can be made with."""
        for name in ("mean", "std", "scale"):
            value = getattr(self, name)
            if value is not None and not np.isfinite(np.asarray(value, np.float64)).all():
                raise UsageError(f"--{name} is not a finite number", where=str(value), fix="give one, such as 0.5")
        for name in ("resize", "crop"):
            size = getattr(self, name)
            if size is not None and not _is_size(size):
                raise UsageError(
                    f"--{name} has no size of an image", where=str(size), fix=f"give 1 to {_LONGEST} pixels"
                )


def _is_size(size: int | Size) -> bool:
    given = _square(size) or ()
    return len(given) == 2 and all(0 < pixels <= _LONGEST for pixels in given)


@dataclass(frozen=True, slots=True)
class Frame:
    """The part of an image that a model sees.

    part: left, top, right, bottom, in pixels of the image
    size: height, width of what the model reads
    """

    part: tuple[float, float, float, float]
    size: Size

    def boxes(self, boxes: np.ndarray) -> np.ndarray:
        """Boxes x1, y1, x2, y2 (n, 4) in pixels of the image, in pixels of what the model reads, cut at its edges."""
        left, top, right, bottom = self.part
        height, width = self.size
        factor = np.array([width / (right - left), height / (bottom - top)] * 2)
        moved = (np.asarray(boxes, np.float64).reshape(-1, 4) - [left, top, left, top]) * factor
        return moved.clip(0, [width, height, width, height])

    def mask(self, image: Image) -> np.ndarray:
        """A mask (height, width) of class numbers: the nearest pixel."""
        from PIL import Image as pillow

        height, width = self.size
        return np.asarray(image.resize((width, height), pillow.Resampling.NEAREST, box=self.part))


@dataclass(frozen=True, slots=True)
class ImageReader:
    """Reads images for one model input: `reader(file)` is an array of its type without the batch axis.

    size: (height, width) of the result, None for that of the image
    offset, factor: value = pixel * factor - offset
    seed: of the random part that is taken (`random_part`); None for the part in the middle
    """

    mode: str
    layout: Layout
    resize: int | Size | None
    size: Size | None
    factor: np.ndarray
    offset: np.ndarray
    dtype: np.dtype
    seed: int | None = None

    def part(self, seed: int | None) -> ImageReader:
        """A reader of a random part of an image, as this seed draws it, in the wanted size; of None as it is."""
        return self if seed is None else replace(self, seed=seed)

    def __call__(self, file: str | IO[bytes]) -> np.ndarray:
        """Decode one image. Raises ReadError for a format that pillow does not know."""
        from PIL import Image, UnidentifiedImageError

        try:
            with Image.open(file) as image:
                _check_pixels(image.width, image.height)
                pixels = np.asarray(self._sized(_in_eight_bits(image).convert(self.mode)))
        except (
            UnidentifiedImageError,
            Image.DecompressionBombError,
            OSError,
            SyntaxError,  # pillow on broken PNG files
            ValueError,  # on text chunks that unpack to more than they may
            OverflowError,
            MemoryError,
        ) as error:
            name = getattr(file, "name", file)
            raise ReadError(
                "an image cannot be read", where=f"{name}: {error}", fix="remove it, or repair it"
            ) from error
        if pixels.ndim == 2:
            pixels = pixels[:, :, None]
        values = pixels * self.factor - self.offset if self.dtype.kind == "f" else pixels
        return np.ascontiguousarray(values.transpose(2, 0, 1) if self.layout == "NCHW" else values, self.dtype)

    def frame(self, height: int, width: int) -> Frame:
        """The part of an image of that size that the result shows."""
        if self.resize is None:
            if self.size is None:
                return Frame((0.0, 0.0, float(width), float(height)), (height, width))
            ratio = min(height / self.size[0], width / self.size[1])
            return Frame(_middle(height, width, self.size[0] * ratio, self.size[1] * ratio), self.size)
        whole = self._target(height, width)
        size = self.size or whole
        left, top, _, _ = (round(v) for v in _middle(*whole, *size))
        x, y = width / whole[1], height / whole[0]
        return Frame((left * x, top * y, (left + size[1]) * x, (top + size[0]) * y), size)

    def _sized(self, image):  # noqa: ANN001, ANN202 - pillow is imported where it is used
        from PIL import Image

        if self.seed is not None and self.size is not None:
            box = random_part(image.height, image.width, np.random.default_rng(self.seed))
            return image.resize((self.size[1], self.size[0]), Image.Resampling.BILINEAR, box=box)
        if self.resize is not None:
            height, width = self._target(image.height, image.width)
            if (image.height, image.width) != (height, width):
                image = image.resize((width, height), Image.Resampling.BILINEAR)
        if self.size is None or self.size == (image.height, image.width):
            return image
        height, width = self.size
        if self.resize is None:  # the largest part in the middle of the wanted proportions, then its size
            ratio = min(image.height / height, image.width / width)
            box = _middle(image.height, image.width, height * ratio, width * ratio)
            return image.resize((width, height), Image.Resampling.BILINEAR, box=box)
        if image.height < height or image.width < width:
            raise UsageError(
                f"an image of {image.height} x {image.width} pixels has no part of {height} x {width}",
                where="--crop, or the size that the model fixes",
                fix="give a larger --resize, or none",
            )
        left, top, _, _ = (round(v) for v in _middle(image.height, image.width, height, width))
        return image.crop((left, top, left + width, top + height))

    def _target(self, height: int, width: int) -> Size:
        if not isinstance(self.resize, int):
            assert self.resize is not None
            return self.resize
        ratio = self.resize / min(height, width)
        return max(round(height * ratio), 1), max(round(width * ratio), 1)


_AREA, _RATIO, _DRAWS = (0.08, 1.0), (3 / 4, 4 / 3), 10


def random_part(height: int, width: int, rng: np.random.Generator) -> tuple[float, float, float, float]:
    """The box (left, top, right, bottom) of a random part: 8 to 100 % of the area, sides of 3 : 4 to 4 : 3.

    Where no such part lies within the image after ten draws, the largest in the middle of the nearest proportions.
    Source: Szegedy et al., Going deeper with convolutions, 2015, section 6, drawn as torchvision does.
    """
    for _ in range(_DRAWS):
        area, ratio = height * width * rng.uniform(*_AREA), np.exp(rng.uniform(*np.log(_RATIO)))
        w, h = round(float(np.sqrt(area * ratio))), round(float(np.sqrt(area / ratio)))
        if 0 < w <= width and 0 < h <= height:
            left, top = int(rng.integers(width - w + 1)), int(rng.integers(height - h + 1))
            return left, top, left + w, top + h
    ratio = min(max(width / height, _RATIO[0]), _RATIO[1])
    return _middle(height, width, min(height, width / ratio), min(width, height * ratio))


def _middle(height: int, width: int, part_height: float, part_width: float) -> tuple[float, float, float, float]:
    """The box (left, top, right, bottom) of the part in the middle."""
    left, top = (width - part_width) / 2, (height - part_height) / 2
    return left, top, left + part_width, top + part_height


def _in_eight_bits(image):  # noqa: ANN001, ANN202 - pillow is imported where it is used
    """Grey images of 16 bits as those of 8: pillow would cut off what is above 255, so that nearly all is white.

    Pillow opens such PPM files, and PNG files before 11.3, as 32 bits.
    """
    from PIL import Image

    if not (image.mode.startswith("I;16") or (image.mode == "I" and image.format in ("PNG", "PPM"))):
        return image
    return Image.fromarray((np.asarray(image).astype(np.uint32) >> 8).astype(np.uint8))


def _check_pixels(width: int, height: int) -> None:
    if width * height > _MOST_PIXELS:
        raise ValueError(f"{width} x {height} pixels are more than an image for a network has")


def image_reader(wanted: ModelInput, how: Preprocessing) -> ImageReader:
    """Take from the model's input what `how` leaves open. Raises UsageError where the two contradict each other."""
    if wanted.dims is not None and len(wanted.dims) != 4:
        raise UsageError(
            "images go to models that read four axes (batch, channels, height, width)",
            where=str(wanted),
            fix="give the data as .npz or module:function",
        )
    _, *dims = wanted.dims or (None, None, None, None)
    layout = how.layout or ("NHWC" if dims[2] in _MODES and dims[0] not in (1, 3) else "NCHW")
    channels, height, width = dims if layout == "NCHW" else (dims[2], dims[0], dims[1])
    mode = _MODES.get(channels or 3)
    if mode is None:
        raise UsageError(
            f"an image does not have {channels} channels", where=f"{wanted}, read as {layout}", fix="name the --layout"
        )
    size = _size(how, height, width, wanted)
    scale = how.scale if how.scale is not None else (1 / 255 if wanted.dtype.kind == "f" else 1.0)
    mean, std = (_per_channel(v, len(mode) if mode != "L" else 1, wanted) for v in (how.mean, how.std))
    if not (std > 0).all():
        raise UsageError("--std must be positive", where=str(how.std), fix="give standard deviations of scaled pixels")
    factor, offset = (scale / std).astype(np.float32), (mean / std).astype(np.float32)
    if wanted.dtype.kind != "f" and ((factor != 1).any() or offset.any()):
        raise UsageError(
            "--mean, --std and --scale make no sense for integers", where=str(wanted), fix="leave them out"
        )
    return ImageReader(mode, layout, how.resize, size, factor, offset, wanted.dtype)


def _size(how: Preprocessing, height: int | None, width: int | None, wanted: ModelInput) -> Size | None:
    """The size after everything: the crop, else the model's, else that of the resize."""
    size, resized = _square(how.crop), _square(how.resize)
    if size is not None and (size[0] != (height or size[0]) or size[1] != (width or size[1])):
        raise UsageError(f"--crop {size} is not the model's size", where=str(wanted), fix="leave --crop out")
    if size is None and height is not None and width is not None:
        size = (height, width)
    return size or resized


def _square(size: int | Size | None) -> Size | None:
    return (size, size) if isinstance(size, int) else size


def _per_channel(values: Sequence[float], channels: int, wanted: ModelInput) -> np.ndarray:
    array = np.asarray(values, np.float64)
    if array.shape not in ((1,), (channels,)):
        raise UsageError(
            f"{array.size} values of --mean or --std for {channels} channels", where=str(wanted), fix="one a channel"
        )
    return array
