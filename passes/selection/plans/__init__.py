"""Plans: what is removed from a model, and whether it fits one."""
