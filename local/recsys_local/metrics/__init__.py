"""Operational metrics of the local service, in the Prometheus format."""
