"""Other changes of a graph: taps, one-shot refits, BatchNormalization, heads."""
