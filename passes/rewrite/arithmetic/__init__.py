"""Models that compute the same with calmer arithmetic, to be compared with one another."""
