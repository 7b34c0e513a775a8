"""Registry of keys, jobs and model versions, with adapters for SQLite and DynamoDB."""
