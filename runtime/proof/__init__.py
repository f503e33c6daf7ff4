"""The proof: the cut model computes what the masked original does."""
