"""The object store: one port, adapters for a directory and for S3."""
