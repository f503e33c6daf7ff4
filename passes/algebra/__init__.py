"""Matrices alone, no graph: moments, Gram matrices, least squares, which units to remove."""
