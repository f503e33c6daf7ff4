"""The process in which a command runs."""
