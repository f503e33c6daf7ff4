"""What stands for a model where two are compared, so that nothing but what they compute tells them apart."""

from __future__ import annotations

import onnx

from .unrounded import without_rounding
from .unsigned import with_unsigned_weights


def calm(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy with products that do not saturate and activations that are not rounded; itself where it is so already."""
    return without_rounding(with_unsigned_weights(model))
