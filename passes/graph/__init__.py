"""The model as a graph: reading, shapes and small values, folding, export, files."""
