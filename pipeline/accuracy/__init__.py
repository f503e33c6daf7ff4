"""How accurate the result has to be, and the smallest model that is."""
