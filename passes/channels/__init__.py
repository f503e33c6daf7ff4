"""Which channels live and die together, what they cost, and how they are cut."""
