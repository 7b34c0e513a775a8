"""The route for a key's audit log."""

# No `from __future__ import annotations`: FastAPI evaluates the routes' annotations, which name local variables.
from collections.abc import Callable
from typing import Annotated, Final

from fastapi import APIRouter, Depends, Query

from recsys.http.problems import documented
from recsys.registry.audit import CURSOR_PATTERN
from recsys.registry.key_record import KeyRecord
from recsys.registry.registry import Registry
from recsys_api.schemas import AuditBody

MAX_EVENTS: Final = 200
"""Largest number of events per page."""


def create_audit_router(registry: Registry, *, current_key: Callable[..., KeyRecord]) -> APIRouter:
    """Create the router for `/v1/audit`, which rejects scoped keys and the previous secret of a rotated key."""
    router = APIRouter(tags=["Keys"])

    @router.get(
        "/v1/audit",
        summary="Read the audit log",
        response_description="A page of the log, newest first.",
        responses=documented(401, 403, 422, 503),
    )
    def list_events(
        key: Annotated[KeyRecord, Depends(current_key)],
        limit: Annotated[int, Query(ge=1, le=MAX_EVENTS, description="Maximum number of events to return.")] = 50,
        cursor: Annotated[
            str | None,
            Query(pattern=CURSOR_PATTERN, description="`next` of the previous page. Default: the newest events."),
        ] = None,
    ) -> AuditBody:
        """Return the events of the audit log, newest first.

        Each event records one change to the key, its scoped keys or its model, and is stored in the same transaction as
        the change. Events contain no secrets, and are kept for a year by default.
        """
        return AuditBody.of(registry.list_events(key.key_id, limit=limit, cursor=cursor))

    return router
