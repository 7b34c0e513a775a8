"""Build a new catalogue from the records of a file. The file replaces the previous catalogue, or is merged into it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from recsys.catalogue.catalogue import KNOWN_KINDS, Catalogue
from recsys.catalogue.columns import (
    MISSING,
    BooleanColumn,
    Column,
    Kind,
    NumberColumn,
    TagsColumn,
    TextColumn,
)
from recsys.errors import InvalidData
from recsys.model.vocabulary import Vocabulary
from recsys_train.catalogue.records import ItemRecord
from recsys_train.catalogue.report import CatalogueReport
from recsys_train.catalogue.values import UnusableValue, infer_kind, is_blank, parse, parse_id

MAX_ITEMS: Final = 2_000_000
MAX_COLUMNS: Final = 50
MAX_NAME_LENGTH: Final = 100
ITEM_ID: Final = "item_id"
_LENGTH_ARRAY: Final = {Kind.NUMBER: "values", Kind.BOOLEAN: "values", Kind.TEXT: "codes", Kind.TAGS: "starts"}
"""Array of a column, by kind, whose length gives the number of items. For tags, its length is one greater."""


@dataclass(slots=True)
class ItemUpdates:
    """The usable values of a file, by column and by item.

    The position of an item is its index in the order of first appearance in the file.

    Parameters
    ----------
    items
        Position of each item, by item id.
    values
        Values of each column, by position. None deletes the value of the item.
    lines
        Line of the item's last record, by position, for error messages.
    """

    items: dict[str, int] = field(default_factory=dict)
    values: dict[str, dict[int, Any]] = field(default_factory=dict)
    lines: dict[int, int] = field(default_factory=dict)


def read_updates(records: Iterable[ItemRecord], item_column: str | None, report: CatalogueReport) -> ItemUpdates:
    """Collect the values of all records, for each item and column.

    A blank field of a CSV leaves the attribute unchanged. In JSON and Parquet, `null` deletes the attribute.

    Parameters
    ----------
    records
        The records of the file.
    item_column
        Name of the column with the item ids; None for `item_id`.
    report
        Report to which the bad lines are added.

    Raises
    ------
    InvalidData
        There is no column with item ids, or too many columns or items.
    UnusableItems
        Too many lines cannot be used.
    """
    updates = ItemUpdates()
    names: dict[str, str] = {}
    for record in records:
        values = {_column_name(name, item_column, names): value for name, value in record.values.items()}
        if ITEM_ID not in values and report.format in ("csv", "parquet"):
            raise _no_item_column(list(record.values), item_column)
        _add(record.line, values, updates, report)
        if len(updates.items) > MAX_ITEMS:
            raise InvalidData(
                f"Expected at most {MAX_ITEMS:,} items. Received more.",
                code="too-many-items",
                hint="Leave out items that are no longer sold.",
            )
    report.check()
    return updates


def _column_name(name: str, item_column: str | None, names: dict[str, str]) -> str:
    """Return the name under which a column is stored, after checking the name.

    A name that the service knows may be in capital letters, and may have spaces instead of underscores. `names` caches
    the results for earlier records.
    """
    found = names.get(name)
    if found is None:
        if name == item_column:
            found = ITEM_ID
        else:
            known = name.strip().lower().replace(" ", "_")
            found = known if known in KNOWN_KINDS or (known == ITEM_ID and item_column is None) else name.strip()
        if not found or len(found) > MAX_NAME_LENGTH or "`" in found or not found.isprintable():
            raise InvalidData(
                f"Expected column names of 1 to {MAX_NAME_LENGTH} printable characters without a backquote. "
                f"Received: {name[:MAX_NAME_LENGTH]!r}.",
                code="invalid-column-name",
                hint="Rename the column.",
            )
        names[name] = found
        if len(names) > MAX_COLUMNS + 1:
            raise InvalidData(
                f"Expected at most {MAX_COLUMNS} columns. Received more.",
                code="too-many-columns",
                hint="Leave out columns that are neither shown nor used in filters.",
            )
    return found


def _no_item_column(names: list[str], item_column: str | None) -> InvalidData:
    return InvalidData(
        f"Column `{item_column or ITEM_ID}` is missing. Found: {', '.join(names)[:500]}.",
        code="missing-column",
        hint="Rename the column with the item ids to item_id, or pass its name: item=COLUMN.",
    )


def _add(line: int, values: dict[str, Any], updates: ItemUpdates, report: CatalogueReport) -> None:
    try:
        item_id = parse_id(values.pop(ITEM_ID, None))
    except UnusableValue as error:
        report.add_bad_line(line, "bad-item-id", f"{ITEM_ID} {error}", ITEM_ID)
        return
    parsed: dict[str, Any] = {}
    for name, value in values.items():
        if is_blank(value):
            if report.format != "csv":
                parsed[name] = None
            continue
        try:
            parsed[name] = parse(KNOWN_KINDS[name], value) if name in KNOWN_KINDS else _plain(value)
        except UnusableValue as error:
            report.add_bad_line(line, "bad-value", f"{name} {error}", name)
            return
    report.lines += 1
    report.repeated_items += item_id in updates.items
    position = updates.items.setdefault(item_id, len(updates.items))
    updates.lines[position] = line
    for name in values:
        updates.values.setdefault(name, {})
    for name, value in parsed.items():
        updates.values[name][position] = value


def _plain(value: Any) -> Any:
    """Check a value of a column that the service does not know, and return the value unchanged.

    The kind of such a column is determined at the end of the file.
    """
    if isinstance(value, list):
        return parse(Kind.TAGS, value)
    parse(Kind.TEXT, value)
    return value


def apply_updates(base: Catalogue, updates: ItemUpdates, report: CatalogueReport) -> Catalogue:
    """Return a catalogue with the updates applied to `base`.

    If `base` is `EMPTY`, the result contains only the updates.

    Raises
    ------
    UnusableItems
        Too many values do not fit the kind of their column.
    InvalidData
        The result has too many items or columns.
    """
    item_ids = list(base.items)
    known = {item_id: row for row, item_id in enumerate(item_ids)} if item_ids else {}
    new_ids = [item_id for item_id in updates.items if item_id not in known]
    item_ids += new_ids
    rows = _rows_of(updates, known, new_ids)
    kinds = _kinds(base, updates)
    if len(item_ids) > MAX_ITEMS or len(kinds) > MAX_COLUMNS:
        raise InvalidData(
            f"Expected at most {MAX_ITEMS:,} items and {MAX_COLUMNS} columns. The catalogue would have "
            f"{len(item_ids):,} items and {len(kinds)} columns.",
            code="catalogue-too-large",
            hint="Replace the catalogue with PUT /v1/items, without the items and columns that are no longer used.",
        )
    values = _fitting_values(kinds, updates, report)
    columns = {
        name: _updated(base.columns.get(name), kind, values.get(name, {}), rows, len(item_ids))
        for name, kind in kinds.items()
    }
    report.added, report.updated = len(new_ids), len(updates.items) - len(new_ids)
    report.items, report.columns = len(item_ids), {name: str(kind) for name, kind in kinds.items()}
    return Catalogue(Vocabulary.of(item_ids) if new_ids else base.items, columns)


def _rows_of(updates: ItemUpdates, known: Mapping[str, int], new_ids: Sequence[str]) -> NDArray[np.int64]:
    """Return the row index of each updated item in the resulting catalogue, (n_updated,) int64.

    The result has the order of the updated items.
    """
    new_rows = {item_id: len(known) + position for position, item_id in enumerate(new_ids)}
    return np.array([known.get(item_id, new_rows.get(item_id, 0)) for item_id in updates.items], dtype=np.int64)


def _kinds(base: Catalogue, updates: ItemUpdates) -> dict[str, Kind]:
    """Return the kind of each column in the resulting catalogue.

    A column of `base` keeps its kind. A column that the service knows has a fixed kind. The kind of any other column is
    inferred from its values. If such a column has no values, the column is omitted.
    """
    kinds: dict[str, Kind] = {name: column.kind for name, column in base.columns.items()}
    for name, values in updates.values.items():
        if name not in kinds:
            present = [value for value in values.values() if value is not None]
            if present or name in KNOWN_KINDS:
                kinds[name] = KNOWN_KINDS[name] if name in KNOWN_KINDS else infer_kind(present)
    return kinds


def _fitting_values(
    kinds: Mapping[str, Kind], updates: ItemUpdates, report: CatalogueReport
) -> dict[str, dict[int, Any]]:
    """Return the values of each column, by the position of the item among the updated items.

    Values of columns that the service does not know are parsed here, because the kinds of these columns are known only
    at the end of the file. A value that does not fit the kind of its column is left out, and its line counts as bad.
    """
    fitting: dict[str, dict[int, Any]] = {}
    for name, values in updates.values.items():
        if name not in kinds:
            continue
        if name in KNOWN_KINDS:
            fitting[name] = values
            continue
        fitting[name] = {}
        for position, value in values.items():
            try:
                fitting[name][position] = None if value is None else parse(kinds[name], value)
            except UnusableValue as error:
                report.lines -= 1
                report.add_bad_line(updates.lines[position], "bad-value", f"{name} {error}", name)
    report.check()
    return fitting


# -- columns


def _updated(
    column: Column | None, kind: Kind, values: Mapping[int, Any], rows: NDArray[np.int64], n_items: int
) -> Column:
    """Return a column of `n_items` items with new values.

    `values` contains the new values by the position of the item among the updated items. `rows`, (n_updated,), contains
    the row index of each updated item.
    """
    extended = _blank(kind, n_items) if column is None else _extended_to(column, n_items)
    changed = rows[np.fromiter(values, dtype=np.int64, count=len(values))]
    new = list(values.values())
    match extended:
        case NumberColumn():
            numbers = extended.values.copy()
            numbers[changed] = [np.nan if value is None else value for value in new]
            return NumberColumn(numbers)
        case BooleanColumn():
            booleans = extended.values.copy()
            booleans[changed] = [MISSING if value is None else int(value) for value in new]
            return BooleanColumn(booleans)
        case TextColumn():
            return _updated_texts(extended, changed, new) if new else extended
        case TagsColumn():
            return _updated_tags(extended, changed, new) if new else extended


def _blank(kind: Kind, n_items: int) -> Column:
    match kind:
        case Kind.NUMBER:
            return NumberColumn(np.full(n_items, np.nan))
        case Kind.BOOLEAN:
            return BooleanColumn(np.full(n_items, MISSING, dtype=np.int8))
        case Kind.TEXT:
            return TextColumn(np.full(n_items, MISSING, dtype=np.int32), Vocabulary.of([]))
        case Kind.TAGS:
            starts = np.zeros(n_items + 1, dtype=np.int64)
            return TagsColumn(starts, np.zeros(0, dtype=np.int32), Vocabulary.of([]))


def _extended_to(column: Column, n_items: int) -> Column:
    """Return the column, extended to `n_items` items by missing values."""
    n_before = len(column.arrays()[_LENGTH_ARRAY[column.kind]]) - (column.kind is Kind.TAGS)
    rows = np.full(n_items, MISSING, dtype=np.int64)
    rows[:n_before] = np.arange(n_before)
    return column.take(rows)


def _updated_texts(column: TextColumn, changed: NDArray[np.int64], new: list[str | None]) -> TextColumn:
    texts, index = _with_texts(column.texts, [text for text in new if text is not None])
    codes = column.codes.copy()
    codes[changed] = [MISSING if text is None else index[text] for text in new]
    used = np.unique(codes[codes >= 0])
    renumbered = np.full(len(texts) + 1, MISSING, dtype=np.int32)  # the last entry belongs to the code -1
    renumbered[used] = np.arange(len(used))
    return TextColumn(renumbered[codes], Vocabulary.of([texts[code] for code in used.tolist()]))


def _updated_tags(column: TagsColumn, changed: NDArray[np.int64], new: list[list[str] | None]) -> TagsColumn:
    texts, index = _with_texts(column.texts, [tag for tags in new for tag in tags or ()])
    n_items = len(column.starts) - 1
    unchanged = np.arange(n_items)
    unchanged[changed] = MISSING
    kept = column.take(unchanged)
    added = [np.array([index[tag] for tag in tags or ()], dtype=np.int32) for tags in new]
    owners = np.concatenate([kept.owners(), np.repeat(changed, [len(codes) for codes in added])])
    codes = np.concatenate([kept.codes, *added])[np.argsort(owners, kind="stable")]
    starts = np.zeros(n_items + 1, dtype=np.int64)
    np.cumsum(np.bincount(owners, minlength=n_items), out=starts[1:])
    used, renumbered = np.unique(codes, return_inverse=True)
    return TagsColumn(starts, renumbered.astype(np.int32), Vocabulary.of([texts[code] for code in used.tolist()]))


def _with_texts(texts: Vocabulary, new: list[str]) -> tuple[list[str], dict[str, int]]:
    """Return all texts, in which the new texts follow the existing ones, and the index of each text."""
    index = {text: code for code, text in enumerate(texts)}
    for text in new:
        index.setdefault(text, len(index))
    return list(index), index
