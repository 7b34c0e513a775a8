"""Keys and their model versions, as their owner changes them."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Final

from recsys.errors import VersionNotFound
from recsys.keys.api_key import ApiKey, claim_token_sha256
from recsys.keys.base62 import JOB_ID_LENGTH
from recsys.registry.records import KeyRecord
from recsys.registry.registry import Registry

_VERSION: Final = re.compile(rf"[0-9A-Za-z]{{{JOB_ID_LENGTH}}}\.[0-9]{{1,9}}")


def rotate(registry: Registry, key: KeyRecord, *, overlap_s: float) -> ApiKey:
    """A new secret for `key`; the one before works for `overlap_s` more."""
    api_key = ApiKey.mint(key.key_id)
    registry.rotate_key(key.key_id, api_key.sha256(), overlap_s=overlap_s)
    return api_key


def claim(registry: Registry, claim_token: str) -> ApiKey:
    """The first secret of the key that the token stands for; the token is used up.

    Raises
    ------
    Gone
        The token is unknown, used or expired.
    """
    minted = ApiKey.mint()
    record = registry.claim_key(claim_token_sha256(claim_token), minted.sha256())
    return replace(minted, key_id=record.key_id)


def activate(registry: Registry, key: KeyRecord, version: str) -> KeyRecord:
    """`key` with a version of its own made current.

    Raises
    ------
    VersionNotFound
    """
    if not _VERSION.fullmatch(version):
        raise VersionNotFound("This key has no such model version.")
    return registry.activate_version(key.key_id, version)
