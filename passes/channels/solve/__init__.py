"""Labels solved: components of the ties, which axis of a split stays free, which units are alike."""
