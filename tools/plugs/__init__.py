"""onnx-prune as a step of other tools."""
