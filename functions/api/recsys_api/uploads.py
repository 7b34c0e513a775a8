"""Receive the file in the body of an upload request. A small file is kept in memory, a larger file on disk."""

from __future__ import annotations

import hashlib
import io
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import fields
from tempfile import SpooledTemporaryFile
from typing import BinaryIO, Final, cast

from fastapi import Request
from fastapi.concurrency import run_in_threadpool
from starlette.datastructures import FormData, UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser

from recsys.errors import EmptyUpload, FieldError, InvalidRequest, PayloadTooLarge, UnsupportedMediaType
from recsys.file_options import FileOptions
from recsys.http.middleware import MULTIPART_FRAMING_BYTES, request_context
from recsys_api.training import NewFile

RAW_TYPES: Final = (
    *("text/csv", "application/csv", "text/tab-separated-values", "application/gzip", "application/x-gzip"),
    *("application/zstd", "application/zip", "application/vnd.apache.parquet", "application/octet-stream"),
)
_MULTIPART: Final = "multipart/form-data"
_HOW_TO_SEND: Final = "Send the file as a form (`curl -F file=@orders.csv`) or as the body with Content-Type: text/csv."
_GZIP_MAGIC: Final = b"\x1f\x8b"
_DAMAGED_GZIP_MAGIC: Final = b"\x1f" + "\N{REPLACEMENT CHARACTER}".encode()
"""First bytes of gzip data that was sent as text. API Gateway decodes such a body as UTF-8, and so damages it."""
_JSON: Final = "application/json"
_IN_MEMORY_BYTES: Final = 8 * 1024 * 1024  # not tuned; on Lambda, no upload is larger than 4 MiB
_HASH_CHUNK_BYTES: Final = 1024 * 1024
_FILE: Final = "file"
_OPTIONS: Final = tuple(field.name for field in fields(FileOptions))
_MAX_OPTION_BYTES: Final = 64 * 1024
_MAX_ECHO: Final = 80


