"""`python -m onnx_prune` is the command line."""

from __future__ import annotations

from .tools.cli import start

if __name__ == "__main__":
    start()
