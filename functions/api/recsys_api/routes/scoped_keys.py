"""Routes for the scoped keys of an API key."""

# No `from __future__ import annotations`: FastAPI evaluates the routes' annotations, which name local variables.
from collections.abc import Callable
from typing import Annotated, Final

from fastapi import APIRouter, Depends, Path, Response

from recsys.clock import Clock
from recsys.http.problems import documented
from recsys.registry.key_record import KeyRecord
from recsys.registry.registry import Registry
from recsys_api import keys
from recsys_api.key_schemas import KEY_REVOKED, ScopedKeyBody, ScopedKeyIssued, ScopedKeyRequest, ScopedKeysBody

_NO_STORE: Final = "no-store"  # a cache must not keep a response that contains a key


def create_scoped_key_router(registry: Registry, *, current_key: Callable[..., KeyRecord], clock: Clock) -> APIRouter:
    """Create the router for `/v1/keys…`.

    Every route uses `current_key`, which rejects scoped keys and the previous secret of a rotated key.
    """
    router = APIRouter(tags=["Keys"])

    @router.post(
        "/v1/keys",
        summary="Create a scoped key",
        status_code=201,
        response_description="The scoped key.",
        responses=documented(
            *(401, 403, 404, 409, 413, 422, 503),
            descriptions={404: KEY_REVOKED, 409: "The key already has the maximum number of scoped keys."},
        ),
    )
    def create_scoped_key(
        response: Response, key: Annotated[KeyRecord, Depends(current_key)], body: ScopedKeyRequest
    ) -> ScopedKeyIssued:
        """Create a scoped key, which permits only some operations on the model of the main key.

        A key with the scope `recommend` is publishable, so it can be part of a web page or an app. List the origin of
        the page in `origins`. A key with the scope `train` is a secret for the program that uploads data. The main key
        must never be part of a page. A key can have up to 20 scoped keys.
        """
        response.headers["Cache-Control"] = _NO_STORE
        minted, stored = keys.create_scoped(
            registry, key, name=body.name, scope=body.scope, origins=body.origins, now=clock()
        )
        return ScopedKeyIssued.issued(stored, str(minted))

    @router.get(
        "/v1/keys",
        summary="List scoped keys",
        response_description="The scoped keys, oldest first.",
        responses=documented(401, 403, 503),
    )
    def list_scoped_keys(key: Annotated[KeyRecord, Depends(current_key)]) -> ScopedKeysBody:
        """Return all scoped keys of the API key, without their secrets."""
        return ScopedKeysBody(keys=[ScopedKeyBody.of(scoped_key) for scoped_key in key.scoped_keys])

    @router.delete(
        "/v1/keys/{scoped_key_id}",
        summary="Delete a scoped key",
        status_code=204,
        response_description="The scoped key was deleted.",
        responses=documented(401, 403, 404, 503, descriptions={404: "The key has no scoped key with this id."}),
    )
    def delete_scoped_key(
        scoped_key_id: Annotated[str, Path(description="`scoped_key_id` as listed by `GET /v1/keys`.")],
        key: Annotated[KeyRecord, Depends(current_key)],
    ) -> None:
        """Permanently delete a scoped key.

        Recommendations can succeed for a few more seconds, because the function that serves them caches key records.
        """
        registry.remove_scoped_key(key.key_id, scoped_key_id)

    return router
