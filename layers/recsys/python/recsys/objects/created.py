"""Parse the notifications that S3 sends when an object is created.

On AWS, every job starts with such a notification.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any
from urllib.parse import unquote_plus

from recsys.clock import from_datetime


@dataclass(frozen=True, slots=True)
class ObjectCreated:
    """An event that reports the creation of an object in the store.

    Parameters
    ----------
    name
        Name of the object.
    version
        Version of the object, which differs for every write of an object with this name.
    data_timestamp
        Time at which the data arrived, as `<timestamp>#<tiebreak>`. Newer data has a timestamp that is greater as text.
    """

    name: str
    version: str
    data_timestamp: str


def records_of(body: dict[str, Any], bucket: str) -> list[dict[str, Any]]:
    """Return the records of a message that report the creation of an object in `bucket`.

    The service reads objects only from its own bucket. Events of other buckets are therefore omitted, so that they
    start no job. A message without records, such as `s3:TestEvent`, yields an empty list.
    """
    return [
        record
        for record in body.get("Records", [])
        if record.get("eventName", "").startswith("ObjectCreated:") and record["s3"]["bucket"]["name"] == bucket
    ]


def object_created(record: dict[str, Any]) -> ObjectCreated:
    """Convert one record of an S3 notification to an event. The name is URL-decoded."""
    created = record["s3"]["object"]
    created_at = from_datetime(datetime.fromisoformat(record["eventTime"]))
    return ObjectCreated(
        name=unquote_plus(created["key"]),
        version=created.get("versionId") or created["eTag"],
        data_timestamp=f"{created_at}#{created.get('sequencer', '')}",
    )
