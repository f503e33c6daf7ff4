"""Analyses and transforms of graphs; nothing here runs a model."""
