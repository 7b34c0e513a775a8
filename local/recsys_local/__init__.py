"""The whole service on one machine, and the command line."""
