"""Names of objects in the store: the layout of the bucket, or of the data directory."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

UPLOADS: Final = "uploads/"
INBOX: Final = "inbox/"
RECEIPTS: Final = "receipts/"
MODELS: Final = "models/"

_CSV: Final = re.compile(r"\.csv(\.gz)?\Z", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Upload:
    """`uploads/<job_id>.csv[.gz]`: the API knows its job already."""

    job_id: str


@dataclass(frozen=True, slots=True)
class Drop:
    """`inbox/[<key_id>/]<name>.csv[.gz]`: `key_id` is None when somebody new dropped it."""

    key_id: str | None
    name: str


def upload(job_id: str, *, gzipped: bool) -> str:
    """Where the API stores the file of `job_id`."""
    return f"{UPLOADS}{job_id}.csv.gz" if gzipped else f"{UPLOADS}{job_id}.csv"


def receipt(drop: Drop) -> str:
    """Where the outcome of `drop` is written: `receipts/[<key_id>/]<name>.json`."""
    folder = f"{drop.key_id}/" if drop.key_id else ""
    return f"{RECEIPTS}{folder}{drop.name}.json"


def model_prefix(key_id: str, version: str) -> str:
    """The folder of one version, with the slash."""
    return f"{MODELS}{key_id}/{version}/"


def parse_source(object_name: str) -> Upload | Drop | None:
    """What an object under `uploads/` or `inbox/` is; None for a name that asks for no training."""
    if not _CSV.search(object_name):
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
        return Drop(key_id if slash else None, file_name)
    return None
