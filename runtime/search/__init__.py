"""What networks of any widths are worth, tried by the hundred."""
