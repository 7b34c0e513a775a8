"""The package that all Lambda functions and the local service share.

It contains the errors, API keys, object store, registry, item catalogue and model.
"""
