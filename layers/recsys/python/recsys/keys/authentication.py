"""From the text of an `X-API-Key` header to the record of a key that may act."""

from __future__ import annotations

import time
from collections.abc import Callable

from cachetools import TTLCache

from recsys.clock import Clock, utc_now
from recsys.errors import InvalidApiKey, KeyNotFound, ModelNotReady
from recsys.keys.api_key import ApiKey
from recsys.registry.records import KeyRecord
from recsys.registry.registry import KeyReader


class Authenticator:
    """Checks keys against the registry.

    Parameters
    ----------
    cache_s
        How long a record is trusted without asking the registry again: a revoked key works, and a new version waits,
        at most this long. 0 asks every time. With a cache, it is for the threads of one event loop only.
    timer
        Seconds that only rise, for the cache.
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
            TTLCache(maxsize=10_000, ttl=cache_s, timer=timer) if cache_s > 0 else None
        )

    def authenticate(self, header: str | None, *, require_current: bool = False) -> KeyRecord:
        """The record of the key in `header`.

        Parameters
        ----------
        require_current
            Refuse the rotated-out secret, which otherwise works until its overlap ends: who found an old key must not
            be able to take the new one's place. A cached record can be older than the rotation; ask without a cache.

        Raises
        ------
        InvalidApiKey
            Nothing was sent, or it is a typo, unknown, expired, revoked, or rotated out where that matters.
        """
        api_key = ApiKey.parse(header)
        record = self._accepting_record(api_key)
        if require_current and not _is_current(record, api_key):
            raise InvalidApiKey(
                "The API key was rotated out: it cannot change the key or its current version any more.",
                hint="Send the new key, which POST /v1/key/rotate returned, in the header X-API-Key.",
            )
        return record

    def _accepting_record(self, api_key: ApiKey) -> KeyRecord:
        cached = self._records.get(api_key.key_id) if self._records is not None else None
        if cached is not None and self._accepts(cached, api_key):
            return cached
        try:
            record = self._registry.get_key(api_key.key_id)
        except KeyNotFound:
            raise InvalidApiKey("The API key is unknown or was revoked.") from None
        if not self._accepts(record, api_key):
            raise InvalidApiKey("The API key is unknown or was revoked.")
        # A record without a model is asked for again, so that a first model answers the moment it is published.
        if self._records is not None and record.current_version is not None:
            self._records[api_key.key_id] = record
        return record

    def _accepts(self, record: KeyRecord, api_key: ApiKey) -> bool:
        if record.revoked_at is not None:
            return False
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


def current_version(record: KeyRecord) -> tuple[str, str]:
    """Version and manifest digest of the key's current model.

    Raises
    ------
    ModelNotReady
    """
    if record.current_version is None or record.current_manifest_sha256 is None:
        raise ModelNotReady("No model of this key is published yet.", retry_after_s=5)
    return record.current_version, record.current_manifest_sha256
