"""Routes for the versions of a key's model."""

# No `from __future__ import annotations`: FastAPI evaluates the routes' annotations, which name local variables.
from collections.abc import Callable
from typing import Annotated, Final

from fastapi import APIRouter, Depends, Path

from recsys.http.problems import documented
from recsys.registry.key_record import KeyRecord
from recsys.registry.registry import Registry
from recsys_api import keys
from recsys_api.schemas import ActivatedBody, ModelsBody, PinnedBody

Version = Annotated[str, Path(description="Version as listed by `GET /v1/models`.")]
_NO_VERSION: Final = {404: "The key has no such version."}


def create_model_router(
    registry: Registry, *, required_key: Callable[..., KeyRecord], current_key: Callable[..., KeyRecord]
) -> APIRouter:
    """Create the router for `/v1/models…`.

    The routes that change a version use `current_key`, which rejects the previous secret of a rotated key.
    """
    router = APIRouter(tags=["Models"])

    @router.get(
        "/v1/models",
        summary="List model versions",
        response_description="The versions, newest first.",
        responses=documented(401, 403, 503),
    )
    def list_models(key: Annotated[KeyRecord, Depends(required_key)]) -> ModelsBody:
        """Return all published and held versions of the key's model with their metrics, newest first."""
        return ModelsBody.of(key, registry.list_versions(key.key_id))

    @router.post(
        "/v1/models/{version}/activate",
        summary="Activate a model version",
        response_description="The version is current.",
        responses=documented(401, 403, 404, 503, descriptions=_NO_VERSION),
    )
    def activate_model(
        version: Version,
        key: Annotated[KeyRecord, Depends(current_key)],
    ) -> ActivatedBody:
        """Make a published or held version the current one, to roll the model back or forward.

        The version stays current until another version is activated, or until a model trained on a file that arrives
        later is published. A training job that was already running does not replace it. Recommendations switch to
        the version within seconds.
        """
        activated = keys.activate(registry, key, version)
        return ActivatedBody(key_id=activated.key_id, current_version=activated.current_version)

    @router.post(
        "/v1/models/{version}/pin",
        summary="Pin a model version",
        response_description="The version is pinned.",
        responses=documented(
            401, 403, 404, 409, 503, descriptions=_NO_VERSION | {409: "Ten versions are pinned already."}
        ),
    )
    def pin_model(version: Version, key: Annotated[KeyRecord, Depends(current_key)]) -> PinnedBody:
        """Keep a published version until it is unpinned, regardless of the number of newer versions.

        Without pins, the service keeps only the current version and the newest versions besides it, five by default. A
        pinned version is nevertheless deleted if it contains the data of an erased user, or if the key is revoked or
        expires. A key can have at most ten pinned versions.
        """
        pinned = keys.pin(registry, key, version, pinned=True)
        return PinnedBody(version=pinned.version, pinned=pinned.pinned_at is not None)

    @router.delete(
        "/v1/models/{version}/pin",
        summary="Unpin a model version",
        response_description="The version is no longer pinned.",
        responses=documented(401, 403, 404, 503, descriptions=_NO_VERSION),
    )
    def unpin_model(version: Version, key: Annotated[KeyRecord, Depends(current_key)]) -> PinnedBody:
        """Unpin a version, so that it is deleted as soon as there are enough newer versions."""
        unpinned = keys.pin(registry, key, version, pinned=False)
        return PinnedBody(version=unpinned.version, pinned=unpinned.pinned_at is not None)

    return router
