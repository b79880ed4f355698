"""Measurements of the running product; see README.md."""
