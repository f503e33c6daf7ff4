"""Criteria that look at the moments of what consumers read."""
