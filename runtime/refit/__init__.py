"""Refits of a cut network on data."""
