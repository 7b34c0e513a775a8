"""What an object store must do. `tests/contract/test_object_store.py` says it in tests."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import BinaryIO, Protocol

from recsys.clock import Timestamp


@dataclass(frozen=True, slots=True)
class ObjectInfo:
    """One stored object.

    `version` changes with every write of the name (S3: the version id, or the ETag where the bucket keeps none).
    `modified_at` is what a file says of itself and survives a copy; `arrived_at` is when this content came to lie under
    this name, by the store's own clock (the answer to a write can give it a moment early, so it makes no two unequal).
    """

    name: str
    size_bytes: int
    version: str
    modified_at: Timestamp
    arrived_at: Timestamp = field(compare=False)


@dataclass(frozen=True, slots=True)
class UploadForm:
    """A form that lets a stranger send one object: POST multipart `fields`, then `file`, to `url`."""

    url: str
    fields: dict[str, str]


class ObjectReader(Protocol):
    """Objects that can be read."""

    def read(self, name: str) -> bytes:
        """The whole object; raises `Unavailable` when the store does not answer.

        Raises
        ------
        ObjectNotFound
        """


class ObjectStore(ObjectReader, Protocol):
    """Objects by name; a name is a relative path with forward slashes.

    Every method raises `Unavailable` when the store does not answer.
    """

    def create(self, name: str, body: bytes | BinaryIO) -> ObjectInfo:
        """Write a new object, all of it or nothing, with a checksum; readers never see a part.

        Raises
        ------
        ObjectExists
            An object of this name exists; it is left as it is.
        """

    def replace(self, name: str, body: bytes) -> ObjectInfo:
        """Write an object whether or not one of that name exists; readers see the old or the new one, whole."""

    def open(self, name: str) -> BinaryIO:
        """The object as a stream of bytes that the caller closes; nothing is held in memory as a whole.

        Raises
        ------
        ObjectNotFound
        """

    def info(self, name: str) -> ObjectInfo:
        """Size, version and time.

        Raises
        ------
        ObjectNotFound
        """

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        """Every object whose name starts with `prefix`, in name order."""

    def delete(self, name: str) -> None:
        """Remove the object; a name that is not there is no error."""

    def upload_form(self, name: str, *, max_bytes: int, valid_s: int) -> UploadForm:
        """A form that can create `name` with at most `max_bytes` for `valid_s` seconds."""
