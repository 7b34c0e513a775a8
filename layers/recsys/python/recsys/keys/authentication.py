"""Authenticate requests. The value of an `X-API-Key` header is validated, and the record of the key is returned."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Final, NamedTuple

from cachetools import TTLCache

from recsys.clock import Clock, utc_now
from recsys.errors import InsufficientScope, InvalidApiKey, KeyNotFound, ModelNotReady, OriginNotAllowed
from recsys.keys.api_key import ApiKey, is_scoped
from recsys.registry.key_record import KeyRecord
from recsys.registry.reading import KeyReader
from recsys.registry.scoped_keys import Scope, ScopedKey, find

if TYPE_CHECKING:
    from recsys.keys.scoped_api_key import ScopedApiKey

_MAX_CACHED_KEYS: Final = 10_000  # not tuned
_RETRY_AFTER_S: Final = 5  # not tuned: training a small data set takes some seconds


class ModelName(NamedTuple):
    """The identity of one version of a key's model.

    `manifest_sha256` is the digest of the version's manifest that the registry recorded at publication.
    """

    key_id: str
    version: str
    manifest_sha256: str


class Access(NamedTuple):
    """The record of an authorized key. `scoped_key` is the scoped key that was sent, or None for the main key."""

    record: KeyRecord
    scoped_key: ScopedKey | None


class Authenticator:
    """A validator that checks API keys against the records in the registry.

    Parameters
    ----------
    registry
        Source of the key records.
    cache_s
        Longest time for which a key record is cached, in seconds. A revoked key remains valid, and a new model version
        remains unnoticed, for at most this long. 0 disables the cache. An authenticator with a cache is not thread-safe
        and must be used from a single event loop.
    clock
        Function that returns the current time, which decides whether the previous secret of a rotated key has expired.
    timer
        Function that returns a monotonic time in seconds, which decides whether a cached record has expired.
    """

    def __init__(
        self,
        registry: KeyReader,
        *,
        cache_s: float = 0.0,
        clock: Clock = utc_now,
        timer: Callable[[], float] = time.monotonic,
    ) -> None:
        self._registry = registry
        self._clock = clock
        self._records: TTLCache[str, KeyRecord] | None = (
            TTLCache(maxsize=_MAX_CACHED_KEYS, ttl=cache_s, timer=timer) if cache_s > 0 else None
        )

    def authenticate(self, header: str | None, *, require_current: bool = False) -> KeyRecord:
        """Return the record of the main key in an `X-API-Key` header. A scoped key is rejected.

        Parameters
        ----------
        header
            Value of the header; None if it is missing.
        require_current
            Whether to reject the previous secret of a rotated key even during its overlap. Operations that change the
            key require this, because the holder of a leaked previous secret must not lock out the owner. Use an
            authenticator without a cache, because a cached record can predate the rotation.

        Returns
        -------
        KeyRecord
            The record of the key, at most `cache_s` seconds old.

        Raises
        ------
        InvalidApiKey
            The key is missing, malformed, unknown, expired or revoked, or it has the previous secret of a rotated key
            and `require_current` is set. Unknown and revoked keys get the same message.
        InsufficientScope
            The key is a scoped key.
        Unavailable
            The registry did not respond.

        Examples
        --------
        >>> from recsys.registry.key_record import KeyRecord
        >>> key = ApiKey.mint("shop12345678")
        >>> class Registry:
        ...     def get_key(self, key_id):
        ...         return KeyRecord(key_id, "2026-03-01T12:00:00.000000Z", secret_sha256=key.sha256())
        >>> Authenticator(Registry()).authenticate(str(key)).key_id
        'shop12345678'
        """
        if is_scoped(header):
            self.authorize(header, None)
        api_key = ApiKey.parse(header)
        record = self._valid_record(api_key)
        if require_current and not _is_current(record, api_key):
            raise InvalidApiKey(
                "This API key has the previous secret, which a rotation replaced. The previous secret can no longer "
                "rotate or revoke the key, or activate a model version.",
                hint="Send the new key, which POST /v1/key/rotate returned, in the X-API-Key header.",
            )
        return record

    def authorize(self, header: str | None, scope: Scope | None, *, origin: str | None = None) -> Access:
        """Validate the main or scoped key in an `X-API-Key` header, and check that the key permits an operation.

        Parameters
        ----------
        header
            Value of the header; None if it is missing.
        scope
            Scope of the operation. None if only main keys permit it.
        origin
            Value of the `Origin` header, which browsers add. None if it is missing.

        Returns
        -------
        Access
            The record of the key, at most `cache_s` seconds old, and the scoped key if one was sent.

        Raises
        ------
        InvalidApiKey, Unavailable
            For the same reasons as in `authenticate`.
        InsufficientScope
            The scoped key has another scope.
        OriginNotAllowed
            The scoped key is limited to other origins.
        """
        if not is_scoped(header):
            return Access(self.authenticate(header), None)
        from recsys.keys.scoped_api_key import ScopedApiKey  # noqa: PLC0415  # saves 1 ms of a cold start

        api_key = ScopedApiKey.parse(header or "")
        record = self._valid_record(api_key)
        scoped_key = _scoped_key(record, api_key)
        assert scoped_key is not None  # `_valid_record` found the scoped key in the record
        if scoped_key.scope is not scope:
            raise InsufficientScope(
                f"This key has the scope `{scoped_key.scope}`, which does not include this operation.",
                hint="From a server, send the main key, which starts with rk_. A web page must never contain "
                "the main key.",
            )
        if not scoped_key.is_usable_from(origin):
            raise OriginNotAllowed(
                "This key cannot be used on pages of this origin.",
                hint="With POST /v1/keys, create a scoped key whose `origins` include the origin of this page.",
            )
        return Access(record, scoped_key)

    def _valid_record(self, api_key: ApiKey | ScopedApiKey) -> KeyRecord:
        cached = self._records.get(api_key.key_id) if self._records is not None else None
        if cached is not None and self._is_valid(cached, api_key):
            return cached
        try:
            record = self._registry.get_key(api_key.key_id)
        except KeyNotFound:
            raise InvalidApiKey("The API key is unknown or was revoked.") from None
        if not self._is_valid(record, api_key):
            raise InvalidApiKey("The API key is unknown or was revoked.")
        # A record without a model is not cached, so that the first model serves requests as soon as it is published.
        if self._records is not None and record.current_version is not None:
            self._records[api_key.key_id] = record
        return record

    def _is_valid(self, record: KeyRecord, api_key: ApiKey | ScopedApiKey) -> bool:
        if record.revoked_at is not None:
            return False
        if not isinstance(api_key, ApiKey):
            return _scoped_key(record, api_key) is not None
        if _is_current(record, api_key):
            return True
        return (
            record.previous_sha256 is not None
            and record.previous_expires_at is not None
            and self._clock() < record.previous_expires_at
            and api_key.matches(record.previous_sha256)
        )


def _is_current(record: KeyRecord, api_key: ApiKey) -> bool:
    return record.secret_sha256 is not None and api_key.matches(record.secret_sha256)


def _scoped_key(record: KeyRecord, api_key: ScopedApiKey) -> ScopedKey | None:
    """Return the stored record of a scoped key, or None if it does not exist or has another secret or scope."""
    stored = find(record.scoped_keys, api_key.scoped_key_id)
    return stored if stored is not None and api_key.matches(stored) else None


def current_model(record: KeyRecord) -> ModelName:
    """Return the name of the model version that serves the key's requests.

    Raises
    ------
    ModelNotReady
        No version has been published yet.
    """
    if record.current_version is None or record.current_manifest_sha256 is None:
        raise ModelNotReady("This key has no published model yet.", retry_after_s=_RETRY_AFTER_S)
    return ModelName(record.key_id, record.current_version, record.current_manifest_sha256)
