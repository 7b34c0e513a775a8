"""The format of API keys, their ids and their authentication."""
