"""From the body of `POST /v1/train` to one file, held in memory while it is small and on disk when it is not."""

from __future__ import annotations

import hashlib
import io
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from tempfile import SpooledTemporaryFile
from typing import BinaryIO, Final, cast

from fastapi import Request
from fastapi.concurrency import run_in_threadpool
from starlette.datastructures import FormData, UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser

from recsys.errors import EmptyUpload, FieldError, InvalidRequest, PayloadTooLarge, UnsupportedMediaType
from recsys.http.middleware import request_context
from recsys_api.training import NewFile

RAW_TYPES: Final = ("text/csv", "application/csv", "application/gzip", "application/x-gzip", "application/octet-stream")
_MULTIPART: Final = "multipart/form-data"
_HOW_TO_SEND: Final = "Send `curl -F file=@orders.csv`, or the file itself with Content-Type: text/csv."
_GZIP_MAGIC: Final = b"\x1f\x8b"
_IN_MEMORY_BYTES: Final = 8 * 1024 * 1024
_FRAMING_BYTES: Final = 64 * 1024
_FILE: Final = "file"


@asynccontextmanager
async def received(request: Request, *, max_bytes: int) -> AsyncIterator[NewFile]:
    """The file that the request carries, until the end of the context.

    Raises
    ------
    UnsupportedMediaType
        The body is neither multipart nor a CSV, or is encoded in another way than gzip.
    PayloadTooLarge
        The file is larger than `max_bytes`.
    EmptyUpload
        The file holds no bytes.
    InvalidRequest
        The multipart body is broken, or holds anything but one file named `file`.
    """
    content_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    encoding = request.headers.get("content-encoding", "identity").strip().lower()
    request_context(request.scope).max_body_bytes = max_bytes
    if content_type == _MULTIPART and encoding == "identity":
        request_context(request.scope).framing_bytes = _FRAMING_BYTES
        async with _form(request) as form:
            yield await run_in_threadpool(_describe, _only_file(form), max_bytes)
    elif content_type in RAW_TYPES and encoding in ("identity", "gzip", "x-gzip"):
        with SpooledTemporaryFile(max_size=_IN_MEMORY_BYTES) as file:
            async for part in request.stream():
                file.write(part)
            yield await run_in_threadpool(_describe, cast("BinaryIO", file), max_bytes)
    else:
        raise UnsupportedMediaType(
            f"Expected multipart/form-data or one of {', '.join(RAW_TYPES)}, as it is or in gzip. "
            f"Received: {content_type[:80]!a} in {encoding[:80]!a}.",
            hint=_HOW_TO_SEND,
        )


@asynccontextmanager
async def _form(request: Request) -> AsyncIterator[FormData]:
    parser = MultiPartParser(request.headers, request.stream(), max_files=2, max_fields=2, max_part_size=1024)
    try:
        yield await _parse(parser)
    finally:
        # Not form.close(): of a body that was cut off, the form does not know the file.
        for file in parser._files_to_close_on_error:
            file.close()


async def _parse(parser: MultiPartParser) -> FormData:
    try:
        return await parser.parse()
    except MultiPartException as error:
        raise InvalidRequest(
            f"The multipart body cannot be read: {error.message}",
            code="invalid-multipart",
            hint=f"Send one part, named {_FILE}. {_HOW_TO_SEND}",
        ) from error


def _only_file(form: FormData) -> BinaryIO:
    parts = form.multi_items()
    if len(parts) == 1 and parts[0][0] == _FILE and isinstance(parts[0][1], UploadFile):
        return parts[0][1].file
    errors = [
        FieldError("unknown-field", f"The part {name[:80]!a} is not known.") for name, _ in parts if name != _FILE
    ]
    if any(name == _FILE and isinstance(value, str) for name, value in parts):
        errors.append(FieldError("not-a-file", f"The part {_FILE} is text: is there an @ before the file's name?"))
    raise InvalidRequest(
        f"Expected one part, a file named {_FILE}. Received: {len(parts)} part(s).",
        code="invalid-multipart",
        hint=_HOW_TO_SEND,
        errors=errors,
    )


def _describe(file: BinaryIO, max_bytes: int) -> NewFile:
    file.seek(0, io.SEEK_END)
    size_bytes = file.tell()
    if size_bytes == 0:
        raise EmptyUpload("The file holds no bytes.")
    if size_bytes > max_bytes:
        raise PayloadTooLarge(f"The file has {size_bytes} bytes; the limit of this route is {max_bytes}.")
    file.seek(0)
    magic = file.read(len(_GZIP_MAGIC))
    file.seek(0)
    sha256 = hashlib.sha256()
    while part := file.read(1 << 20):
        sha256.update(part)
    file.seek(0)
    return NewFile(file, sha256.hexdigest(), gzipped=magic == _GZIP_MAGIC)
