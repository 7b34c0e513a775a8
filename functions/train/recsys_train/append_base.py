"""Load the earlier interactions and the erased users of a key, which a training needs in addition to its file."""

from __future__ import annotations

import hashlib
from collections.abc import Container
from pathlib import Path
from typing import Final

from recsys.errors import ArtifactDamaged, InvalidData, ObjectNotFound
from recsys.file_options import Mode
from recsys.model import artifact
from recsys.objects import layout
from recsys.objects.store import ObjectStore
from recsys.registry.erasures import Erasures
from recsys.registry.key_record import KeyRecord
from recsys.registry.records import Job
from recsys_train.data.history import History, KeyData

_CHUNK_BYTES: Final = 1024 * 1024
_FILE_NAME: Final = "base.parquet"


def key_data_of(store: ObjectStore, key: KeyRecord, job: Job, folder: Path) -> KeyData:
    """Return the interactions and the erased users of a key that the training of `job` needs.

    If the mode of the job is `append`, the result contains the interactions of the current version, to which the file
    is added. In both modes, the result contains the users who were erased after the file had arrived.

    Parameters
    ----------
    store
        Object store with the files of the current version.
    key
        The key at the start of the attempt.
    job
        The training job.
    folder
        An existing directory, to which the interactions are copied.

    Raises
    ------
    InvalidData, ArtifactDamaged
        See `fetch_history`.
    """
    erasures = Erasures.parse(key.erasures)
    history = None
    if job.mode is Mode.APPEND:
        erased_users = erasures.unapplied(key.current_erasures or 0)
        history = fetch_history(store, key, folder, erased_users=erased_users)
    return KeyData(history, erasures.after(job.data_timestamp or ""))


def fetch_history(
    store: ObjectStore, key: KeyRecord, folder: Path, *, erased_users: Container[str] = ()
) -> History | None:
    """Copy the interactions of the current version of a key into `folder`, and verify their digest.

    Parameters
    ----------
    store
        Object store with the version's files.
    key
        The key.
    folder
        An existing directory, to which the interactions are copied.
    erased_users
        Users whose rows `History.chunks` leaves out.

    Returns
    -------
    History or None
        The interactions, or None if the key has no version.

    Raises
    ------
    InvalidData
        The version has no interactions, because an earlier release trained it.
    ArtifactDamaged
        A file of the version is missing, or does not match its digest in the registry or the manifest.
    """
    if key.current_version is None:
        return None
    prefix = layout.model_prefix(key.key_id, key.current_version)
    entry = artifact.read_entry(
        lambda name: store.read(prefix + name),
        artifact.INTERACTIONS,
        manifest_sha256=key.current_manifest_sha256,
    )
    if entry is None:
        raise InvalidData(
            "mode=append needs the interactions of the current version, which were not stored because an earlier "
            "release trained this version.",
            code="nothing-to-append-to",
            hint="Send all data once with mode=replace. Later files can then be added to this data.",
        )
    path = folder / _FILE_NAME
    if _copy(store, prefix + artifact.INTERACTIONS, path) != entry["sha256"]:
        raise ArtifactDamaged(f"The SHA-256 of {artifact.INTERACTIONS} differs from the digest in {artifact.MANIFEST}.")
    return History(path, key.current_version, erased_users)


def _copy(store: ObjectStore, name: str, path: Path) -> str:
    """Copy an object into a file, and return the hexadecimal SHA-256 of the content."""
    sha256 = hashlib.sha256()
    try:
        with store.open(name) as source, path.open("wb") as target:
            while chunk := source.read(_CHUNK_BYTES):
                sha256.update(chunk)
                target.write(chunk)
    except ObjectNotFound as error:
        raise ArtifactDamaged(f"{artifact.INTERACTIONS} is missing.") from error
    return sha256.hexdigest()
