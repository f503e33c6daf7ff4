"""Criteria that look at gradients of the loss by gates on the units."""
