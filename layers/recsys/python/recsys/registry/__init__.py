"""The registry of keys, jobs and versions: records and rules, one port, adapters for SQLite and DynamoDB."""
