"""The interface of the object store, and its adapters for a directory and for S3."""
