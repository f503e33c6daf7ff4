"""Where torch computes, said in one place."""

from __future__ import annotations

import pytest
import torch
from onnx_prune.passes.errors import UsageError
from onnx_prune.runtime.torch.place import torch_device


def test_a_device_that_is_not_there_is_refused(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert torch_device("cpu") == torch_device("auto") == torch.device("cpu")
    with pytest.raises(UsageError, match="finds no CUDA device"):
        torch_device("cuda")


def test_a_gpu_is_taken_where_there_is_one_unless_the_cpu_is_asked_for(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert torch_device("auto") == torch_device("cuda") == torch.device("cuda")
    assert torch_device("cpu") == torch.device("cpu")
