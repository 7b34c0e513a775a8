"""Retention: delete model versions, uploads and leftover files that are no longer kept."""
