"""Filter items by their attributes. The modules parse filter expressions, evaluate them, and cache the results."""
