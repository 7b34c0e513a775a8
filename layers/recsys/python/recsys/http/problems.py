"""Errors as HTTP answers: RFC 9457, `application/problem+json`. The one place that knows which error has which status.

`type` is `urn:recsys:problem:<code>`: stable, and nobody is sent to a page that may be gone. `install(app)` makes an
app answer every error so, the framework's own included.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any, Final, cast

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Match

from recsys.errors import (
    ArtifactDamaged,
    Conflict,
    FieldError,
    Gone,
    InvalidApiKey,
    InvalidData,
    InvalidRequest,
    ModelNotReady,
    NotFound,
    PayloadTooLarge,
    Problem,
    RecsysError,
    Unavailable,
    UnsupportedMediaType,
)
from recsys.http.middleware import OnRequestEnd, RequestContext, RequestContextMiddleware, request_context
from recsys.redaction import redacted

MEDIA_TYPE: Final = "application/problem+json"

STATUS_OF: Final[Mapping[type[RecsysError], int]] = {
    InvalidRequest: 422,
    UnsupportedMediaType: 415,
    PayloadTooLarge: 413,
    InvalidData: 422,
    InvalidApiKey: 401,
    NotFound: 404,
    Conflict: 409,
    Gone: 410,
    ArtifactDamaged: 503,
    Unavailable: 503,
}
"""The status of an error, by its class or the nearest one above it; what is not here is 500."""

_logger: Final = logging.getLogger("recsys.http")
_RETRY_AFTER_S: Final = {ModelNotReady: 5, Unavailable: 5, ArtifactDamaged: 30}
_HINT_ROUTES: Final = "GET /docs lists the routes."
_MAX_ERRORS: Final = 20
_MAX_ECHO: Final = 80
_METHODS: Final = ("DELETE", "GET", "HEAD", "PATCH", "POST", "PUT")
_CRASH: Final = Problem("internal-error", RecsysError.title, "The service failed; the failure was logged.")
_HINTS: Final = {
    "string_type": 'Vocabulary are text: send "17850", not 17850.',
    "int_type": "Send the number without quotes and without a fraction.",
    "bool_type": "Send true or false, without quotes.",
    "extra_forbidden": "Remove what this route does not know; GET /docs lists its fields.",
    "model_attributes_type": "Send a JSON object with Content-Type: application/json.",
    "json_invalid": "Send a JSON object, as GET /docs shows it.",
}
_DEFAULT_HINT: Final = "GET /docs shows this route's fields and what each takes."


def install(app: FastAPI, *, on_request_end: OnRequestEnd | None = None) -> None:
    """Make `app` answer every error as a problem, give every request an id and write one line about each."""
    app.router.redirect_slashes = False
    app.add_exception_handler(RecsysError, _on_recsys_error)
    app.add_exception_handler(RequestValidationError, _on_validation_error)
    app.add_exception_handler(HTTPException, _on_http_exception)
    app.add_exception_handler(ClientDisconnect, _on_disconnect)
    app.add_middleware(
        RequestContextMiddleware, crashed=lambda context: respond(context, _CRASH, 500), on_request_end=on_request_end
    )


def respond(
    context: RequestContext,
    problem: Problem,
    status: int,
    *,
    headers: Mapping[str, str] | None = None,
    members: Mapping[str, Any] | None = None,
) -> Response:
    """`problem` as an answer to this context; `members` are added to the document."""
    context.problem = problem.code
    document = to_document(problem, status=status, request_id=context.request_id) | dict(members or {})
    # ASCII: what a caller sent and gets back may be text that UTF-8 cannot say (half a surrogate pair).
    return Response(json.dumps(document), status, headers, MEDIA_TYPE)


def to_document(problem: Problem, **members: Any) -> dict[str, Any]:
    """`problem` in the words of RFC 9457, with the `members` that belong to one answer."""
    document = problem.to_json()
    return {"type": f"urn:recsys:problem:{document.pop('code')}", "title": document.pop("title")} | members | document


def status_of(error: RecsysError) -> int:
    """The HTTP status of an error."""
    return next((STATUS_OF[cls] for cls in type(error).__mro__ if cls in STATUS_OF), 500)


async def _on_recsys_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, RecsysError)
    context, status, problem = request_context(request.scope), status_of(error), error.to_problem()
    if status >= 500:
        cause = type(error.__cause__).__name__
        text = redacted(f"{type(error).__name__}: {error.detail} (from {cause})")
        _logger.error(text, extra={"request_id": context.request_id, "key_id": context.key_id})
    if status == 500:
        problem = _CRASH
    elif isinstance(error, Unavailable):
        # What did not answer, and where it lies, is for the log.
        problem = Problem(problem.code, problem.title, "A store of the service did not answer.", problem.hint)
    return respond(context, problem, status, headers=_headers_of(error))


def _headers_of(error: RecsysError) -> dict[str, str]:
    if isinstance(error, InvalidApiKey):
        return {"WWW-Authenticate": 'ApiKey realm="recsys", header="X-API-Key"'}
    retry_after_s = error.retry_after_s or _RETRY_AFTER_S.get(type(error))
    return {"Retry-After": str(retry_after_s)} if retry_after_s else {}


async def _on_validation_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    found: Sequence[Mapping[str, Any]] = error.errors()
    errors = tuple(_field_error(entry) for entry in found[:_MAX_ERRORS])
    hint = next((_HINTS[entry["type"]] for entry in found if entry["type"] in _HINTS), _DEFAULT_HINT)
    more = f" ({len(found) - 1} more)" if len(found) > 1 else ""
    invalid = InvalidRequest(f"{errors[0].pointer or ''} {errors[0].detail}{more}".strip(), hint=hint, errors=errors)
    return respond(request_context(request.scope), invalid.to_problem(), status_of(invalid))


def _field_error(entry: Mapping[str, Any]) -> FieldError:
    """One of pydantic's findings. Of values, only short ones in a body are said again; never a header's."""
    place, *path = entry["loc"]
    message = str(entry["msg"])
    if place != "body":
        return FieldError(entry["type"], f"{place} {'.'.join(map(str, path))}: {message}")
    if entry["type"] == "json_invalid":
        return FieldError(entry["type"], f"Not JSON: {entry['ctx']['error']} at character {path[0]}", pointer="")
    if entry["type"] != "missing" and isinstance(entry["input"], str | int | float | None):
        message += f". Received: {redacted(ascii(entry['input']))[:_MAX_ECHO]}"
    return FieldError(entry["type"], message, pointer=_pointer(path))


def _pointer(path: Sequence[str | int]) -> str:
    """A JSON pointer (RFC 6901)."""
    return "".join(f"/{str(part)[:_MAX_ECHO].replace('~', '~0').replace('/', '~1')}" for part in path)


async def _on_http_exception(request: Request, error: Exception) -> Response:
    """The framework's own errors."""
    assert isinstance(error, HTTPException)
    context = request_context(request.scope)
    if isinstance(error.__cause__, RecsysError):
        return await _on_recsys_error(request, error.__cause__)
    if error.status_code == 404:
        problem = NotFound("Nothing is at this path.", hint=_HINT_ROUTES).to_problem()
        return respond(context, problem, 404)
    if error.status_code == 405:
        allowed = _allowed_methods(request)
        detail = f"This path takes {allowed}. Received: {request.method[:_MAX_ECHO]}."
        problem = Problem("method-not-allowed", "This path does not take that method", detail, _HINT_ROUTES)
        return respond(context, problem, 405, headers={"Allow": allowed})
    if error.status_code == 400:
        errors = [FieldError("json_invalid", "not readable as UTF-8 JSON", pointer="")]
        unreadable = InvalidRequest("The body cannot be read.", hint=_HINTS["json_invalid"], errors=errors)
        return respond(context, unreadable.to_problem(), status_of(unreadable))
    problem = Problem(f"http-{error.status_code}", "The request failed", str(error.detail))
    return respond(context, problem, error.status_code, headers=error.headers)


def _allowed_methods(request: Request) -> str:
    """Every method of the path: the framework's own Allow names those of one route only."""
    scope = {"type": "http", "path": request.scope["path"], "root_path": "", "headers": []}
    routes = cast("FastAPI", request.app).router.routes
    return ", ".join(
        method
        for method in _METHODS
        if any(route.matches({**scope, "method": method})[0] is Match.FULL for route in routes)
    )


async def _on_disconnect(request: Request, _: Exception) -> Response:
    """Nobody reads this; it keeps a client that hangs up from looking like a failure of ours."""
    gone = InvalidRequest("The client hung up before its body was complete.", code="client-gone")
    return respond(request_context(request.scope), gone.to_problem(), status_of(gone))


def documented(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """For a route's `responses`: that it can answer problems with these statuses."""
    content = {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}}
    return {status: {"description": HTTPStatus(status).phrase, "content": content} for status in statuses}
