"""The app of the function `recommend`: the hot path."""

# No `from __future__ import annotations`: FastAPI reads the annotations of routes, which name what is local here.
import time
from collections.abc import Callable
from typing import Annotated, Final

from fastapi import APIRouter, Depends, FastAPI, Request, Response, Security
from fastapi.responses import JSONResponse
from fastapi.security import APIKeyHeader

from recsys import object_names, problem
from recsys.artifact import read_model
from recsys.authentication import Authenticator, current_version
from recsys.clock import Clock, utc_now
from recsys.exchange import Observe, exchange_of
from recsys.objects.port import ObjectStore
from recsys.problem import documented
from recsys.ranking import Recommendations, ServingModel, recommend
from recsys.registry.port import Registry
from recsys.registry.records import KeyRecord
from recsys.settings import Settings
from recsys_recommend.models import ModelCache, ModelName
from recsys_recommend.wire import RecommendationRequest, RecommendationsBody

_HEADER: Final = "X-API-Key"
_documented_header: Final = APIKeyHeader(
    name=_HEADER, scheme_name="ApiKey", description="The key that POST /v1/train returned.", auto_error=False
)


def create_router(
    registry: Registry,
    store: ObjectStore,
    settings: Settings,
    *,
    clock: Clock = utc_now,
    timer: Callable[[], float] = time.monotonic,
    count: Callable[[str], None] = lambda _: None,
) -> APIRouter:
    """Every route; the app that includes them needs `recsys.problem.install`.

    `clock` and `timer` are for tests; `count` is told of loaded and failed models, for metrics.
    """
    authenticator = Authenticator(registry, cache_s=settings.key_cache_s, clock=clock, timer=timer)
    models = ModelCache(
        lambda name: load_model(store, name), max_bytes=settings.model_cache_bytes, count=count, timer=timer
    )
    router = APIRouter(tags=["recommending"])

    # Not in a thread: almost every time the record is cached, and a thread costs more than all the rest.
    async def key_of(request: Request, _: Annotated[str | None, Security(_documented_header)]) -> KeyRecord:
        record = authenticator.authenticate(request.headers.get(_HEADER))
        exchange_of(request.scope).key_id = record.key_id
        return record

    @router.post(
        "/v1/recommendations", response_model=RecommendationsBody, responses=documented(401, 409, 413, 422, 503)
    )
    async def recommendations(key: Annotated[KeyRecord, Depends(key_of)], body: RecommendationRequest) -> Response:
        """The best items for a user. Somebody unknown gets the most popular ones."""
        model = await models.get(ModelName(key.key_id, *current_version(key)))
        answer = recommend(
            model, body.user_id, n=body.n, exclude_seen=body.exclude_seen, exclude_items=body.exclude_items
        )
        return JSONResponse(to_body(answer))

    return router


def create_app(
    registry: Registry,
    store: ObjectStore,
    settings: Settings,
    *,
    observe: Observe | None = None,
    count: Callable[[str], None] = lambda _: None,
) -> FastAPI:
    """An app that needs nothing else. `observe` is told of every exchange, for metrics."""
    app = FastAPI(title="recsys", openapi_url=None, docs_url=None, redoc_url=None)
    problem.install(app, observe=observe)
    app.include_router(create_router(registry, store, settings, count=count))
    return app


def load_model(store: ObjectStore, name: ModelName) -> ServingModel:
    """Read a model from the store, verifying every byte that is used."""
    prefix = object_names.model_prefix(name.key_id, name.version)
    return read_model(lambda file: store.read(prefix + file), manifest_sha256=name.manifest_sha256)


def to_body(answer: Recommendations) -> dict[str, object]:
    """`RecommendationsBody` as plain values: with 1,000 items, checking our own answer would cost the most of all."""
    return {
        "user_id": answer.user_id,
        "strategy": answer.strategy.value,
        "model_version": answer.model_version,
        "items": [{"item_id": item.item_id, "rank": item.rank, "score": item.score} for item in answer.items],
    }
