"""The function `train`, which processes events, reads files, fits and evaluates models, and publishes versions."""
