"""Bring a catalogue into the order of a model's items, so that the top-N search can use the masks of filters directly.

A mask states for each item whether the item fulfils a filter.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from recsys.catalogue.catalogue import AVAILABLE, Catalogue
from recsys.catalogue.columns import MISSING, BooleanColumn, Column, NumberColumn, TextColumn
from recsys.errors import FieldError, InvalidRequest
from recsys.model.new_items import NewItems
from recsys.model.vocabulary import Vocabulary

Mask = NDArray[np.bool_]
Embed = Callable[[Catalogue, NDArray[np.int64]], NewItems | None]
_MASK_BYTES: Final = 64 * 2**20
_MAX_MASKS: Final = 1024
"""Limits of the cached masks, which allow 64 masks of a million items. Not tuned."""


class BoundCatalogue:
    """The attributes of a model's items. Items that the catalogue does not contain have no values.

    A column is brought into the order of the model's items at its first use. The masks of recently used filters are
    cached. Instances are thread-safe.

    Parameters
    ----------
    version
        Name of the catalogue's version.
    catalogue
        The catalogue.
    items
        Items of the model.
    exploration
        Largest share of new items in a list, in [0, 1], for requests that do not state a share.
    embed
        Function that returns the new items, given the catalogue and the rows of the items that the model does not
        contain. If `embed` is None, there are no new items.

    Attributes
    ----------
    new_items
        Items that the model does not contain, with embeddings computed from their attributes. Their indices follow
        those of the model's items. None if there are no new items.
    n_items
        Number of the model's items and the new items together.
    unavailable
        Mask of the items whose attribute `available` is false, (n_items,) bool. None if there are no such items.
    """

    def __init__(
        self,
        version: str,
        catalogue: Catalogue,
        items: Vocabulary,
        *,
        exploration: float = 0.0,
        embed: Embed | None = None,
    ) -> None:
        self.version = version
        self.exploration = exploration
        self.catalogue = catalogue
        rows = _rows_of(catalogue.items, items)
        others = np.setdiff1d(np.arange(len(catalogue.items)), rows)
        self.new_items = embed(catalogue, others) if embed is not None and len(others) else None
        if self.new_items is not None:
            rows = np.concatenate([rows, _rows_of(catalogue.items, self.new_items.items)])
        self.n_items = len(rows)
        self._rows = rows
        self._columns: dict[str, Column] = {}
        self._masks: OrderedDict[tuple[str | None, bool], Mask] = OrderedDict()
        self._lock = threading.Lock()
        self.unavailable = self._unavailable()

    @property
    def size_bytes(self) -> int:
        """Largest possible memory of the catalogue, the reordered columns, the masks and the new items, in bytes."""
        new_bytes = 0 if self.new_items is None else self.new_items.size_bytes
        masks_bytes = min(_MASK_BYTES, _MAX_MASKS * self.n_items)
        return 2 * self.catalogue.size_bytes + self._rows.nbytes + masks_bytes + new_bytes

    def attributes(self, item_indices: Sequence[int], names: tuple[str, ...]) -> list[dict[str, Any]]:
        """Return one dictionary per item, with the requested attributes by name. A missing value is None.

        Raises
        ------
        InvalidRequest
            A column does not exist.
        """
        self.check_names(names, "/fields")
        rows = self._rows[np.asarray(item_indices, dtype=np.int64)].tolist()
        missing = dict.fromkeys(names)
        return [dict(missing) if row == MISSING else self.catalogue.attributes(row, names) for row in rows]

    def check_names(self, names: Sequence[str], pointer: str) -> None:
        """Raise `InvalidRequest` unless all columns exist.

        `pointer` is the JSON pointer to `names` in the request, for the error message.
        """
        for name in names:
            if name not in self.catalogue.columns:
                detail = f"Expected columns of the catalogue: {', '.join(self.catalogue.columns)}. Received: {name!r}."
                raise InvalidRequest(
                    detail,
                    code="unknown-attribute",
                    hint="GET /v1/items lists the columns of the catalogue.",
                    errors=[FieldError("unknown-attribute", detail, pointer=pointer)],
                )

    def column(self, name: str) -> Column:
        """Return an existing column, in the order of the model's items and the new items, (n_items,)."""
        found = self._columns.get(name)
        if found is None:
            found = self._columns[name] = self.catalogue.columns[name].take(self._rows)
        return found

    def groups(self, name: str, pointer: str) -> NDArray[np.int32]:
        """Return the index of each item's group, (n_items,) int32.

        Items with the same value in the column form a group. The index is -1 for an item without a value.

        Raises
        ------
        InvalidRequest
            The column does not exist, or holds tags, of which an item can have several.
        """
        self.check_names([name], pointer)
        match self.column(name):
            case TextColumn(codes):
                return codes
            case BooleanColumn(values):
                return values.astype(np.int32)
            case NumberColumn(numbers):
                _, numbered = np.unique(numbers, return_inverse=True)
                return np.where(np.isnan(numbers), MISSING, numbered).astype(np.int32)
        detail = f"Expected a column with one value per item. Received: {name!r}, a column of tags."
        raise InvalidRequest(detail, errors=[FieldError("tags", detail, pointer=pointer)])

    def eligible(self, filter_text: str | None, *, include_unavailable: bool) -> Mask | None:
        """Return the mask of the items that fulfil a filter and are available, (n_items,) bool.

        If `filter_text` is None, only the availability counts. If `include_unavailable` is true, the availability is
        ignored. The result is None if there is no filter and the availability excludes no item. Callers share the mask
        and cannot write to it.

        Raises
        ------
        InvalidRequest
            The filter is not valid.
        """
        leaves_out = self.unavailable is not None and not include_unavailable
        if filter_text is None and not leaves_out:
            return None
        key = (filter_text, leaves_out)
        with self._lock:
            mask = self._masks.get(key)
            if mask is not None:
                self._masks.move_to_end(key)
                return mask
        mask = self._filtered(filter_text)
        if leaves_out and self.unavailable is not None:
            mask &= ~self.unavailable
        mask.flags.writeable = False
        with self._lock:
            self._masks[key] = mask
            while len(self._masks) > min(_MAX_MASKS, max(1, _MASK_BYTES // max(1, self.n_items))):
                self._masks.popitem(last=False)
        return mask

    def _filtered(self, filter_text: str | None) -> Mask:
        if filter_text is None:
            return np.ones(self.n_items, dtype=np.bool_)
        from recsys_recommend.filtering import evaluation, expression  # noqa: PLC0415  # the parser takes 0.1 s to import

        def find_column(name: expression.ColumnName) -> Column:
            if name.name not in self.catalogue.columns:
                known = ", ".join(self.catalogue.columns)
                raise expression.invalid_filter(
                    f"expected a column of the catalogue: {known}. Received: {name.name!r}", name.position
                )
            return self.column(name.name)

        return evaluation.evaluate(expression.parse(filter_text), find_column)

    def _unavailable(self) -> Mask | None:
        column = self.catalogue.columns.get(AVAILABLE)
        if not isinstance(column, BooleanColumn):
            return None
        mask = column.take(self._rows).values == 0
        return mask if mask.any() else None


def _rows_of(wanted: Vocabulary, items: Vocabulary) -> NDArray[np.int64]:
    """Return the position of each of `items` in `wanted`, or -1 for an item that is not in `wanted`, (n_items,) int64.

    A dictionary lookup takes 0.5 µs per item. The binary search of `Vocabulary.find` would take longer.
    """
    rows = {item_id: row for row, item_id in enumerate(wanted)}
    return np.fromiter((rows.get(item_id, MISSING) for item_id in items), dtype=np.int64, count=len(items))
