"""The item catalogue of a key. Its columns hold attributes of items, such as the title, the category and the price."""
