"""Read files of items, and merge them into the item catalogue of a key."""
