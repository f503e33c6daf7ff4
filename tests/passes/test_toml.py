"""What is no TOML is said, and read with the mark that Windows puts in front of texts."""

from __future__ import annotations

import os

import pytest
from onnx_prune.passes.errors import ReadError
from onnx_prune.passes.toml import read_toml


@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
def test_a_mark_in_front_is_no_text(tmp_path, mark):
    (tmp_path / "a.toml").write_bytes(mark + b"seed = 1\n")
    assert read_toml(tmp_path / "a.toml") == {"seed": 1}


@pytest.mark.parametrize("text", [b"\xff", b"a = ", b"a = " + b"[" * 100_000, b"a = " + b"9" * 5000])
def test_what_is_no_toml_is_said(tmp_path, text):
    (tmp_path / "a.toml").write_bytes(text)
    with pytest.raises(ReadError, match="cannot be read as TOML"):
        read_toml(tmp_path / "a.toml")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no pipes")
@pytest.mark.parametrize("instead", [os.mkfifo, os.mkdir])
def test_a_pipe_or_a_folder_is_said(tmp_path, instead):
    instead(tmp_path / "a.toml")
    with pytest.raises(ReadError, match="no regular file"):
        read_toml(tmp_path / "a.toml")
