"""Milliseconds: a budget of them that is met, and widths that take few of them."""
