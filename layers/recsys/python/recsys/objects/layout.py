"""The names of objects, which define the layout of the bucket or of the data directory."""

from __future__ import annotations

from typing import Final

UPLOADS: Final = "uploads/"
INBOX: Final = "inbox/"
RECEIPTS: Final = "receipts/"
MODELS: Final = "models/"
APPEND_FOLDER: Final = "append/"
"""Folder below `inbox/<key_id>/` for files that are added to the key's interactions."""
ITEM_UPLOADS: Final = f"{UPLOADS}items/"
CATALOGUE_FILE: Final = "items.npz"


def upload(job_id: str, *, gzipped: bool) -> str:
    """Return the name under which the API stores the upload of a job."""
    return f"{UPLOADS}{job_id}.csv.gz" if gzipped else f"{UPLOADS}{job_id}.csv"


def items_upload(job_id: str) -> str:
    """Return the name under which the API stores the items of a catalogue job.

    The name has no extension, because the format is detected.
    """
    return f"{ITEM_UPLOADS}{job_id}"


def model_prefix(key_id: str, version: str) -> str:
    """Return the prefix of all objects of a model version, with a trailing slash."""
    return f"{MODELS}{key_id}/{version}/"


def catalogue_prefix(key_id: str, version: str = "") -> str:
    """Return the prefix of all objects of a catalogue version, with a trailing slash.

    Without `version`, return the prefix of all catalogue versions of the key.
    """
    folder = f"{MODELS}{key_id}/catalogue/"
    return f"{folder}{version}/" if version else folder
