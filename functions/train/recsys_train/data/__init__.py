"""Read a CSV into interactions."""
