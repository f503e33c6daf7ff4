"""Whether a model runs on an input at all."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from ..passes.errors import ReadError
from .device import Device
from .session import Runnable, open_session


def runs_on(model: Runnable, feeds: Mapping[str, np.ndarray], *, device: Device = "auto") -> bool:
    """Whether ONNX Runtime runs the model on this input."""
    try:
        open_session(model, device=device, optimise=False).run(feeds)
    except ReadError:
        return False
    return True
