"""The log of a run: a file to which every stage and message is appended."""

from __future__ import annotations

import contextlib
import logging
import sys
from pathlib import Path

import click

log = logging.getLogger("onnx_prune")


class _Log(logging.FileHandler):
    """A log that can no longer be written is given up, and said once; the run goes on."""

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: ARG002 - logging's own name
        log.removeHandler(self)
        with contextlib.suppress(OSError):  # what is still to be written fails again
            self.close()
        reason = getattr(sys.exc_info()[1], "strerror", None) or sys.exc_info()[1]
        click.echo(f"onnx-prune: the log cannot be written further ({reason}): {self.baseFilename}", err=True)


def open_log(path: Path) -> None:
    from ...passes.errors import UsageError

    try:
        handler = _Log(path, encoding="utf-8", errors="backslashreplace")
    except OSError as error:
        raise UsageError(
            f"the log cannot be written ({error.strerror})", where=f"--log-file {path}", fix="choose another place"
        ) from None
    handler.setFormatter(logging.Formatter("%(asctime)s %(message)s"))
    log.addHandler(handler)
    log.setLevel(logging.INFO)
    log.propagate = False
    log.info("onnx-prune %s", " ".join(sys.argv[1:]))


def close_log() -> None:
    for handler in list(log.handlers):
        log.removeHandler(handler)
        with contextlib.suppress(OSError):
            handler.close()
