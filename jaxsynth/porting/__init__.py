"""Weights of the original networks, read from their files."""
