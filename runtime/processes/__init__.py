"""Several processes as one: who this is, and sums over all of them."""
