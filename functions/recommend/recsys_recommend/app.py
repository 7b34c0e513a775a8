"""Create the FastAPI app of the function `recommend`, which answers requests for recommendations."""

# No `from __future__ import annotations`: FastAPI evaluates the routes' annotations, which name local variables.
import asyncio
import math
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Annotated, Final

from fastapi import APIRouter, Depends, FastAPI, Path, Query, Response

from recsys.clock import Clock, utc_now
from recsys.http import problems
from recsys.http.api_key_header import cached_key
from recsys.http.middleware import OnRequestEnd
from recsys.http.origins import parse_origins
from recsys.http.problems import documented
from recsys.http.rate_limits import limited_cached_key, limiter
from recsys.keys.authentication import Authenticator, ModelName, current_model
from recsys.model.artifact import SERVING, read_model
from recsys.model.recommender import ServingModel
from recsys.objects import layout
from recsys.registry.key_record import KeyRecord
from recsys.registry.rate_limits import Buckets, MemoryBuckets, recommendations
from recsys.registry.reading import KeyReader
from recsys.registry.scoped_keys import Scope
from recsys.settings import Settings
from recsys_recommend.catalogue_routes import Catalogues, add_catalogue_routes
from recsys_recommend.model_cache import ModelCache, RecordDetail
from recsys_recommend.queries import BatchQuery, ModelQuery, PopularQuery, SimilarItemsQuery, UserQuery, to_json
from recsys_recommend.response_cache import ResponseCache
from recsys_recommend.schemas import BatchRequest, ListParameters, RecommendationRequest

if TYPE_CHECKING:  # the imports would take 1.5 ms of a cold start, and few requests need the modules
    from recsys.objects.store import ObjectReader
    from recsys.registry.erasures import ErasedUsers

_JSON: Final = "application/json"
_DESCRIPTIONS: Final = {
    404: "The model does not contain the item.",
    409: "The key has no published model yet (retry after the number of seconds in `Retry-After`), "
    "or no item catalogue.",
    503: "The model's files are damaged, or a storage backend did not respond. See `Retry-After`.",
}


def create_app(
    registry: KeyReader,
    store: "ObjectReader",
    settings: Settings,
    *,
    on_request_end: OnRequestEnd | None = None,
    count_metric: Callable[[str], None] = lambda _: None,
    record_detail: RecordDetail = lambda _name, _value: None,
    stale_while_loading_s: float = math.inf,
    buckets: Buckets | None = None,
) -> FastAPI:
    """Create the complete app of the function `recommend`.

    Parameters
    ----------
    registry
        Source of the key records.
    store
        Source of the models.
    settings
        Cache sizes and lifetimes.
    on_request_end
        Function that is called with the `RequestContext` of each finished request, for example to record metrics.
    count_metric
        Function that is called with `ModelLoaded` or `ModelFailed` after each attempt to load a model.
    record_detail
        Function that is called with the name and the value of each metric of the caches; see `ModelCache` and
        `ResponseCache`.
    stale_while_loading_s
        Longest time for which the previous version of a model serves requests while the current one loads, in seconds.
    buckets
        Buckets in which the requests of each key are counted. Default: buckets in memory.

    Returns
    -------
    FastAPI
        The ASGI app.

    Examples
    --------
    >>> import httpx
    >>> app = create_app(registry=None, store=None, settings=Settings())
    >>> async def get(path):
    ...     async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test") as client:
    ...         return await client.get(path)
    >>> response = asyncio.run(get("/v1/popular"))
    >>> response.status_code, response.json()["detail"]
    (401, 'No API key was sent.')
    """
    app = FastAPI(title="recsys", openapi_url=None, docs_url=None, redoc_url=None)
    problems.install(app, on_request_end=on_request_end, origins=parse_origins(settings.cors_origins))
    router = create_router(
        registry,
        store,
        settings,
        count_metric=count_metric,
        record_detail=record_detail,
        stale_while_loading_s=stale_while_loading_s,
        buckets=buckets,
    )
    # `include_router` would build every route a second time, which takes 2.5 ms of a cold start.
    app.router.routes.extend(router.routes)
    return app


