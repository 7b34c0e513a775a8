"""Operations that the owner of an API key performs on the key and on its model versions."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from recsys.clock import Timestamp
from recsys.errors import VersionNotFound
from recsys.keys.api_key import ApiKey, claim_token_sha256
from recsys.keys.base62 import JOB_ID_LENGTH
from recsys.keys.scoped_api_key import ScopedApiKey
from recsys.redaction import redacted
from recsys.registry.key_record import KeyRecord
from recsys.registry.records import ModelVersion
from recsys.registry.registry import Registry
from recsys.registry.scoped_keys import Scope, ScopedKey

_VERSION: Final = re.compile(rf"[0-9A-Za-z]{{{JOB_ID_LENGTH}}}\.[0-9]{{1,9}}")
_MAX_ECHO: Final = 80  # characters of the caller's own input that a message repeats


def rotate(registry: Registry, key: KeyRecord, *, overlap_s: float) -> ApiKey:
    """Replace the secret of `key`, and return the new API key.

    The previous API key remains valid for `overlap_s` seconds.
    """
    api_key = ApiKey.mint(key.key_id)
    registry.rotate_key(key.key_id, api_key.sha256(), overlap_s=overlap_s)
    return api_key


def claim(registry: Registry, claim_token: str) -> ApiKey:
    """Exchange a claim token for the API key that an import created. A token can be used only once.

    Raises
    ------
    Gone
        The token is unknown, has already been used or has expired.
    """
    minted = ApiKey.mint()
    record = registry.claim_key(claim_token_sha256(claim_token), minted.sha256())
    return replace(minted, key_id=record.key_id)


def activate(registry: Registry, key: KeyRecord, version: str) -> KeyRecord:
    """Make one of the key's published versions the current one, and return the updated record.

    Raises
    ------
    VersionNotFound
        The key has no such version, or `version` does not have the format of a version name.
    """
    return registry.activate_version(key.key_id, _checked_version(version))


def pin(registry: Registry, key: KeyRecord, version: str, *, pinned: bool) -> ModelVersion:
    """Pin or unpin one of the key's published versions, and return the version.

    Raises
    ------
    VersionNotFound
        The key has no such version, or `version` does not have the format of a version name.
    TooManyPinnedVersions
        The key already has the largest permitted number of pinned versions.
    """
    change = registry.pin_version if pinned else registry.unpin_version
    return change(key.key_id, _checked_version(version))


def _checked_version(version: str) -> str:
    if not _VERSION.fullmatch(version):
        raise VersionNotFound(f"The key has no model version {redacted(version)[:_MAX_ECHO]!a}.")
    return version


def create_scoped(
    registry: Registry, key: KeyRecord, *, name: str, scope: Scope, origins: Sequence[str], now: Timestamp
) -> tuple[ScopedApiKey, ScopedKey]:
    """Create a scoped key of `key`. Return the scoped key in clear text, and the record that was stored.

    Raises
    ------
    TooManyScopedKeys
        The key already has the maximum number of scoped keys.
    """
    minted = ScopedApiKey.mint(scope, key.key_id)
    stored = ScopedKey(minted.scoped_key_id, name, scope, minted.sha256(), now, tuple(origins))
    registry.add_scoped_key(key.key_id, stored)
    return minted, stored
