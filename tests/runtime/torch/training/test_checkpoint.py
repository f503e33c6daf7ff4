"""What is no checkpoint any more is said, whatever torch makes of it."""

from __future__ import annotations

import os

import pytest
import torch
from onnx_prune.passes.errors import ReadError
from onnx_prune.runtime.torch.training.checkpoint import Checkpoint


@pytest.fixture
def kept(tmp_path):
    checkpoint = Checkpoint(tmp_path, "key")
    checkpoint.save({"weights": {"w": torch.arange(100.0)}})
    return checkpoint, tmp_path / "checkpoint.pt"


def test_what_was_saved_is_loaded(kept):
    assert kept[0].load(resume=True)["weights"]["w"].tolist() == list(range(100))


@pytest.mark.parametrize("text", [b"", b"\x80", b"nothing", b"PK\x03\x04", b"cos\nsystem\n(S'echo'\ntR."])
def test_a_file_of_another_kind_is_said(kept, text):
    kept[1].write_bytes(text)
    with pytest.raises(ReadError, match="cannot be read"):
        kept[0].load(resume=True)


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_half_a_file_is_said(kept, share):
    data = kept[1].read_bytes()
    kept[1].write_bytes(data[: int(share * len(data))])
    with pytest.raises(ReadError, match="cannot be read"):
        kept[0].load(resume=True)


def test_something_else_that_torch_saved_is_said(kept):
    torch.save([1, 2], kept[1])
    with pytest.raises(ReadError, match="it holds no state"):
        kept[0].load(resume=True)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no pipes")
@pytest.mark.parametrize("instead", [os.mkfifo, os.mkdir])
def test_a_pipe_or_a_folder_in_its_place_is_said(kept, instead):
    kept[1].unlink()
    instead(kept[1])
    with pytest.raises(ReadError, match="no regular file"):
        kept[0].load(resume=True)
