"""The object store in an S3 bucket."""

from __future__ import annotations

import io
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import TYPE_CHECKING, Any, BinaryIO, Final

from botocore.exceptions import ClientError

from recsys.aws import error_code, translating_errors
from recsys.clock import Timestamp, from_datetime
from recsys.errors import ObjectExists, ObjectNotFound, Unavailable
from recsys.objects.names import checked_name, checked_prefix
from recsys.objects.store import ObjectInfo, UploadForm

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer
    from botocore.response import StreamingBody
    from mypy_boto3_s3 import S3Client
    from mypy_boto3_s3.type_defs import HeadObjectOutputTypeDef

_ABSENT: Final = ("NoSuchKey", "404")
_EXISTS: Final = "PreconditionFailed"
_CONFLICT: Final = "ConditionalRequestConflict"
_CREATE_ATTEMPTS: Final = 5  # not tuned: another attempt is only needed after another write of the same name
_WRITER: Final = "writer"
"""Name of the metadata entry that identifies the call that created an object."""
_STREAM_BUFFER_BYTES: Final = 1 << 20


class S3ObjectStore:
    """An `ObjectStore` in an S3 bucket.

    Every object is uploaded with a SHA-256 checksum. A stream that is uploaded must be seekable, because it is read
    twice, for the checksum and for the upload.

    Parameters
    ----------
    client
        An S3 client, as returned by `recsys.aws.s3_client`.
    bucket
        Name of the bucket. `ObjectInfo.version` is the version id if the bucket is versioned, otherwise the ETag.
    """

    def __init__(self, client: S3Client, bucket: str) -> None:
        self._client = client
        self._bucket = bucket

    def create(self, name: str, body: bytes | BinaryIO) -> ObjectInfo:
        """Create an object with a conditional write (`If-None-Match: *`)."""
        checked_name(name)
        # If a response is lost, boto3 repeats the request. S3 then reports that the object exists, and the metadata
        # entry `writer` shows that this call created the object.
        writer = secrets.token_hex(8)
        with translating_errors("PutObject"):
            version_id = self._put_new(name, body, writer)
        head = self._head_written(name, version_id)
        if version_id is None and head["Metadata"].get(_WRITER) != writer:
            raise ObjectExists(f"An object named {name!r} exists.")
        return _describe(name, head)

    def replace(self, name: str, body: bytes) -> ObjectInfo:
        """Create or overwrite an object."""
        checked_name(name)
        with translating_errors("PutObject"):
            reply = self._client.put_object(Bucket=self._bucket, Key=name, Body=body, ChecksumAlgorithm="SHA256")
        return _describe(name, self._head_written(name, reply.get("VersionId")))

    def read(self, name: str) -> bytes:
        """Return the content of the object."""
        with self.open(name) as stream:
            return stream.read()

    def open(self, name: str) -> BinaryIO:
        """Open the object for reading. The stream raises `Unavailable` if the connection fails."""
        checked_name(name)
        with _reading("GetObject", name):
            body = self._client.get_object(Bucket=self._bucket, Key=name)["Body"]
        return io.BufferedReader(_ObjectStream(body), _STREAM_BUFFER_BYTES)

    def info(self, name: str) -> ObjectInfo:
        """Return the size, version and times of the object."""
        return _describe(name, self._head(checked_name(name), None))

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        """Iterate over the objects whose names start with `prefix`, in ascending order of the names."""
        checked_prefix(prefix)
        # ListObjectVersions, because ListObjectsV2 does not return version ids.
        pages = self._client.get_paginator("list_object_versions").paginate(Bucket=self._bucket, Prefix=prefix)
        with translating_errors("ListObjectVersions"):
            for page in pages:
                for entry in page.get("Versions", ()):
                    if entry["IsLatest"]:
                        version = _version(entry.get("VersionId"), entry["ETag"])
                        moment = _whole_seconds(entry["LastModified"])
                        yield ObjectInfo(entry["Key"], entry["Size"], version, modified_at=moment, arrived_at=moment)

    def delete(self, name: str) -> None:
        """Delete the object. In a versioned bucket, previous versions are kept."""
        checked_name(name)
        with translating_errors("DeleteObject"):
            self._client.delete_object(Bucket=self._bucket, Key=name)

    def upload_form(self, name: str, *, max_bytes: int, valid_s: int) -> UploadForm:
        """Create a presigned POST form. A presigned PUT could not limit the size."""
        checked_name(name)
        with translating_errors("generate_presigned_post"):
            form = self._client.generate_presigned_post(
                self._bucket, name, Conditions=[["content-length-range", 0, max_bytes]], ExpiresIn=valid_s
            )
        return UploadForm(form["url"], form["fields"])

    def _put_new(self, name: str, body: bytes | BinaryIO, writer: str) -> str | None:
        """Create an object and return its version id. Return None if the name exists or the bucket is not versioned."""
        start = 0 if isinstance(body, bytes) else body.tell()
        for _ in range(_CREATE_ATTEMPTS):
            try:
                reply = self._client.put_object(
                    Bucket=self._bucket,
                    Key=name,
                    Body=body,
                    IfNoneMatch="*",
                    ChecksumAlgorithm="SHA256",
                    Metadata={_WRITER: writer},
                )
                return reply.get("VersionId")
            except ClientError as error:
                if error_code(error) == _EXISTS:
                    return None
                # Another write of this name was in progress. Because that write may have failed, S3 requires a retry.
                if error_code(error) != _CONFLICT:
                    raise
                if not isinstance(body, bytes):
                    body.seek(start)
        raise Unavailable(f"AWS rejected PutObject {_CREATE_ATTEMPTS} times: {_CONFLICT}.")

    def _head_written(self, name: str, version_id: str | None) -> HeadObjectOutputTypeDef:
        try:
            return self._head(name, version_id)
        except ObjectNotFound as error:
            raise Unavailable(f"The object {name!r} was deleted while it was being written.") from error

    def _head(self, name: str, version_id: str | None) -> HeadObjectOutputTypeDef:
        version: dict[str, Any] = {"VersionId": version_id} if version_id else {}
        with _reading("HeadObject", name):
            return self._client.head_object(Bucket=self._bucket, Key=name, **version)


