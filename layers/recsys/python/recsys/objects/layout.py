"""Names of objects in the store: the layout of the bucket, or of the data directory."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from typing import Final

UPLOADS: Final = "uploads/"
INBOX: Final = "inbox/"
RECEIPTS: Final = "receipts/"
MODELS: Final = "models/"

_CSV: Final = re.compile(r"\.csv(\.gz)?\Z", re.IGNORECASE)
_MAX_RECEIPT_BYTES: Final = 200
"""Of the last part of a receipt's name; file systems take 255, and a browser adds to it when it saves the file."""


@dataclass(frozen=True, slots=True)
class Upload:
    """`uploads/<job_id>.csv[.gz]`: the API knows its job already."""

    job_id: str


@dataclass(frozen=True, slots=True)
class Drop:
    """`inbox/[<key_id>/]<name>.csv[.gz]`: `key_id` is None when somebody new dropped it."""

    key_id: str | None
    name: str
    gzipped: bool = False


def upload(job_id: str, *, gzipped: bool) -> str:
    """Where the API stores the file of `job_id`."""
    return f"{UPLOADS}{job_id}.csv.gz" if gzipped else f"{UPLOADS}{job_id}.csv"


def receipt(drop: Drop) -> str:
    """Where the outcome of `drop` is written: `receipts/[<key_id>/]<name>.json`; `<name>.gz.json` where it is gzipped.

    A name that would be too long is cut and ends in a hash of the whole.
    """
    folder = f"{drop.key_id}/" if drop.key_id else ""
    name = f"{drop.name}.gz" if drop.gzipped else drop.name
    return f"{RECEIPTS}{folder}{_shortened(name, _MAX_RECEIPT_BYTES - len('.json'))}.json"


def model_prefix(key_id: str, version: str) -> str:
    """The folder of one version, with the slash."""
    return f"{MODELS}{key_id}/{version}/"


def parse_source(object_name: str) -> Upload | Drop | None:
    """What an object under `uploads/` or `inbox/` is; None for a name that asks for no training."""
    ending = _CSV.search(object_name)
    if not ending:
        return None
    folder, _, rest = object_name.partition("/")
    name = _CSV.sub("", rest)
    if not name or name.endswith("/"):
        return None
    if folder == "uploads":
        return Upload(name) if "/" not in name else None
    if folder == "inbox":
        key_id, slash, file_name = name.rpartition("/")
        if "/" in key_id or (slash and not key_id):
            return None
        return Drop(key_id if slash else None, file_name, gzipped=ending[1] is not None)
    return None


def _shortened(name: str, max_bytes: int) -> str:
    """`name`, its end replaced by a hash of the whole where it has more bytes."""
    encoded = name.encode()
    if len(encoded) <= max_bytes:
        return name
    ending = f"-{hashlib.sha256(encoded).hexdigest()[:16]}"
    return encoded[: max_bytes - len(ending)].decode(errors="ignore") + ending
