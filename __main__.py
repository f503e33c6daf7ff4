"""`python -m onnx_prune` is the command line, and so is the command onnx-prune, which calls `main`."""

from __future__ import annotations

import os
import signal


def main() -> None:
    """Run the command line. Until it is read, which takes a tenth of a second, Ctrl-C ends in the same words."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # else somebody wants it ignored: nohup
        signal.signal(signal.SIGINT, _interrupted)
    from .tools.cli import start

    start()


def _interrupted(*_: object) -> None:
    os.write(2, b"onnx-prune: interrupted; nothing more was written\n")
    os._exit(130)


if __name__ == "__main__":
    main()
