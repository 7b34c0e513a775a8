"""Object store: its interface, and adapters for a directory and for S3."""
