"""Settings of a run as a file."""
