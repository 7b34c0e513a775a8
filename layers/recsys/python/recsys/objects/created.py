"""Parse the notifications that S3 sends when an object is created.

Every training job starts with such a notification.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any
from urllib.parse import unquote_plus

from recsys.clock import from_datetime


@dataclass(frozen=True, slots=True)
class ObjectCreated:
    """The event that an object was written to the store.

    Parameters
    ----------
    name
        Name of the object.
    version
        Identifies the write among all writes of objects with this name.
    data_timestamp
        Time at which the data arrived, as `<timestamp>#<tiebreak>`. A file with a greater text has newer data.
    """

    name: str
    version: str
    data_timestamp: str


def records_of(body: dict[str, Any], bucket: str) -> list[dict[str, Any]]:
    """Return the records in a message that report created objects of a bucket.

    A message such as `s3:TestEvent` contains no such records.

    Objects are always read from the bucket of the service. Therefore, an event of another bucket must not start a job.
    """
    return [
        record
        for record in body.get("Records", [])
        if record.get("eventName", "").startswith("ObjectCreated:") and record["s3"]["bucket"]["name"] == bucket
    ]


def object_created(record: dict[str, Any]) -> ObjectCreated:
    """Return the event that a record of a notification describes."""
    created = record["s3"]["object"]
    created_at = from_datetime(datetime.fromisoformat(record["eventTime"]))
    return ObjectCreated(
        name=unquote_plus(created["key"]),
        version=created.get("versionId") or created["eTag"],
        data_timestamp=f"{created_at}#{created.get('sequencer', '')}",
    )
