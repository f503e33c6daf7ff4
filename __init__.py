"""Structured channel pruning of ONNX models."""
