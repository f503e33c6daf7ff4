# What this project uses of olive-ai, which is not installed where types are checked.
