"""Criteria: each orders a group's units by the harm that their removal does."""
