"""The app of the function `recommend`: the hot path."""

# No `from __future__ import annotations`: FastAPI reads the annotations of routes, which name what is local here.
import asyncio
import math
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Annotated, Final

from fastapi import APIRouter, Depends, FastAPI, Query, Request, Response, Security
from fastapi.security import APIKeyHeader

from recsys.clock import Clock, utc_now
from recsys.http import problems
from recsys.http.middleware import OnRequestEnd, request_context
from recsys.http.problems import documented
from recsys.keys.authentication import Authenticator, current_version
from recsys.model.artifact import SERVING, read_model
from recsys.model.recommender import ServingModel
from recsys.objects import layout
from recsys.objects.store import ObjectReader
from recsys.registry.records import KeyRecord
from recsys.registry.registry import KeyReader
from recsys.settings import Settings
from recsys_recommend.model_cache import LoadedModel, ModelCache, ModelName
from recsys_recommend.queries import BatchQuery, ModelQuery, PopularQuery, SimilarItemsQuery, UserQuery, to_json
from recsys_recommend.response_cache import ResponseCache
from recsys_recommend.schemas import BatchRequest, ListQuery, RecommendationRequest

_HEADER: Final = "X-API-Key"
_documented_header: Final = APIKeyHeader(
    name=_HEADER, scheme_name="ApiKey", description="The key that POST /v1/train returned.", auto_error=False
)


def create_router(
    registry: KeyReader,
    store: ObjectReader,
    settings: Settings,
    *,
    clock: Clock = utc_now,
    timer: Callable[[], float] = time.monotonic,
    count: Callable[[str], None] = lambda _: None,
    patience_s: float = math.inf,
) -> APIRouter:
    """Every route; the app that includes them needs `recsys.http.problems.install`.

    `clock` and `timer` are for tests; `count` is told of loaded and failed models, for metrics; `patience_s` is the
    `ModelCache`'s.
    """
    authenticator = Authenticator(registry, cache_s=settings.key_cache_s, clock=clock, timer=timer)
    models = ModelCache(
        lambda name: load_model(store, name),
        max_bytes=settings.model_cache_bytes,
        patience_s=patience_s,
        count=count,
        timer=timer,
    )
    answers = ResponseCache(max_bytes=settings.response_cache_bytes)
    router = APIRouter(tags=["recommending"])

    # Not in a thread: almost every time the record is cached, and a thread costs more than all the rest.
    async def key_of(request: Request, _: Annotated[str | None, Security(_documented_header)]) -> KeyRecord:
        record = authenticator.authenticate(request.headers.get(_HEADER))
        request_context(request.scope).key_id = record.key_id
        return record

    async def model_of(key: KeyRecord) -> LoadedModel:
        return await models.get(ModelName(key.key_id, *current_version(key)))

    async def ask(key: KeyRecord, query: ModelQuery) -> Response:
        return Response(answers.answer(await model_of(key), query), media_type="application/json")

    Key = Annotated[KeyRecord, Depends(key_of)]  # noqa: N806  # it names a type

    @router.post("/v1/recommendations", responses=documented(401, 409, 413, 422, 503))
    async def recommendations(key: Key, body: RecommendationRequest) -> Response:
        """The best items for a user, known or not, or for a basket. Where nothing is known, the most popular ones."""
        return await ask(key, UserQuery.of(body))

    @router.post("/v1/recommendations/batch", responses=documented(401, 409, 413, 422, 503))
    async def recommendations_of_many(key: Key, body: BatchRequest) -> Response:
        """The best items for each of many users: one answer each, in their order."""
        queries = BatchQuery.of(body)
        loaded = await model_of(key)
        # In a thread: it may take seconds, and others ask meanwhile.
        content = await asyncio.to_thread(lambda: to_json(queries.answer(loaded.model)))
        return Response(content, media_type="application/json")

    # The id may hold slashes, and the path is decoded when it comes here: by uvicorn, and on AWS by API Gateway.
    @router.get("/v1/items/{item_id:path}/similar", responses=documented(401, 404, 409, 422, 503))
    async def similar_items(key: Key, item_id: str, query: Annotated[ListQuery, Query()]) -> Response:
        """What goes with an item."""
        return await ask(key, SimilarItemsQuery.of(item_id, query))

    @router.get("/v1/popular", responses=documented(401, 409, 422, 503))
    async def popular_items(key: Key, query: Annotated[ListQuery, Query()]) -> Response:
        """What most users had."""
        return await ask(key, PopularQuery.of(query))

    return router


def create_app(
    registry: KeyReader,
    store: ObjectReader,
    settings: Settings,
    *,
    on_request_end: OnRequestEnd | None = None,
    count: Callable[[str], None] = lambda _: None,
    patience_s: float = math.inf,
) -> FastAPI:
    """An app that needs nothing else. `observe` is told of every context, for metrics."""
    app = FastAPI(title="recsys", openapi_url=None, docs_url=None, redoc_url=None)
    problems.install(app, on_request_end=on_request_end)
    app.include_router(create_router(registry, store, settings, count=count, patience_s=patience_s))
    return app


def load_model(store: ObjectReader, name: ModelName) -> ServingModel:
    """Read a model from the store, verifying every byte that is used."""
    prefix = layout.model_prefix(name.key_id, name.version)
    with ThreadPoolExecutor(max_workers=1) as pool:
        # Asked for together with the manifest: a cold start waits for one answer less.
        arrays = pool.submit(store.read, prefix + SERVING)

        def read(file: str) -> bytes:
            return arrays.result() if file == SERVING else store.read(prefix + file)

        return read_model(read, manifest_sha256=name.manifest_sha256)
