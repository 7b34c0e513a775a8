"""API keys: format, identifiers, authentication."""
