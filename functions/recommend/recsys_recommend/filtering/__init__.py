"""Filters on the attributes of items: the parser of the expressions, their evaluation, and the cache of the results."""
