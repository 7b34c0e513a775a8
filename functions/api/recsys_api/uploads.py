"""The request body of `POST /v1/train` as one file, in memory while it is small and on disk otherwise."""

from __future__ import annotations

import hashlib
import io
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from tempfile import SpooledTemporaryFile
from typing import BinaryIO, Final, cast

from fastapi import Request
from fastapi.concurrency import run_in_threadpool
from starlette.datastructures import FormData, UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser

from recsys.errors import EmptyUpload, FieldError, InvalidRequest, PayloadTooLarge, UnsupportedMediaType
from recsys.http.middleware import MULTIPART_FRAMING_BYTES, request_context
from recsys_api.training import NewFile

RAW_TYPES: Final = ("text/csv", "application/csv", "application/gzip", "application/x-gzip", "application/octet-stream")
_MULTIPART: Final = "multipart/form-data"
_HOW_TO_SEND: Final = "Send the file as a form (`curl -F file=@orders.csv`) or as the body with Content-Type: text/csv."
_GZIP_MAGIC: Final = b"\x1f\x8b"
_DAMAGED_GZIP_MAGIC: Final = b"\x1f" + "\N{REPLACEMENT CHARACTER}".encode()
"""What API Gateway makes of gzip that was sent as `text/*`: it decodes the body as UTF-8."""
_IN_MEMORY_BYTES: Final = 8 * 1024 * 1024  # not tuned; the whole upload on Lambda, whose limit is 4 MiB
_HASH_CHUNK_BYTES: Final = 1024 * 1024
_FILE: Final = "file"
_MAX_ECHO: Final = 80


@asynccontextmanager
async def received(request: Request, *, max_bytes: int) -> AsyncIterator[NewFile]:
    """Read the uploaded file of a request; it is deleted when the context ends.

    Parameters
    ----------
    request
        A multipart form with one part named `file`, or the file itself as the body.
    max_bytes
        Largest file to accept.

    Raises
    ------
    UnsupportedMediaType
        The body is neither multipart nor a CSV, has a content encoding other than gzip, or is gzip that was sent as
        text and damaged on the way.
    PayloadTooLarge
        The file is larger than `max_bytes`.
    EmptyUpload
        The file is empty.
    InvalidRequest
        The multipart body is malformed, or holds anything but one file named `file`.
    """
    content_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    encoding = request.headers.get("content-encoding", "identity").strip().lower()
    context = request_context(request.scope)
    context.max_body_bytes = max_bytes
    if content_type == _MULTIPART and encoding == "identity":
        context.max_body_bytes += MULTIPART_FRAMING_BYTES
        async with _form(request) as form:
            yield await run_in_threadpool(_describe, _only_file(form), max_bytes)
    elif content_type in RAW_TYPES and encoding in ("identity", "gzip", "x-gzip"):
        with SpooledTemporaryFile(max_size=_IN_MEMORY_BYTES) as file:
            async for chunk in request.stream():
                file.write(chunk)
            yield await run_in_threadpool(_describe, cast("BinaryIO", file), max_bytes)
    else:
        raise UnsupportedMediaType(
            f"Expected multipart/form-data or one of {', '.join(RAW_TYPES)}, without content encoding or with gzip. "
            f"Received: content type {content_type[:_MAX_ECHO]!a}, content encoding {encoding[:_MAX_ECHO]!a}.",
            hint=_HOW_TO_SEND,
        )


@asynccontextmanager
async def _form(request: Request) -> AsyncIterator[FormData]:
    try:
        form = await _StrictFormParser(request).parse()
    except MultiPartException as error:
        raise InvalidRequest(
            f"The multipart body cannot be read: {error.message}",
            code="invalid-multipart",
            hint=f"Send one part named {_FILE}. {_HOW_TO_SEND}",
        ) from error
    try:
        yield form
    finally:
        await form.close()


class _StrictFormParser(MultiPartParser):
    """A multipart parser that rejects a form without its closing boundary, such as one that was cut off.

    python-multipart accepts such a form without its last part, whose temporary file Starlette would not close. An error
    raised while Starlette parses makes it close every file.
    """

    def __init__(self, request: Request) -> None:
        stream = self._until_closing_boundary(request.stream())
        # One file is valid. Allowing two parts of each kind lets `_only_file` describe the mistake.
        super().__init__(request.headers, stream, max_files=2, max_fields=2, max_part_size=1024)
        self._is_complete = False

    def on_end(self) -> None:
        """Note the closing boundary (callback of python-multipart)."""
        self._is_complete = True

    async def _until_closing_boundary(self, stream: AsyncIterator[bytes]) -> AsyncGenerator[bytes, None]:
        async for chunk in stream:
            yield chunk
        if not self._is_complete:
            raise MultiPartException("The closing boundary is missing.")


def _only_file(form: FormData) -> BinaryIO:
    parts = form.multi_items()
    if len(parts) == 1 and parts[0][0] == _FILE and isinstance(parts[0][1], UploadFile):
        return parts[0][1].file
    errors = [
        FieldError("unknown-field", f"The part {name[:_MAX_ECHO]!a} is unknown.") for name, _ in parts if name != _FILE
    ]
    if any(name == _FILE and isinstance(value, str) for name, value in parts):
        errors.append(FieldError("not-a-file", f"The part {_FILE} is text. Put an @ before the file's name."))
    raise InvalidRequest(
        f"Expected one part, a file named {_FILE}. Received: {len(parts)} part(s).",
        code="invalid-multipart",
        hint=_HOW_TO_SEND,
        errors=errors,
    )


def _describe(file: BinaryIO, max_bytes: int) -> NewFile:
    """Check the file's size, detect gzip by its magic bytes and compute the digest."""
    file.seek(0, io.SEEK_END)
    size_bytes = file.tell()
    if size_bytes == 0:
        raise EmptyUpload("The uploaded file is empty.")
    if size_bytes > max_bytes:
        raise PayloadTooLarge(f"The file has {size_bytes} bytes; the limit of this route is {max_bytes} bytes.")
    file.seek(0)
    start = file.read(len(_DAMAGED_GZIP_MAGIC))
    if start == _DAMAGED_GZIP_MAGIC:
        raise UnsupportedMediaType(
            "The gzip body was damaged in transit because it was sent as text.",
            hint="Send gzip with Content-Type: application/gzip, or as multipart: curl -F file=@orders.csv.gz.",
        )
    file.seek(0)
    sha256 = hashlib.sha256()
    while chunk := file.read(_HASH_CHUNK_BYTES):
        sha256.update(chunk)
    file.seek(0)
    return NewFile(file, sha256.hexdigest(), gzipped=start.startswith(_GZIP_MAGIC))
