"""The app of the function `api`: everything over HTTP but recommending."""

from __future__ import annotations

from fastapi import APIRouter, FastAPI

from recsys import problem
from recsys.authentication import Authenticator
from recsys.clock import Clock, utc_now
from recsys.exchange import Observe
from recsys.objects.port import ObjectStore
from recsys.registry.port import Registry
from recsys.settings import Settings
from recsys_api import access
from recsys_api.key_routes import create_key_router
from recsys_api.service_routes import create_service_router
from recsys_api.training import Training
from recsys_api.training_routes import create_training_router


def create_router(registry: Registry, store: ObjectStore, settings: Settings, *, clock: Clock = utc_now) -> APIRouter:
    """Every route; the app that includes them needs `recsys.problem.install`."""
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
    observe: Observe | None = None,
) -> FastAPI:
    """An app that needs nothing else. `observe` is told of every exchange, for metrics."""
    app = FastAPI(title="recsys", openapi_url=None, docs_url=None, redoc_url=None)
    problem.install(app, observe=observe)
    app.include_router(create_router(registry, store, settings, clock=clock))
    return app
