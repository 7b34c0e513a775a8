"""Operations of a key's owner on the key and on its model versions."""

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
    """Give `key` a new secret; the previous one remains valid for `overlap_s` seconds."""
    api_key = ApiKey.mint(key.key_id)
    registry.rotate_key(key.key_id, api_key.sha256(), overlap_s=overlap_s)
    return api_key


def claim(registry: Registry, claim_token: str) -> ApiKey:
    """Exchange a claim token for the first secret of the key that its import created; the token works once.

    Raises
    ------
    Gone
        The token is unknown, was used or has expired.
    """
    minted = ApiKey.mint()
    record = registry.claim_key(claim_token_sha256(claim_token), minted.sha256())
    return replace(minted, key_id=record.key_id)


def activate(registry: Registry, key: KeyRecord, version: str) -> KeyRecord:
    """Make one of the key's published versions the current one, and return the updated record.

    Raises
    ------
    VersionNotFound
        The key has no such version, or the text does not have the format of a version.
    """
    if not _VERSION.fullmatch(version):
        raise VersionNotFound("This key has no such model version.")
    return registry.activate_version(key.key_id, version)
