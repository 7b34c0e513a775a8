"""Retention: which versions, uploads and leftovers are deleted, and when."""
