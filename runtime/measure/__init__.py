"""Measurements of a running model: moments, sensitivity, accuracy, latency."""
