"""Shared package of the functions: errors, API keys, object store, registry and serving model."""