def create_router(  # noqa: PLR0913  # one parameter per dependency
    registry: KeyReader,
    store: "ObjectReader",
    settings: Settings,
    *,
    clock: Clock = utc_now,
    timer: Callable[[], float] = time.monotonic,
    count_metric: Callable[[str], None] = lambda _: None,
    record_detail: RecordDetail = lambda _name, _value: None,
    stale_while_loading_s: float = math.inf,
    buckets: Buckets | None = None,
) -> APIRouter:
    """Create a router with every route of the function.

    The app that includes the router must have been set up by `recsys.http.problems.install`. `clock` returns the
    current time and `timer` monotonic seconds; tests replace both. The other parameters are those of `create_app`.
    """
    catalogues = Catalogues(
        store,
        max_bytes=settings.model_cache_bytes // 4,
        exploration=settings.exploration,
        count_metric=count_metric,
    )
    service = _Recommendations(
        ModelCache(
            lambda name: load_model(store, name),
            max_bytes=settings.model_cache_bytes,
            stale_while_loading_s=stale_while_loading_s,
            count_metric=count_metric,
            record_detail=record_detail,
            timer=timer,
        ),
        ResponseCache(max_bytes=settings.response_cache_bytes, record_detail=record_detail),
        catalogues,
    )
    authenticator = Authenticator(registry, cache_s=settings.key_cache_s, clock=clock, timer=timer)
    by_key = limiter(buckets or MemoryBuckets(timer), recommendations, settings.recommendations_per_minute)
    authenticate = limited_cached_key(cached_key(authenticator, scope=Scope.RECOMMEND), by_key)
    Key = Annotated[KeyRecord, Depends(authenticate)]  # noqa: N806  # it names a type
    router = APIRouter()

    @router.post(
        "/v1/recommendations",
        tags=["Recommendations"],
        summary="Recommend items",
        response_description="The items, best first.",
        responses=documented(401, 403, 409, 413, 422, 429, 503, descriptions=_DESCRIPTIONS),
    )
    async def recommend_items(key: Key, body: RecommendationRequest) -> Response:
        """Rank items for a user, for a basket, or for a user with recent interactions.

        A user in the training data gets personal recommendations. An unknown user gets recommendations based on
        `recent_items`, or the most popular items if the model contains none of the recent items. An unknown user is
        never an error. `strategy` in the response states which of these cases applied.
        """
        return await service.respond(key, UserQuery.of(body).hiding(_erased_users(key)))

    @router.post(
        "/v1/recommendations/batch",
        tags=["Recommendations"],
        summary="Recommend items to many users",
        response_description="One result per request, in the same order.",
        responses=documented(401, 403, 409, 413, 422, 429, 503, descriptions=_DESCRIPTIONS),
    )
    async def recommend_items_batch(key: Key, body: BatchRequest) -> Response:
        """Answer up to 1,000 recommendation requests in one call, all with the same version of the model.

        Options outside of `requests` are defaults, which each request can override. A batch can request at most 20,000
        items in total.
        """
        return await service.respond_to_batch(key, BatchQuery.of(body).hiding(_erased_users(key)))

    # `:path` because an id can contain slashes, and the server (uvicorn, API Gateway) decodes %2F before routing.
    @router.get(
        "/v1/items/{item_id:path}/similar",
        tags=["Recommendations"],
        summary="List similar items",
        response_description="The items, best first.",
        responses=documented(401, 403, 404, 409, 422, 429, 503, descriptions=_DESCRIPTIONS),
    )
    async def list_similar_items(
        key: Key,
        item_id: Annotated[str, Path(description="The item's id, percent-encoded once. It can contain `%2F`.")],
        parameters: Annotated[ListParameters, Query()],
    ) -> Response:
        """Rank the items that are most similar to an item.

        The result equals the recommendations for a user whose only interaction is with this item.
        """
        return await service.respond(key, SimilarItemsQuery.of(item_id, parameters))

    @router.get(
        "/v1/popular",
        tags=["Recommendations"],
        summary="List popular items",
        response_description="The items, most popular first.",
        responses=documented(401, 403, 409, 422, 429, 503, descriptions=_DESCRIPTIONS),
    )
    async def list_popular_items(key: Key, parameters: Annotated[ListParameters, Query()]) -> Response:
        """Rank the items by the share of users who interacted with them."""
        return await service.respond(key, PopularQuery.of(parameters))

    # These routes are added last, because `/v1/items/{item_id:path}` also matches the path `/v1/items/…/similar`.
    add_catalogue_routes(router, authenticator, catalogues)
    return router


class _Recommendations:
    """The part of the app that answers queries with the current version of the key's model."""

    def __init__(self, models: ModelCache, responses: ResponseCache, catalogues: Catalogues) -> None:
        self._models = models
        self._responses = responses
        self._catalogues = catalogues

    async def respond(self, key: KeyRecord, query: ModelQuery) -> Response:
        """Answer a query, with a cached response if there is one."""
        loaded = await self._models.get(current_model(key))
        loaded, catalogue = await self._catalogues.bound(key, loaded)
        return Response(self._responses.get(loaded, query, catalogue), media_type=_JSON)

    async def respond_to_batch(self, key: KeyRecord, batch: BatchQuery) -> Response:
        """Answer a batch in a thread, because it can take seconds and must not block other requests."""
        loaded = await self._models.get(current_model(key))
        loaded, catalogue = await self._catalogues.bound(key, loaded)
        content = await asyncio.to_thread(lambda: to_json(batch.run(loaded.model, catalogue)))
        return Response(content, media_type=_JSON)


def _erased_users(key: KeyRecord) -> "ErasedUsers | None":
    if key.erasures is None:
        return None
    from recsys.registry.erasures import hidden_users  # noqa: PLC0415  # few keys have erased users

    return hidden_users(key)


def load_model(store: "ObjectReader", name: ModelName) -> ServingModel:
    """Read a model from the object store, and verify the digests of its files.

    Raises
    ------
    ArtifactDamaged
        A file is missing or does not match the manifest.
    Unavailable
        The object store did not respond.
    """
    prefix = layout.model_prefix(name.key_id, name.version)
    with ThreadPoolExecutor(max_workers=1) as pool:
        # The arrays are read in parallel with the manifest, so that a cold start needs one round trip less.
        arrays = pool.submit(store.read, prefix + SERVING)

        def read(file: str) -> bytes:
            return arrays.result() if file == SERVING else store.read(prefix + file)

        return read_model(read, manifest_sha256=name.manifest_sha256)
