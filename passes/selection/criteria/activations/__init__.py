"""Criteria that look at the activations themselves."""
