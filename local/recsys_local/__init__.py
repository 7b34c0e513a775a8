"""The service on one machine, and the command line."""
