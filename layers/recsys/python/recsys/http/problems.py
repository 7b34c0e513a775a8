"""Convert errors to HTTP responses with RFC 9457 problem documents (`application/problem+json`).

This is the only module that maps error classes to HTTP statuses. The `type` of a document is
`urn:recsys:problem:<code>`. A URN is stable, whereas a URL would promise a page that has to be kept. After
`install(app)`, an app responds to every error in this format, even to errors of the framework.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
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
    Forbidden,
    Gone,
    InvalidApiKey,
    InvalidData,
    InvalidRequest,
    ModelNotReady,
    NotFound,
    NotReady,
    PayloadTooLarge,
    Problem,
    RateLimited,
    RecsysError,
    Unavailable,
    UnsupportedMediaType,
)
from recsys.http import cors
from recsys.http.api_key_header import HEADER
from recsys.http.head_requests import HeadMiddleware
from recsys.http.middleware import OnRequestEnd, RequestContext, RequestContextMiddleware, request_context
from recsys.http.response_headers import ResponseHeadersMiddleware
from recsys.redaction import redacted

MEDIA_TYPE: Final = "application/problem+json"

STATUS_OF: Final[Mapping[type[RecsysError], int]] = {
    InvalidRequest: 422,
    UnsupportedMediaType: 415,
    PayloadTooLarge: 413,
    InvalidData: 422,
    InvalidApiKey: 401,
    Forbidden: 403,
    NotFound: 404,
    Conflict: 409,
    Gone: 410,
    RateLimited: 429,
    ArtifactDamaged: 503,
    Unavailable: 503,
}
"""HTTP status by error class. A subclass has the status of its nearest listed base class. Any other error has status
500."""

_logger: Final = logging.getLogger("recsys.http")
_RETRY_AFTER_S: Final = {ModelNotReady: 5, Unavailable: 5, NotReady: 30, ArtifactDamaged: 30}  # not tuned
_ROUTES_HINT: Final = "GET /docs lists the routes."
_MAX_ERRORS: Final = 20
_MAX_ECHO: Final = 80  # characters of the client's own input that a response repeats
_METHODS: Final = ("DELETE", "GET", "PATCH", "POST", "PUT")
_CRASH: Final = Problem(
    "internal-error",
    RecsysError.title,
    "An unexpected error occurred. The log of the service contains it under this request_id.",
)
_HINTS: Final = {
    "string_type": 'Ids are strings: send "17850", not 17850.',
    "int_type": "Send an integer, without quotes and without a fraction.",
    "bool_type": "Send true or false, without quotes.",
    "extra_forbidden": "Remove the unknown field. GET /docs lists the fields of this route.",
    "model_attributes_type": "Send a JSON object with Content-Type: application/json.",
    "json_invalid": "Send a JSON object. GET /docs shows an example.",
}
_DEFAULT_HINT: Final = "GET /docs describes the fields of this route."
_DESCRIPTIONS: Final[Mapping[int, str]] = {
    401: "The API key is missing, malformed, unknown, expired or revoked.",
    403: "The API key is scoped and does not permit this operation, or does not permit requests from pages "
    "of this origin.",
    404: "The resource does not exist, or it belongs to another API key.",
    409: "The request conflicts with the current state of the key.",
    410: "The claim token was used, has expired or was never issued.",
    413: "The request body exceeds the limit of this route.",
    415: "The media type of the request body is not supported.",
    422: "A parameter or the content of the request is not valid. `errors` lists each error.",
    429: "A rate limit of the key or of the client address is used up. Retry after the number of seconds in "
    "`Retry-After`.",
    503: "A storage backend did not respond. Retry after the number of seconds in `Retry-After`.",
}


def install(
    app: FastAPI, *, on_request_end: OnRequestEnd | None = None, origins: AbstractSet[str] = frozenset()
) -> None:
    """Set up the error responses, request ids, body limit, request log and browser headers of an app.

    Parameters
    ----------
    app
        The app to modify, before it handles its first request.
    on_request_end
        Function that is called with the `RequestContext` of each finished request, for example to record metrics.
    origins
        Origins whose pages may call every route, as returned by `parse_origins`.

    Examples
    --------
    >>> import asyncio, httpx
    >>> app = FastAPI()
    >>> install(app)
    >>> async def get(path):
    ...     async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test") as client:
    ...         return await client.get(path)
    >>> asyncio.run(get("/nowhere")).json()["type"]
    'urn:recsys:problem:not-found'
    """
    app.router.redirect_slashes = False
    app.add_exception_handler(RecsysError, _on_recsys_error)
    app.add_exception_handler(RequestValidationError, _on_validation_error)
    app.add_exception_handler(HTTPException, _on_http_exception)
    app.add_exception_handler(ClientDisconnect, _on_disconnect)
    app.state.origins = origins
    # The middleware that is added last is the outermost.
    app.add_middleware(HeadMiddleware)
    app.add_middleware(
        cors.PageWriteMiddleware,
        origins=origins,
        reject=lambda context, error: respond(context, error.to_problem(), status_of(error)),
    )
    app.add_middleware(
        RequestContextMiddleware,
        crash_response=lambda context: respond(context, _CRASH, 500),
        on_request_end=on_request_end,
    )
    app.add_middleware(ResponseHeadersMiddleware, origins=origins)


def respond(
    context: RequestContext,
    problem: Problem,
    status: int,
    *,
    headers: Mapping[str, str] | None = None,
    members: Mapping[str, Any] | None = None,
) -> Response:
    """Build the response that reports a problem, and add the code of the problem to the log line of the request.

    Parameters
    ----------
    context
        Context of the request. The document contains its `request_id`.
    problem
        The problem to report.
    status
        HTTP status of the response.
    headers
        Additional response headers.
    members
        Additional members of the document (RFC 9457 §3.2), such as an API key that was issued although the training
        failed.

    Returns
    -------
    Response
        The response with the document as `application/problem+json`, in ASCII.

    Examples
    --------
    >>> context = RequestContext("request-1", "GET")
    >>> response = respond(context, Problem("not-found", "Not found", "No such page."), 404)
    >>> response.status_code, json.loads(response.body)["detail"], context.problem
    (404, 'No such page.', 'not-found')
    """
    context.problem = problem.code
    document = to_document(problem, status=status, request_id=context.request_id) | dict(members or {})
    # ASCII, because a quoted input can contain a lone surrogate, which UTF-8 cannot encode.
    return Response(json.dumps(document), status, headers, MEDIA_TYPE)


def to_document(problem: Problem, **members: Any) -> dict[str, Any]:
    """Return `problem` as an RFC 9457 document, with additional `members` such as `status`."""
    document = problem.to_json()
    return {"type": f"urn:recsys:problem:{document.pop('code')}", "title": document.pop("title")} | members | document


def status_of(error: RecsysError) -> int:
    """Return the HTTP status of an error.

    >>> from recsys.errors import JobNotFound
    >>> status_of(JobNotFound("No such job."))
    404
    """
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
    elif isinstance(error, Unavailable) and not isinstance(error, NotReady):
        # The original detail names the store and its location, which only the log may contain.
        problem = Problem(problem.code, problem.title, "A storage backend did not respond.", problem.hint)
    return respond(context, problem, status, headers=_headers_of(error))


def _headers_of(error: RecsysError) -> dict[str, str]:
    if isinstance(error, InvalidApiKey):
        return {"WWW-Authenticate": f'ApiKey realm="recsys", header="{HEADER}"'}
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
    """Convert one Pydantic error to a `FieldError`.

    The message can repeat a short value from the body, but never a value from a header.
    """
    source, *path = entry["loc"]
    message = str(entry["msg"])
    if source != "body":
        return FieldError(entry["type"], f"{source} {'.'.join(map(str, path))}: {message}")
    if entry["type"] == "json_invalid":
        detail = f"Malformed JSON: {entry['ctx']['error']} at character {path[0]}"
        return FieldError(entry["type"], detail, pointer="")
    if entry["type"] != "missing" and isinstance(entry["input"], str | int | float | None):
        message += f". Received: {redacted(ascii(entry['input']))[:_MAX_ECHO]}"
    return FieldError(entry["type"], message, pointer=_pointer(path))


def _pointer(path: Sequence[str | int]) -> str:
    """Return the JSON pointer (RFC 6901) for the position of an error in the body."""
    return "".join(f"/{str(part)[:_MAX_ECHO].replace('~', '~0').replace('/', '~1')}" for part in path)


async def _on_http_exception(request: Request, error: Exception) -> Response:
    """Convert an error that the framework raised into a response with a problem document."""
    assert isinstance(error, HTTPException)
    context = request_context(request.scope)
    if isinstance(error.__cause__, RecsysError):
        return await _on_recsys_error(request, error.__cause__)
    if error.status_code == 404:
        problem = NotFound("There is no route at this path.", hint=_ROUTES_HINT)
        return respond(context, problem.to_problem(), 404)
    if error.status_code == 405:
        return _method_not_allowed(request)
    if error.status_code == 400:
        errors = [FieldError("json_invalid", "Expected JSON in UTF-8.", pointer="")]
        unreadable = InvalidRequest("The request body cannot be read.", hint=_HINTS["json_invalid"], errors=errors)
        return respond(context, unreadable.to_problem(), status_of(unreadable))
    return respond(
        context,
        Problem(f"http-{error.status_code}", "The request failed", str(error.detail)),
        error.status_code,
        headers=error.headers,
    )


def _method_not_allowed(request: Request) -> Response:
    allowed = _allowed_methods(request)
    if request.method == "OPTIONS":
        return cors.preflight_response(request, allowed, origins=request.app.state.origins)
    context = request_context(request.scope)
    detail = f"This path supports {allowed}. Received: {context.method[:_MAX_ECHO]}."
    problem = Problem("method-not-allowed", "The method is not allowed for this path", detail, _ROUTES_HINT)
    return respond(context, problem, 405, headers={"Allow": allowed})


def _allowed_methods(request: Request) -> str:
    """Return the methods of a path, separated by commas.

    The `Allow` header of the framework lists the methods of only one route of the path.
    """
    scope = {"type": "http", "path": request.scope["path"], "root_path": "", "headers": []}
    routes = cast("FastAPI", request.app).router.routes
    methods = {
        method
        for method in _METHODS
        if any(route.matches({**scope, "method": method})[0] is Match.FULL for route in routes)
    }
    methods |= {"OPTIONS"} | ({"HEAD"} if "GET" in methods else set())
    return ", ".join(sorted(methods))


async def _on_disconnect(request: Request, _: Exception) -> Response:
    """Respond when a client disconnected early, so that the disconnection is not logged as a failure of the service."""
    disconnected = InvalidRequest("The client disconnected before its request body was complete.", code="client-gone")
    return respond(request_context(request.scope), disconnected.to_problem(), status_of(disconnected))


def documented(*statuses: int, descriptions: Mapping[int, str] | None = None) -> dict[int | str, dict[str, Any]]:
    """Return OpenAPI `responses` that declare problem documents with these statuses.

    `descriptions` holds descriptions that replace the general descriptions, by status.

    >>> documented(404)[404]["description"]
    'The resource does not exist, or it belongs to another API key.'
    """
    content = {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}}
    texts = {**_DESCRIPTIONS, **(descriptions or {})}
    return {status: {"description": texts[status], "content": content} for status in statuses}
