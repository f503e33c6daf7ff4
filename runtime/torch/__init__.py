"""The round trip through torch: the graph as a module, fine-tuned, its values written back."""

import importlib.util

from ...passes.errors import UsageError

if importlib.util.find_spec("torch") is None:
    raise UsageError(
        "this needs torch, which is not installed", where="this environment", fix="pip install onnx-prune[torch]"
    )
