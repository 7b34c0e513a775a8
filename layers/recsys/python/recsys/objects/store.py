"""The interface of the object store. `tests/contract/test_object_store.py` tests every adapter."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import BinaryIO, Protocol

from recsys.clock import Timestamp


@dataclass(frozen=True, slots=True)
class ObjectInfo:
    """The description of a stored object.

    Parameters
    ----------
    name
        Name of the object.
    size_bytes
        Size of the content, in bytes.
    version
        Text that changes with every write of an object with this name. On S3, this text is the version id, or the ETag
        if the bucket is not versioned.
    modified_at
        Modification time of the content. A copy of a file can preserve this time.
    arrived_at
        Time at which the content was stored under this name, by the clock of the store. Descriptions that differ only
        in this time are equal, because the time that a write returns can be slightly too early.
    """

    name: str
    size_bytes: int
    version: str
    modified_at: Timestamp
    arrived_at: Timestamp = field(compare=False)


@dataclass(frozen=True, slots=True)
class UploadForm:
    """A form with which a client can upload one object without other credentials.

    The client sends a multipart POST request to `url` with all `fields`, followed by the part `file`.
    """

    url: str
    fields: dict[str, str]


class ObjectReader(Protocol):
    """Read access to objects."""

    def read(self, name: str) -> bytes:
        """Return the content of the object.

        Raises
        ------
        ObjectNotFound
            There is no object with this name.
        Unavailable
            The store did not respond.
        """


class ObjectStore(ObjectReader, Protocol):
    """Read and write access to objects by name. A name is a relative path with forward slashes.

    Every method raises `InvalidRequest` for an invalid name (see `checked_name`) and `Unavailable` if the store does
    not respond.
    """

    def create(self, name: str, body: bytes | BinaryIO) -> ObjectInfo:
        """Create an object atomically, so that readers see either nothing or the complete content.

        Parameters
        ----------
        name
            Name of the new object.
        body
            The content, or a seekable stream that is read from its current position to its end.

        Returns
        -------
        ObjectInfo
            Description of the new object.

        Raises
        ------
        ObjectExists
            An object with this name exists. The existing object remains unchanged.
        """

    def replace(self, name: str, body: bytes) -> ObjectInfo:
        """Create or overwrite an object atomically, and return its description.

        Readers see either the previous or the new content.
        """

    def open(self, name: str) -> BinaryIO:
        """Open the object for reading as a stream of bytes, without loading it into memory.

        Returns
        -------
        BinaryIO
            A stream that the caller must close. A read from the stream raises `Unavailable` if the store fails.

        Raises
        ------
        ObjectNotFound
            There is no object with this name.
        """

    def info(self, name: str) -> ObjectInfo:
        """Return the size, version and times of the object.

        Raises
        ------
        ObjectNotFound
            There is no object with this name.
        """

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        """Iterate over the objects whose names start with `prefix`.

        Parameters
        ----------
        prefix
            Start of the names. It can end within a part of a name. An empty prefix lists all objects.

        Yields
        ------
        ObjectInfo
            The descriptions of the objects, in ascending order of the names.
        """

    def delete(self, name: str) -> None:
        """Delete the object. If there is no object with this name, nothing happens."""

    def upload_form(self, name: str, *, max_bytes: int, valid_s: int) -> UploadForm:
        """Create a form with which a client can upload one object directly to the store.

        Parameters
        ----------
        name
            Name of the object that the form creates.
        max_bytes
            Largest accepted size of the file, in bytes.
        valid_s
            Time until the form expires, in seconds.
        """
