"""Sign-in links to the console. `recsys serve --sample` prints a link that opens the sample in a browser.

The fragment of a link contains a one-time token. Browsers do not send the fragment to any server. The console exchanges
the token for the API key, so that the API key is never part of a URL.
"""

# No `from __future__ import annotations`: FastAPI reads the annotations of routes.
import hmac
import json
from pathlib import Path
from typing import Annotated, Final

from fastapi import APIRouter, Response
from pydantic import BaseModel, ConfigDict, Field

from recsys.errors import Gone
from recsys.keys.api_key import claim_token_sha256, new_claim_token
from recsys_local.adapters import write_private

_DIGEST: Final = "token_sha256"


class SignInLinkGone(Gone):
    """Raised when a sign-in link was used or replaced by a newer link."""

    title = "The sign-in link is no longer valid"
    default_hint = "Sign in with an API key. The key of the sample is printed at every start."


class SignInRequest(BaseModel):
    """Body of `POST /local/sign-in`, with the one-time token of a sign-in link."""

    model_config = ConfigDict(extra="forbid", strict=True)

    token: Annotated[str, Field(min_length=1, max_length=200)]


class SignIn(BaseModel):
    """The API key of a sign-in link, the job that trains the key's model, and a user for a first request."""

    api_key: str
    job_id: str
    user_id: str


class SignInLinks:
    """The store of the link that signs in to the console. Each link works once. A new link replaces the old one.

    A file stores the link, so that any process of the service can redeem it. The file contains a digest of the token
    instead of the token.

    Parameters
    ----------
    file
        File that stores the unused link. Only its owner can read the file.
    base_url
        URL of the service.

    Examples
    --------
    >>> import tempfile
    >>> links = SignInLinks(Path(tempfile.mkdtemp()) / "sign-in.json", "http://127.0.0.1:8000")
    >>> link = links.create(SignIn(api_key="rk_…", job_id="…", user_id="anna"))
    >>> links.redeem(link.rpartition("=")[2]).user_id
    'anna'
    """

    def __init__(self, file: Path, base_url: str) -> None:
        self._file = file
        self._base_url = base_url

    def create(self, sign_in: SignIn) -> str:
        """Create a link that can be used once, and return its URL."""
        token = new_claim_token()
        document = sign_in.model_dump() | {_DIGEST: claim_token_sha256(token)}
        write_private(self._file, json.dumps(document))
        return f"{self._base_url}/console#sign-in={token}"

    def redeem(self, token: str) -> SignIn:
        """Return the key, the job and the user of the link with this token, and invalidate the link.

        Raises
        ------
        SignInLinkGone
            The link was used or replaced.
        """
        try:
            document = json.loads(self._file.read_bytes())
            is_valid = hmac.compare_digest(document.pop(_DIGEST), claim_token_sha256(token))
            if is_valid:
                self._file.unlink()  # succeeds for only one of several concurrent requests
        except (FileNotFoundError, ValueError, KeyError, AttributeError, TypeError):
            is_valid = False  # there is no link, or its file is damaged
        if not is_valid:
            raise SignInLinkGone("The sign-in link was used, or a newer link was printed.")
        return SignIn(**document)


def create_sign_in_router(links: SignInLinks | None) -> APIRouter:
    """Create the router for `POST /local/sign-in`, which exchanges the token of a link for an API key.

    If `links` is None, the router has no routes.
    """
    router = APIRouter()
    if links is None:
        return router

    @router.post("/local/sign-in", include_in_schema=False)
    def sign_in(request: SignInRequest, response: Response) -> SignIn:
        response.headers["Cache-Control"] = "no-store"
        return links.redeem(request.token)

    return router
