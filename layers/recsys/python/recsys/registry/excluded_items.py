"""Convert the ids of excluded items to text and back. The trainings of a key leave excluded items out.

The text is part of the record of each version and of the record of the key. A transaction changes both records
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
