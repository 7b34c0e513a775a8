"""Convert rows of the registry to DynamoDB items and back.

The attributes of an item are the members of the document and `pk`, `sk`, `etag` and `ttl`.
"""

from __future__ import annotations

import secrets
from typing import Any, Final

from recsys.clock import Timestamp, to_epoch_s
from recsys.registry.documents import Document
from recsys.registry.table import Address, Row

_MAX_PARTITION_BYTES: Final = 2048
_MAX_SORT_BYTES: Final = 1024
_OWN_ATTRIBUTES: Final = ("pk", "sk", "etag", "ttl")


def fits(address: Address) -> bool:
    """Return whether an address is short enough for a DynamoDB key.

    DynamoDB rejects a longer key with an error. Callers treat the row as absent instead, because no row can have such a
    key.
    """
    return len(address.partition.encode()) <= _MAX_PARTITION_BYTES and len(address.sort.encode()) <= _MAX_SORT_BYTES


def to_key(address: Address) -> dict[str, Any]:
    """Return the primary key of an item."""
    return {"pk": {"S": address.partition}, "sk": {"S": address.sort}}


def to_item(address: Address, document: Document) -> dict[str, Any]:
    """Return an item that stores `document` at `address`, with a new etag."""
    item = {name: {"S": value} if isinstance(value, str) else {"N": str(value)} for name, value in document.items()}
    if "expires_at" in document:
        # The time is rounded up to a second, because DynamoDB must not delete the item early.
        item["ttl"] = {"N": str(to_epoch_s(Timestamp(str(document["expires_at"]))) + 1)}
    return {**item, **to_key(address), "etag": {"S": secrets.token_hex(8)}}


def to_row(item: dict[str, Any]) -> Row:
    """Convert an item, as returned by `to_item` or read from DynamoDB, to a row."""
    document: Document = {
        name: value["S"] if "S" in value else int(value["N"])
        for name, value in item.items()
        if name not in _OWN_ATTRIBUTES
    }
    return Row(Address(item["pk"]["S"], item["sk"]["S"]), document, item["etag"]["S"])
