"""Gradients of a loss by gates on the units of every group."""
