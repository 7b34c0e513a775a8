"""Items that a key's trainings leave out, stored as text within the records of its versions and of the key.

They belong to a version, so that they change with the version in the same transaction
(docs/decisions/0057-excluded-items.md).
"""

from __future__ import annotations

import json
from collections.abc import Sequence


def parse(text: str | None) -> tuple[str, ...]:
    """Return the item ids that `to_text` wrote. None stands for no items.

    Examples
    --------
    >>> parse(to_text(["POSTAGE", "M"])), to_text([])
    (('POSTAGE', 'M'), None)
    """
    return () if text is None else tuple(json.loads(text))


def to_text(item_ids: Sequence[str]) -> str | None:
    """Return item ids as compact JSON text, or None if there are none."""
    return json.dumps(list(item_ids), separators=(",", ":")) if item_ids else None
