"""Convert the records of the registry to the flat documents that every adapter stores."""

from __future__ import annotations

import json
from dataclasses import fields
from typing import TYPE_CHECKING, Any, Protocol

from recsys.clock import Timestamp

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

Document = dict[str, str | int]
"""A flat document of strings and integers. Fields that are None are omitted."""


class HasJson(Protocol):
    """An object inside a record, such as the progress of a job, that can be stored as JSON."""

    def to_json(self) -> dict[str, Any]:
        """Return the member as a dict that `json.dumps` accepts."""
        ...


def to_json_text(value: HasJson | dict[str, Any] | list[Any]) -> str:
    """Convert a nested member to the JSON text that a document stores."""
    if not isinstance(value, dict | list):
        value = value.to_json()
    return json.dumps(value, separators=(",", ":"), allow_nan=False)


def to_document(record: DataclassInstance, **converted: str | None) -> Document:
    """Return a record as a flat document. Nested members become JSON text, and members that are None are omitted.

    `converted` holds members that the caller has already converted to text. Its values replace those of the record.
    """
    document: Document = {}
    for member in fields(record):
        name = member.name
        value = converted[name] if name in converted else getattr(record, name)
        if value is not None:
            document[name] = value if isinstance(value, str | int) else to_json_text(value)
    return document


def known_fields(cls: type[DataclassInstance], document: Document) -> dict[str, Any]:
    """Return the members of a document that are fields of `cls`.

    Other members are ignored, because a newer release may have written them.
    """
    names = {member.name for member in fields(cls)}
    return {name: value for name, value in document.items() if name in names}


def is_expired(expires_at: Timestamp | None, now: Timestamp) -> bool:
    """Return whether a record has expired and counts as deleted. A record without `expires_at` never expires."""
    return expires_at is not None and expires_at <= now
