"""Evaluate a filter expression on the columns of a catalogue, for all items at once."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from recsys.catalogue.columns import MISSING, BooleanColumn, Column, Kind, NumberColumn, TagsColumn, TextColumn
from recsys.model.vocabulary import Vocabulary
from recsys_recommend.filtering.expression import (
    OPERATORS,
    ColumnName,
    Combination,
    Comparison,
    Expression,
    Literal,
    Membership,
    Negation,
    Truth,
    invalid_filter,
)

Mask = NDArray[np.bool_]
FindColumn = Callable[[ColumnName], Column]
"""Function that returns the column with the given name, one value per item, or raises `InvalidRequest` if there is no
such column."""
_ORDERED: frozenset[str] = frozenset({"<", "<=", ">", ">="})


def evaluate(expression: Expression, find_column: FindColumn) -> Mask:
    """Return the mask of the items for which an expression is true, (n_items,) bool.

    Raises
    ------
    InvalidRequest
        A column does not exist, or a value does not fit the kind of its column.
    """
    match expression:
        case Combination():
            combine = np.logical_or if expression.is_any else np.logical_and
            masks = [evaluate(part, find_column) for part in expression.parts]
            result = masks[0]
            for mask in masks[1:]:
                result = combine(result, mask, out=result)
            return result
        case Negation():
            return ~evaluate(expression.part, find_column)
        case Truth():
            return _truth(find_column(expression.column), expression.column)
        case Membership():
            return _membership(expression, find_column(expression.column))
        case Comparison():
            return _comparison(expression, find_column(expression.column))


def _truth(column: Column, name: ColumnName) -> Mask:
    if not isinstance(column, BooleanColumn):
        raise invalid_filter(f"{name.name} is a {column.kind} column; expected a comparison", name.position)
    mask: Mask = column.values == 1
    return mask


def _comparison(comparison: Comparison, column: Column) -> Mask:
    sign, value = comparison.operator, comparison.value
    if sign == "!=":
        return ~_comparison(Comparison(comparison.column, "==", value), column)
    if value is None:
        if sign in _ORDERED:
            raise invalid_filter("null has no order; expected == or !=", comparison.column.position)
        return is_missing(column)
    match column:
        case NumberColumn() if isinstance(value, float):
            result: Mask = OPERATORS[sign](column.values, value)
            return result
        case BooleanColumn() if isinstance(value, bool) and sign == "==":
            equal: Mask = column.values == int(value)
            return equal
        case TextColumn() if isinstance(value, str):
            return _with_codes(column, _compared(column.texts, sign, value))
    raise _does_not_fit(comparison.column, column, sign, value)


def _membership(membership: Membership, column: Column) -> Mask:
    if membership.needs_tags and not isinstance(column, TagsColumn):
        raise _does_not_fit(membership.column, column, "in", membership.values[0])
    match column:
        case NumberColumn() if all(isinstance(value, float) for value in membership.values):
            return np.isin(column.values, np.array(membership.values, dtype=np.float64))
        case TextColumn() | TagsColumn() if all(isinstance(value, str) for value in membership.values):
            wanted = np.zeros(len(column.texts), dtype=np.bool_)
            codes = [column.texts.find(value) for value in membership.values if isinstance(value, str)]
            wanted[[code for code in codes if code is not None]] = True
            return _with_codes(column, wanted)
    wrong = next((value for value in membership.values if not _fits(column, value)), None)
    raise _does_not_fit(membership.column, column, "in", wrong)


def is_missing(column: Column) -> Mask:
    """Return the mask of the items without a value, (n_items,) bool."""
    mask: Mask
    match column:
        case NumberColumn():
            mask = np.isnan(column.values)
        case BooleanColumn():
            mask = column.values == MISSING
        case TextColumn():
            mask = column.codes == MISSING
        case TagsColumn():
            mask = np.diff(column.starts) == 0
    return mask


def _with_codes(column: TextColumn | TagsColumn, wanted: Mask) -> Mask:
    """Return the mask of the items that have one of the wanted texts, (n_items,).

    `wanted` is a mask of texts, (n_texts,).
    """
    if isinstance(column, TextColumn):
        # The appended entry is selected by the code -1, which an item without a text has.
        return np.append(wanted, False)[column.codes]
    mask = np.zeros(len(column.starts) - 1, dtype=np.bool_)
    mask[column.owners()[wanted[column.codes]]] = True
    return mask


def _compared(texts: Vocabulary, sign: str, value: str) -> Mask:
    """Return the mask of the distinct texts for which a comparison is true, (n_texts,).

    Texts are ordered by code points.
    """
    wanted = np.zeros(len(texts), dtype=np.bool_)
    if sign == "==":
        code = texts.find(value)
        wanted[[] if code is None else [code]] = True
        return wanted
    # `texts.order` sorts by UTF-8 bytes, which is also the order of code points.
    begin = bisect_left(texts.order.data, value.encode(), key=lambda code: texts[code].encode())
    has_equal = begin < len(texts) and texts[int(texts.order[begin])] == value
    end = begin + (has_equal if sign in ("<=", ">") else 0)
    wanted[texts.order[:end] if sign in ("<", "<=") else texts.order[end:]] = True
    return wanted


def _fits(column: Column, value: Literal) -> bool:
    kinds = {Kind.NUMBER: float, Kind.TEXT: str, Kind.TAGS: str, Kind.BOOLEAN: type(None)}
    return isinstance(value, kinds[column.kind])


def _does_not_fit(name: ColumnName, column: Column, sign: str, value: Literal) -> Exception:
    hints = {
        Kind.NUMBER: f"{name.name} < 20 or {name.name} in [10, 20]",
        Kind.TEXT: f"{name.name} == 'tea' or {name.name} in ['tea', 'mugs']",
        Kind.TAGS: f"'sale' in {name.name} or {name.name} in ['sale', 'new']",
        Kind.BOOLEAN: f"{name.name} or not {name.name}",
    }
    received = "null" if value is None else repr(value) if isinstance(value, str) else str(value).lower()
    return invalid_filter(
        f"{name.name} is a {column.kind} column; expected a test such as {hints[column.kind]}. "
        f"Received: {sign} with {received[:60]}",
        name.position,
    )
