"""The app of the function `api`: everything over HTTP but recommending."""

from __future__ import annotations

from fastapi import APIRouter, FastAPI

from recsys.clock import Clock, utc_now
from recsys.http import problems
from recsys.http.middleware import OnRequestEnd
from recsys.keys.authentication import Authenticator
from recsys.objects.store import ObjectStore
from recsys.registry.registry import Registry
from recsys.settings import Settings
from recsys_api import access
from recsys_api.routes.keys import create_key_router
from recsys_api.routes.service import create_service_router
from recsys_api.routes.training import create_training_router
from recsys_api.training import Training


def create_router(registry: Registry, store: ObjectStore, settings: Settings, *, clock: Clock = utc_now) -> APIRouter:
    """Every route; the app that includes them needs `recsys.http.problems.install`."""
    # No cache: what changes a key must see what changed it before.
    authenticator = Authenticator(registry, clock=clock)
    key_of, optional_key_of = access.required(authenticator), access.optional(authenticator)
    training = Training(registry, store, settings, clock)
    router = APIRouter()
    router.include_router(
        create_training_router(registry, training, settings, key_of=key_of, optional_key_of=optional_key_of)
    )
    current_key_of = access.required(authenticator, current=True)
    router.include_router(create_key_router(registry, key_of=key_of, current_key_of=current_key_of, clock=clock))
    router.include_router(create_service_router(registry, store))
    return router


def create_app(
    registry: Registry,
    store: ObjectStore,
    settings: Settings,
    *,
    clock: Clock = utc_now,
    on_request_end: OnRequestEnd | None = None,
) -> FastAPI:
    """An app that needs nothing else. `observe` is told of every exchange, for metrics."""
    app = FastAPI(title="recsys", openapi_url=None, docs_url=None, redoc_url=None)
    problems.install(app, on_request_end=on_request_end)
    app.include_router(create_router(registry, store, settings, clock=clock))
    return app
