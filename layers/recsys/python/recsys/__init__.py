"""The package that all functions share. It contains errors, API keys, the object store, the registry and the model."""
