"""Where passes and runtime meet: read, decide, write."""
