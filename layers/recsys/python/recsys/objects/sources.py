"""Parse the names of objects that may start a job, such as uploaded and dropped files and the options of dropped files.

This module is separate from `recsys.objects.layout`, because its classes and its regular expression take 2 ms of a cold
start, and the function `recommend` does not need them.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from typing import Final

from recsys.objects.layout import APPEND_FOLDER, ITEM_UPLOADS, RECEIPTS

_APPEND: Final = f"/{APPEND_FOLDER}".rstrip("/")
_EXTENSION: Final = re.compile(r"\.((?:csv|tsv|parquet)(?:\.(?:gz|zst|zip))?)\Z", re.IGNORECASE)
_MAX_RECEIPT_BYTES: Final = 200
"""Longest file name of a receipt, in bytes. File systems allow 255 bytes. A browser that saves the file can add
characters to the name."""


@dataclass(frozen=True, slots=True)
class Upload:
    """The uploaded file of a job, at `uploads/<job_id>.csv[.gz]`. The API has already created the job."""

    job_id: str


@dataclass(frozen=True, slots=True)
class ItemsUpload:
    """The uploaded items of a catalogue job, at `uploads/items/<job_id>`. The API has already created the job."""

    job_id: str


@dataclass(frozen=True, slots=True)
class Drop:
    """A dropped file, at `inbox/[<key_id>/[append/]]<name>.<extension>`. A drop without a `key_id` creates a new key.

    A drop in the folder `append` is added to the interactions of the key.
    """

    key_id: str | None
    name: str
    extension: str = "csv"
    is_append: bool = False

    @property
    def receipt_name(self) -> str:
        """Name of the receipt, such as `receipts/[<key_id>/[append/]]<name>.json` for a CSV.

        An extension other than `csv` becomes part of the name, without a leading `csv`, so that the receipts of
        `a.csv`, `a.csv.gz` and `a.parquet` differ. A file name longer than 200 bytes is truncated, and a hash of the
        full name is appended.

        Examples
        --------
        >>> Drop("key1", "orders", "csv.gz").receipt_name
        'receipts/key1/orders.gz.json'
        """
        folder = f"{self.key_id}/{APPEND_FOLDER if self.is_append else ''}" if self.key_id else ""
        suffix = self.extension.removeprefix("csv").removeprefix(".")
        name = f"{self.name}.{suffix}" if suffix else self.name
        return f"{RECEIPTS}{folder}{_shortened(name, _MAX_RECEIPT_BYTES - len('.json'))}.json"


def parse_source(object_name: str) -> Upload | ItemsUpload | Drop | None:
    """Parse the name of an object that may start a training job.

    Parameters
    ----------
    object_name
        Name of an object in the store.

    Returns
    -------
    Upload, ItemsUpload, Drop or None
        The parts of the name. None if the name has none of the forms `uploads/<job_id>.<extension>`,
        `uploads/items/<job_id>` and `inbox/[<key_id>/[append/]]<name>.<extension>`. The extension is `csv`, `tsv` or
        `parquet`, optionally followed by `.gz`, `.zst` or `.zip`. Its case is ignored.

    Examples
    --------
    >>> parse_source("inbox/key1/orders.csv.gz")
    Drop(key_id='key1', name='orders', extension='csv.gz', is_append=False)
    >>> parse_source("inbox/key1/append/day.csv")
    Drop(key_id='key1', name='day', extension='csv', is_append=True)
    >>> parse_source("uploads/job1.csv")
    Upload(job_id='job1')
    >>> parse_source("inbox/orders.xlsx") is None
    True
    """
    if object_name.startswith(ITEM_UPLOADS):
        return _parse_items_upload(object_name.removeprefix(ITEM_UPLOADS))
    extension = _EXTENSION.search(object_name)
    folder, _, rest = object_name.partition("/")
    name = _EXTENSION.sub("", rest)
    if not extension or not name or name.endswith("/"):
        return None
    if folder == "uploads":
        return Upload(name) if "/" not in name else None
    return _parse_drop(name, extension[1].lower()) if folder == "inbox" else None


def sidecar(object_name: str) -> str:
    """Return the name of the file that contains the options of a dropped file, such as `inbox/orders.csv.json`."""
    return f"{object_name}.json"


def is_sidecar(object_name: str) -> bool:
    """Return whether an object name belongs to a file that contains the options of a dropped file."""
    return object_name.endswith(".json") and parse_source(object_name.removesuffix(".json")) is not None


def _parse_drop(name: str, extension: str) -> Drop | None:
    folder, slash, file_name = name.rpartition("/")
    key_id, is_append = (folder.removesuffix(_APPEND), True) if folder.endswith(_APPEND) else (folder, False)
    if "/" in key_id or (slash and not key_id):
        return None
    return Drop(key_id if slash else None, file_name, extension=extension, is_append=is_append)


def _parse_items_upload(job_id: str) -> ItemsUpload | None:
    return ItemsUpload(job_id) if job_id and "/" not in job_id else None


def _shortened(name: str, max_bytes: int) -> str:
    """Return `name`, truncated to `max_bytes` bytes. A truncated name ends with a hash of the full name."""
    encoded = name.encode()
    if len(encoded) <= max_bytes:
        return name
    suffix = f"-{hashlib.sha256(encoded).hexdigest()[:16]}"
    # If the cut is within a multi-byte character, the rest of the character is omitted.
    return encoded[: max_bytes - len(suffix)].decode(errors="ignore") + suffix
