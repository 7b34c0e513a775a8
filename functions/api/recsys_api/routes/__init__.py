"""The HTTP routes of the function `api`, with one module per subject."""
