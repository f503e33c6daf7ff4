"""Flags, and what is made of them."""
