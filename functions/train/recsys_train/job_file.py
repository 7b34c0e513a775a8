"""Read the options of a job's file, and open the file after checking its version and its size."""

from __future__ import annotations

from dataclasses import replace
from typing import BinaryIO

from recsys.errors import InvalidData, InvalidRequest, ObjectNotFound
from recsys.file_options import FileOptions
from recsys.objects.sources import sidecar
from recsys.objects.store import ObjectInfo, ObjectStore
from recsys.registry import excluded_items
from recsys.registry.key_record import KeyRecord
from recsys.registry.records import Job


def file_options(store: ObjectStore, job: Job, key: KeyRecord) -> FileOptions:
    """Return the options of the job's file.

    The options of a dropped file come from its sidecar if there is one. Otherwise, they come from the request. If
    `exclude_items` is not set, the items that were excluded from the key's current version are excluded again.

    Raises
    ------
    InvalidData
        The options are invalid.
    """
    text = _sidecar(store, job) if job.receipt_name is not None else None
    try:
        options = FileOptions.of(job.options or {}) if text is None else FileOptions.from_text(text)
    except InvalidRequest as error:
        raise InvalidData(error.detail, code=error.problem_code, hint=error.hint) from error
    excluded = excluded_items.parse(key.excluded_items) if options.exclude_items is None else options.exclude_items
    # The mode is that of the job's creation, even if the sidecar has changed.
    return replace(options, mode=job.mode, exclude_items=excluded)


def open_file(store: ObjectStore, job: Job, *, max_bytes: int) -> BinaryIO:
    """Open the file of the job for reading.

    Raises
    ------
    InvalidData
        The file was deleted or replaced, or is larger than `max_bytes`.
    """
    try:
        stream = store.open(job.object_name)
        try:
            # The check follows the opening of the file, so that it detects a file that was replaced in the meantime.
            _check_object(job, store.info(job.object_name), max_bytes)
        except BaseException:
            stream.close()
            raise
    except ObjectNotFound as error:
        raise InvalidData(
            "The uploaded file was deleted before it was read.", code="upload-missing", hint="Send the file again."
        ) from error
    return stream


def _sidecar(store: ObjectStore, job: Job) -> bytes | None:
    try:
        return store.read(sidecar(job.object_name))
    except (ObjectNotFound, InvalidRequest):  # a name of the greatest length leaves no room for the suffix of a sidecar
        return None


def _check_object(job: Job, info: ObjectInfo, max_bytes: int) -> None:
    if job.object_version not in (None, info.version):
        raise InvalidData(
            "The file was replaced before it was read. The newer file starts its own training job.",
            code="upload-replaced",
            hint="Read the receipt again when the training on the newer file has finished.",
        )
    if info.size_bytes > max_bytes:
        raise InvalidData(
            f"The file has {info.size_bytes:,} bytes; the limit is {max_bytes:,}.",
            code="upload-too-large",
            hint="Compress the file with gzip, or send fewer rows and keep the most recent ones because they have the "
            "most influence.",
        )
