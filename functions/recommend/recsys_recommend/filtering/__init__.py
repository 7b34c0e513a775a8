"""Filters on the attributes of items: the expression language, its evaluation, and the masks for the search."""
