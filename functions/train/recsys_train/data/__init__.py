"""Read files of interactions."""
