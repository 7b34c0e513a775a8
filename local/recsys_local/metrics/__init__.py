"""Operational metrics of the local service, in the format of Prometheus."""
