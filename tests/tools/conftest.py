"""The command line as a function, in a folder of its own."""

from __future__ import annotations

import sys

import pytest
from onnx_prune import models
from onnx_prune.tools import cli


@pytest.fixture
def run(monkeypatch, capsys, tmp_path):
    """Arguments -> (exit code, standard output, standard error), in a folder with a copy of the demo model."""
    (tmp_path / "digits.onnx").write_bytes(models.digits_model().read_bytes())
    monkeypatch.chdir(tmp_path)

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["onnx-prune", *map(str, arguments)])
        code = 0
        try:
            cli.main()
        except SystemExit as end:
            code = end.code
        printed = capsys.readouterr()
        return code, printed.out, printed.err

    return run


@pytest.fixture
def files(tmp_path):
    """The names of the files that are there now."""
    return lambda: sorted(path.name for path in tmp_path.iterdir())
