"""Options: from files and into files, and their sections in the help."""
