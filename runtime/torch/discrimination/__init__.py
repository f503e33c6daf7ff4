"""Discrimination-aware channel pruning: losses at intermediate depths, stages, greedy selection with updates."""
