"""API keys: their format, their identifiers and their authentication."""
