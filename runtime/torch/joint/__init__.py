"""Several layers fitted together: what the layers of a block cannot do one by one."""
