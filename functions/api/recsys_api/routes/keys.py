"""Routes for API keys."""

# No `from __future__ import annotations`: FastAPI evaluates the routes' annotations, which name local variables.
from collections.abc import Callable
from typing import Annotated, Final

from fastapi import APIRouter, Depends, Response

from recsys.clock import Clock
from recsys.http.problems import documented
from recsys.keys.api_key import ApiKey
from recsys.registry.key_record import KeyRecord
from recsys.registry.registry import Registry
from recsys_api import keys
from recsys_api.key_schemas import KEY_REVOKED, ClaimRequest, KeyBody, KeyIssued, RotateRequest

_NO_STORE: Final = "no-store"  # a cache must not keep a response that contains a key


def create_key_router(
    registry: Registry,
    *,
    required_key: Callable[..., KeyRecord],
    current_key: Callable[..., KeyRecord],
    clock: Clock,
) -> APIRouter:
    """Create the router for `/v1/key…`.

    Rotation and revocation use `current_key`, which rejects the previous secret of a rotated key.
    """
    router = APIRouter(tags=["Keys"])

    @router.get(
        "/v1/key", summary="Retrieve the key", response_description="The key.", responses=documented(401, 403, 503)
    )
    def get_key(key: Annotated[KeyRecord, Depends(required_key)]) -> KeyBody:
        """Return the properties of the API key that authorises the request. The secret is never returned."""
        return KeyBody.of(key, now=clock())

    @router.post(
        "/v1/key/rotate",
        summary="Rotate the key",
        response_description="The new key.",
        responses=documented(401, 403, 404, 413, 422, 503, descriptions={404: KEY_REVOKED}),
    )
    def rotate_key(
        response: Response, key: Annotated[KeyRecord, Depends(current_key)], body: RotateRequest | None = None
    ) -> KeyIssued:
        """Generate a new secret for the key. The key's models are kept.

        The previous secret remains valid for `overlap_s` seconds, so that clients can be switched one by one. During
        this time, the previous secret can be used to train and to recommend, but not to rotate or revoke the
        key or to activate a model version.
        """
        response.headers["Cache-Control"] = _NO_STORE
        return _issued(keys.rotate(registry, key, overlap_s=(body or RotateRequest()).overlap_s))

    @router.delete(
        "/v1/key",
        summary="Revoke the key",
        status_code=204,
        response_description="The key was revoked.",
        responses=documented(401, 403, 404, 503, descriptions={404: KEY_REVOKED}),
    )
    def revoke_key(key: Annotated[KeyRecord, Depends(current_key)]) -> None:
        """Permanently revoke the key.

        Recommendations can succeed for a few more seconds, because the function that serves them caches key records.
        """
        registry.revoke_key(key.key_id)

    @router.post(
        "/v1/key/claim",
        summary="Claim a key",
        status_code=201,
        response_description="The key.",
        responses=documented(410, 413, 422, 503),
    )
    def claim_key(response: Response, body: ClaimRequest) -> KeyIssued:
        """Exchange the claim token of an import receipt for an API key.

        A file that is dropped directly into the inbox, rather than into the folder of a key, creates a key. The receipt
        of the import contains a token, which works once and expires after 24 hours.
        """
        response.headers["Cache-Control"] = _NO_STORE
        return _issued(keys.claim(registry, body.claim_token))

    return router


def _issued(api_key: ApiKey) -> KeyIssued:
    return KeyIssued(key_id=api_key.key_id, api_key=str(api_key))
