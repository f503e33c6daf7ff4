"""Whether what was read is a model at all, and within measure."""