@asynccontextmanager
async def received(
    request: Request, *, max_bytes: int, query_options: dict[str, str], raw_types: tuple[str, ...] = RAW_TYPES
) -> AsyncIterator[NewFile]:
    """Receive the uploaded file of a request, and yield the file. The file is deleted when the context ends.

    Parameters
    ----------
    request
        Request with a multipart form or with the file itself as the body. A form has one part named `file`; its other
        parts are options.
    max_bytes
        Largest file to accept, in bytes.
    query_options
        Options from the query string, by name. Options in the form take precedence.
    raw_types
        Permitted content types if the body is the file itself.

    Raises
    ------
    UnsupportedMediaType
        The content type is neither multipart nor one of `raw_types`, the content encoding is not permitted, or the body
        is gzip that was sent as text. API Gateway damages such a body. The local service rejects it as well, so that a
        client that works with the local service also works on AWS.
    PayloadTooLarge
        The file is larger than `max_bytes`.
    EmptyUpload
        The file is empty.
    InvalidRequest
        The multipart body is malformed, has parts other than one `file` and the options, or contains an invalid option.
    """
    content_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    encoding = request.headers.get("content-encoding", "identity").strip().lower()
    context = request_context(request.scope)
    context.max_body_bytes = max_bytes
    if content_type == _MULTIPART and encoding == "identity":
        context.max_body_bytes += MULTIPART_FRAMING_BYTES
        async with _form(request) as form:
            content, form_options = _file_and_options(form)
            options = FileOptions.of(query_options | form_options)
            yield await run_in_threadpool(_describe, content, max_bytes, options)
    elif content_type in raw_types and encoding in ("identity", "gzip", "x-gzip"):
        with SpooledTemporaryFile(max_size=_IN_MEMORY_BYTES) as file:
            async for chunk in request.stream():
                file.write(chunk)
            options = FileOptions.of(query_options)
            _check_not_gzip_as_text(cast("BinaryIO", file), content_type, encoding)
            yield await run_in_threadpool(_describe, cast("BinaryIO", file), max_bytes, options)
    else:
        raise UnsupportedMediaType(
            f"Expected multipart/form-data or one of {', '.join(raw_types)}, without content encoding or with gzip. "
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
    """A multipart parser that rejects a form without its closing boundary, for example a truncated one.

    python-multipart would accept such a form and omit its last part, and Starlette would not close the temporary file
    of this part. This parser raises an error instead, and Starlette then closes all files.
    """

    def __init__(self, request: Request) -> None:
        stream = self._until_closing_boundary(request.stream())
        # One file is valid. Allowing more parts than are valid lets `_file_and_options` describe the mistake.
        max_fields = len(_OPTIONS) + 2
        super().__init__(request.headers, stream, max_files=2, max_fields=max_fields, max_part_size=_MAX_OPTION_BYTES)
        self._is_complete = False

    def on_end(self) -> None:
        """Record that the closing boundary was received. python-multipart calls this method."""
        self._is_complete = True

    async def _until_closing_boundary(self, stream: AsyncIterator[bytes]) -> AsyncGenerator[bytes, None]:
        async for chunk in stream:
            yield chunk
        if not self._is_complete:
            raise MultiPartException("The closing boundary is missing.")


def _file_and_options(form: FormData) -> tuple[BinaryIO, dict[str, str]]:
    parts = form.multi_items()
    files = [value for name, value in parts if name == _FILE and isinstance(value, UploadFile)]
    options = {name: value for name, value in parts if name in _OPTIONS and isinstance(value, str)}
    if len(files) == 1 and len(parts) == 1 + len(options):
        return files[0].file, options
    errors = [
        FieldError("unknown-field", f"The part {name[:_MAX_ECHO]!a} is unknown, or it is not text.")
        for name, _ in parts
        if name != _FILE and name not in options
    ]
    if any(name == _FILE and isinstance(value, str) for name, value in parts):
        detail = f"Expected the part {_FILE} to be a file. Received text. With curl, put an @ before the file name: "
        errors.append(FieldError("not-a-file", f"{detail}-F {_FILE}=@orders.csv."))
    received = ", ".join(ascii(name[:_MAX_ECHO]) for name, _ in parts) or "none"
    raise InvalidRequest(
        f"Expected one file named {_FILE}, and each option at most once. Received the parts: {received}.",
        code="invalid-multipart",
        hint=_HOW_TO_SEND,
        errors=errors,
    )


def _check_not_gzip_as_text(file: BinaryIO, content_type: str, encoding: str) -> None:
    """Raise `UnsupportedMediaType` if the body is gzip data that was sent as text.

    Gzip data that API Gateway has damaged is detected as well.
    """
    file.seek(0)
    start = file.read(len(_DAMAGED_GZIP_MAGIC))
    is_text = content_type.startswith("text/") or content_type == _JSON
    if start == _DAMAGED_GZIP_MAGIC or (is_text and encoding == "identity" and start.startswith(_GZIP_MAGIC)):
        raise UnsupportedMediaType(
            f"Gzip was sent as text, and API Gateway damages such a body. Received: content type {content_type}.",
            hint="Send gzip with Content-Type: application/gzip, or as multipart: curl -F file=@orders.csv.gz.",
        )


def _describe(file: BinaryIO, max_bytes: int, options: FileOptions) -> NewFile:
    """Check the size of a file, and return the file with its digest. Gzip is detected by its magic bytes."""
    file.seek(0, io.SEEK_END)
    size_bytes = file.tell()
    if size_bytes == 0:
        raise EmptyUpload("The uploaded file is empty.")
    if size_bytes > max_bytes:
        raise PayloadTooLarge(f"The file has {size_bytes} bytes; the limit of this route is {max_bytes} bytes.")
    file.seek(0)
    start = file.read(len(_GZIP_MAGIC))
    file.seek(0)
    sha256 = hashlib.sha256()
    while chunk := file.read(_HASH_CHUNK_BYTES):
        sha256.update(chunk)
    file.seek(0)
    return NewFile(file, sha256.hexdigest(), gzipped=start == _GZIP_MAGIC, options=options)
