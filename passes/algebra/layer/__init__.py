"""The refit of one layer: what it is to reach behind an activation, on what rows, and whether it helps."""
