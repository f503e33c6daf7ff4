"""Where torch computes."""

from __future__ import annotations

import torch

from ...passes.errors import UsageError
from ..device import Device


def torch_device(device: Device) -> torch.device:
    """The device: "auto" is CUDA where there is one. Raises UsageError for "cuda" where there is none."""
    if device == "cuda" and not torch.cuda.is_available():
        raise UsageError("torch finds no CUDA device", where="--device cuda", fix="leave it out, or say cpu")
    return torch.device("cuda" if device != "cpu" and torch.cuda.is_available() else "cpu")
