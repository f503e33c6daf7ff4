"""What keeps a first run from taking all memory or time, or the process with it."""
