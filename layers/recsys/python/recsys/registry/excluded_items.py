"""The items that the trainings of a key leave out, stored as text.

The text is part of the record of each version and of the record of the key. The two records change in one transaction
(docs/decisions/0057-excluded-items.md).
"""

from __future__ import annotations

import json
from collections.abc import Sequence


def parse(text: str | None) -> tuple[str, ...]:
    """Parse item ids that `to_text` returned. None stands for no items.

    Examples
    --------
    >>> parse(to_text(["POSTAGE", "M"])), to_text([])
    (('POSTAGE', 'M'), None)
    """
    return () if text is None else tuple(json.loads(text))


def to_text(item_ids: Sequence[str]) -> str | None:
    """Convert item ids to compact JSON text. An empty list becomes None."""
    return json.dumps(list(item_ids), separators=(",", ":")) if item_ids else None
