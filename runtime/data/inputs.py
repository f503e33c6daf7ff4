"""What a model asks to be fed, and whether given arrays are that."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx
from onnx import helper

from ...passes.errors import ReadError, UsageError
from .random_feeds import Feeds, required_inputs


@dataclass(frozen=True, slots=True)
class ModelInput:
    """One input: its name, its element type, and its dimensions, None where the model leaves them free.

    dims is None where the model does not even say how many there are.
    """

    name: str
    dtype: np.dtype
    dims: tuple[int | None, ...] | None

    @property
    def batch(self) -> int | None:
        """The batch size that the model fixes."""
        return self.dims[0] if self.dims else None

    def takes(self, other: ModelInput) -> bool:
        """Whether what is made for the other can be fed here: the name, the type, and the sizes that both fix."""
        if (self.name, self.dtype) != (other.name, other.dtype):
            return False
        if self.dims is None or other.dims is None:
            return True
        pairs = zip(self.dims, other.dims, strict=False)
        return len(self.dims) == len(other.dims) and all(a is None or b is None or a == b for a, b in pairs)

    def __str__(self) -> str:
        dims = "..." if self.dims is None else ", ".join("?" if d is None else str(d) for d in self.dims)
        return f"input {self.name!r}: {self.dtype.name} ({dims})"


def model_inputs(model: onnx.ModelProto) -> tuple[ModelInput, ...]:
    """Return the inputs that a caller must give. Raises UsageError where one is not a numeric tensor."""
    return tuple(_input(value) for value in required_inputs(model.graph))


def numeric_inputs(model: onnx.ModelProto) -> tuple[ModelInput, ...]:
    """The same, or none where one is not a numeric tensor: such a model is given no data, and draws no images."""
    try:
        return model_inputs(model)
    except UsageError:
        return ()


def _input(value: onnx.ValueInfoProto) -> ModelInput:
    if value.type.WhichOneof("value") != "tensor_type" or value.type.tensor_type.elem_type == onnx.TensorProto.STRING:
        raise UsageError(
            "data can be given to numeric tensors only", where=f"input {value.name!r} is something else", fix=_NO_DATA
        )
    kind = value.type.tensor_type
    dims = tuple(d.dim_value if d.dim_value > 0 else None for d in kind.shape.dim) if kind.HasField("shape") else None
    return ModelInput(value.name, np.dtype(helper.tensor_dtype_to_np_dtype(kind.elem_type)), dims)


_NO_DATA = "run without data: such a model can be pruned by its weights (--calibration none)"


def check_common_axis(inputs: Sequence[ModelInput]) -> None:
    """Raise ReadError where the first axes cannot all be the samples: states, scalars such as a sample rate."""
    first = {None if i.dims is None else i.dims[0] if i.dims else 0 for i in inputs}
    sizes = first - {None}
    if len(sizes) > 1 or 0 in sizes or (None in first and sizes - {1}):
        raise ReadError(
            "the inputs of the model have no axis of samples in common, so that many samples cannot be fed to it",
            where="; ".join(map(str, inputs)),
            fix="give one input for one run, an .npz of arrays named like the inputs: the weights decide then; "
            "or --calibration none",
        )


def check_feeds(feeds: Mapping[str, object], inputs: Sequence[ModelInput], where: str, *, whole: bool = False) -> Feeds:
    """Return the feeds as arrays if they are what the model asks for. Raises ReadError where they are not.

    whole: they hold all samples, not one batch, so that a fixed batch size says nothing of their first axis.
    """
    names = [i.name for i in inputs]
    if set(feeds) != set(names):
        raise ReadError(
            "the data do not have the model's inputs",
            where=f"{where} gives {_words(sorted(feeds))}; the model asks for {_words(names)}",
            fix="give the arrays the names of the model's inputs",
        )
    return {i.name: _checked(feeds[i.name], i, where, whole) for i in inputs}


def _checked(value: object, wanted: ModelInput, where: str, whole: bool) -> np.ndarray:
    if not isinstance(value, np.ndarray):
        raise ReadError(
            f"the data are a {type(value).__name__}, not a numpy array", where=f"{where}, {wanted}", fix="yield arrays"
        )
    if value.dtype.newbyteorder("=") == wanted.dtype:
        value = value.astype(wanted.dtype, copy=False)  # numbers of another machine's byte order
    if value.dtype != wanted.dtype:
        raise ReadError(
            f"the data are {value.dtype.name} where the model asks for {wanted.dtype.name}",
            where=f"{where}, {wanted}",
            fix=f"convert them: array.astype({wanted.dtype.name!r})",
        )
    if wanted.dims is not None and not _fits(value.shape, wanted.dims, whole=whole):
        raise ReadError(
            f"the data have the shape {value.shape}, which the model does not take",
            where=f"{where}, {wanted}",
            fix="give the samples along the first axis, in the size that the model fixes",
        )
    return value


def fits(feeds: Mapping[str, np.ndarray], inputs: Sequence[ModelInput]) -> bool:
    """Whether these arrays are, as they are, an input for one run."""
    return all(
        feeds[i.name].dtype == i.dtype and (i.dims is None or _fits(feeds[i.name].shape, i.dims, whole=False))
        for i in inputs
    )


def _fits(shape: tuple[int, ...], dims: tuple[int | None, ...], *, whole: bool) -> bool:
    if whole and dims:
        dims = (None, *dims[1:])
    return len(shape) == len(dims) and all(want in (None, have) for have, want in zip(shape, dims, strict=True))


def _words(names: Sequence[str]) -> str:
    return ", ".join(map(repr, names)) or "nothing"
