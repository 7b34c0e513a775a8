"""From the bytes of a CSV to interactions."""
