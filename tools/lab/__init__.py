"""What makes this project's own pages and figures: for its developers, from a checkout; wheels do not hold it."""
