"""Command-line drivers and the report; no algorithms."""
