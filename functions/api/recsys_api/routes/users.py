"""Route for the erasure of a user's data."""

# No `from __future__ import annotations`: FastAPI evaluates the routes' annotations, which name local variables.
from collections.abc import Callable
from typing import Annotated

from fastapi import APIRouter, Depends, Path

from recsys.http.problems import documented
from recsys.registry.erasures import Erasures
from recsys.registry.key_record import KeyRecord
from recsys.registry.registry import Registry
from recsys_api.key_schemas import KEY_REVOKED
from recsys_api.schemas import UserErased


def create_user_router(registry: Registry, *, current_key: Callable[..., KeyRecord]) -> APIRouter:
    """Create the router for `DELETE /v1/users/{user_id}`.

    The route rejects scoped keys and the previous secret of a rotated key.
    """
    router = APIRouter(tags=["Users"])

    # `:path` because an id can contain slashes, and the server (uvicorn, API Gateway) decodes %2F before routing.
    @router.delete(
        "/v1/users/{user_id:path}",
        summary="Erase a user",
        response_description="The user is erased.",
        responses=documented(
            *(401, 403, 404, 409, 422, 503),
            descriptions={
                404: KEY_REVOKED,
                409: "The key already has the largest permitted number of erased users.",
            },
        ),
    )
    def erase_user(
        user_id: Annotated[str, Path(min_length=1, description="The user's id, percent-encoded once.")],
        key: Annotated[KeyRecord, Depends(current_key)],
    ) -> UserErased:
        """Erase a user, for example after a data-protection request.

        The response does not reveal whether the user was known.

        Within seconds, recommendations treat the user as unknown. The next training leaves out all data about the user
        that arrived before this request. Older versions that contain this data are deleted within 30 days, including
        pinned versions. Data that arrives later may contain the user again.
        """
        erased = registry.erase_user(key.key_id, user_id)
        return UserErased(user_id=user_id, erased_at=Erasures.parse(erased.erasures).users[-1].erased_at)

    return router
