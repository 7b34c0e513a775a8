"""Load the item catalogues of keys for recommendations, and create the routes that read them."""

# No `from __future__ import annotations`: FastAPI evaluates the routes' annotations, which name local variables.
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any, Final

from fastapi import APIRouter, Depends, Path, Query, Response

from recsys.errors import ItemNotFound, NoCatalogue
from recsys.http.api_key_header import cached_key
from recsys.http.problems import documented
from recsys.keys.authentication import Authenticator
from recsys.registry.key_record import KeyRecord
from recsys.registry.scoped_keys import Scope
from recsys_recommend.model_cache import LoadedModel
from recsys_recommend.queries import to_json
from recsys_recommend.schemas import CatalogueParameters

if TYPE_CHECKING:  # the imports would lengthen a cold start, and a key without a catalogue needs none of the modules
    from recsys.catalogue.catalogue import Catalogue
    from recsys.objects.store import ObjectReader
    from recsys_recommend.catalogue_cache import CatalogueCache
    from recsys_recommend.filtering.bound import BoundCatalogue

_JSON: Final = "application/json"
_DESCRIPTIONS: Final = {
    404: "The catalogue does not contain the item.",
    409: "The key has no item catalogue.",
    503: "The catalogue's file is damaged, or a storage backend did not respond. See `Retry-After`.",
}


class Catalogues:
    """The item catalogues of all keys, in a `CatalogueCache`.

    The modules that read catalogues are imported when a key with a catalogue is first used.

    Parameters
    ----------
    store, max_bytes, exploration, count_metric
        The same as in `recsys_recommend.catalogue_cache.CatalogueCache`.
    """

    def __init__(
        self, store: "ObjectReader", *, max_bytes: int, exploration: float, count_metric: Callable[[str], None]
    ) -> None:
        self._store, self._max_bytes, self._count_metric = store, max_bytes, count_metric
        self._exploration = exploration
        self._cache: CatalogueCache | None = None

    async def bound(self, key: KeyRecord, loaded: LoadedModel) -> "tuple[LoadedModel, BoundCatalogue | None]":
        """Return the model extended by the new items, and the catalogue.

        The items of the catalogue are in the order of the model's items, followed by the new items. If the key has no
        catalogue, the result is the unchanged model and None.
        """
        if key.catalogue_version is None:
            return loaded, None
        from recsys_recommend.catalogue_cache import catalogue_name  # noqa: PLC0415  # see the docstring of the class

        name = catalogue_name(key)
        if name is None:
            return loaded, None
        catalogue = await self._loaded_cache().bound(name, loaded)
        if catalogue.new_items is None:
            return loaded, catalogue
        return loaded._replace(model=replace(loaded.model, new_items=catalogue.new_items)), catalogue

    async def get(self, key: KeyRecord) -> "Catalogue":
        """Return the catalogue of a key.

        Raises
        ------
        NoCatalogue
            The key has no catalogue.
        ArtifactDamaged
            The file of the catalogue is missing or does not match its digest.
        Unavailable
            The object store did not respond.
        """
        from recsys_recommend.catalogue_cache import catalogue_name  # noqa: PLC0415  # see the docstring of the class

        name = catalogue_name(key)
        if name is None:
            raise NoCatalogue("This key has no item catalogue.")
        return await self._loaded_cache().get(name)

    def _loaded_cache(self) -> "CatalogueCache":
        from recsys_recommend.catalogue_cache import CatalogueCache  # noqa: PLC0415  # see the docstring of the class

        if self._cache is None:
            self._cache = CatalogueCache(
                self._store,
                max_bytes=self._max_bytes,
                exploration=self._exploration,
                count_metric=self._count_metric,
            )
        return self._cache


def add_catalogue_routes(router: APIRouter, authenticator: Authenticator, catalogues: Catalogues) -> None:
    """Add `GET /v1/items` and `GET /v1/items/{item_id}` to the router."""
    MainKey = Annotated[KeyRecord, Depends(cached_key(authenticator, scope=None))]  # noqa: N806  # it names a type
    Key = Annotated[KeyRecord, Depends(cached_key(authenticator, scope=Scope.RECOMMEND))]  # noqa: N806  # it names a type

    @router.get(
        "/v1/items",
        tags=["Items"],
        summary="List the item catalogue",
        response_description="A page of the catalogue.",
        responses=documented(401, 403, 409, 422, 503, descriptions=_DESCRIPTIONS),
    )
    async def list_items(key: MainKey, parameters: Annotated[CatalogueParameters, Query()]) -> Response:
        """Return a page of the catalogue's items with all their attributes, and the columns of the catalogue."""
        catalogue = await catalogues.get(key)
        begin = int(parameters.cursor or 0)
        return _to_response(_page(catalogue, key.catalogue_version or "", begin, begin + parameters.limit))

    @router.get(
        "/v1/items/{item_id:path}",
        tags=["Items"],
        summary="Retrieve an item of the catalogue",
        response_description="The item.",
        responses=documented(401, 403, 404, 409, 422, 503, descriptions=_DESCRIPTIONS),
    )
    async def get_item(
        key: Key,
        item_id: Annotated[str, Path(description="The item's id, percent-encoded once. It can contain `%2F`.")],
    ) -> Response:
        """Return an item of the catalogue with all its attributes."""
        catalogue = await catalogues.get(key)
        row = catalogue.items.find(item_id)
        if row is None:
            raise ItemNotFound(
                f"Item {item_id!r} is not in the catalogue.", hint="GET /v1/items lists the items of the catalogue."
            )
        return _to_response(_item(catalogue, row))


def _page(catalogue: "Catalogue", version: str, begin: int, end: int) -> dict[str, Any]:
    total = len(catalogue.items)
    return {
        "catalogue_version": version,
        "total": total,
        "columns": [{"name": name, "kind": column.kind.value} for name, column in catalogue.columns.items()],
        "items": [_item(catalogue, row) for row in range(begin, min(end, total))],
        "next": str(end) if end < total else None,
    }


def _item(catalogue: "Catalogue", row: int) -> dict[str, Any]:
    return {"item_id": catalogue.items[row], "attributes": catalogue.attributes(row)}


def _to_response(body: dict[str, Any]) -> Response:
    return Response(to_json(body), media_type=_JSON)