class _ObjectStream(io.RawIOBase):
    """The body of a response as a stream. Errors of botocore become `Unavailable`.

    Reading to the end fails if the length or the checksum is wrong.
    """

    def __init__(self, body: StreamingBody) -> None:
        self._body = body

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: WriteableBuffer) -> int:
        view = memoryview(buffer)
        with translating_errors("GetObject"):
            received = self._body.read(len(view))
        view[: len(received)] = received
        return len(received)

    def close(self) -> None:
        if not self.closed:
            self._body.close()
        super().close()


def _describe(name: str, head: HeadObjectOutputTypeDef) -> ObjectInfo:
    version = _version(head.get("VersionId"), head["ETag"])
    moment = _whole_seconds(head["LastModified"])
    return ObjectInfo(name, head["ContentLength"], version, modified_at=moment, arrived_at=moment)


def _whole_seconds(moment: datetime) -> Timestamp:
    """Truncate a time to whole seconds.

    HTTP headers state whole seconds, whereas the times in listings can be finer.
    """
    return from_datetime(moment.replace(microsecond=0))


def _version(version_id: str | None, etag: str) -> str:
    """Return the version id, or the ETag of an object that was written while the bucket was not versioned."""
    return version_id if version_id and version_id != "null" else etag.strip('"')


@contextmanager
def _reading(operation: str, name: str) -> Iterator[None]:
    with translating_errors(operation):
        try:
            yield
        except ClientError as error:
            if error_code(error) not in _ABSENT:
                raise
            raise ObjectNotFound(f"There is no object named {name!r}.") from error
