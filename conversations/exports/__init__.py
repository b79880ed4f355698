"""Whole conversations for other systems, read and written a little at a time."""
