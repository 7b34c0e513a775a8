"""The serving model, with its arithmetic, its artifact files and the ranking of items."""
