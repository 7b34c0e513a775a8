"""Scoped API keys, which are additional secrets of a key and permit only some operations.

The record of the main key stores its scoped keys, so that the authentication of a request takes one read for every kind
of key (docs/decisions/0038-scoped-keys.md).
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from enum import StrEnum
from typing import Final, NamedTuple, Self

from recsys.clock import Timestamp
from recsys.errors import ScopedKeyNotFound, TooManyScopedKeys
from recsys.redaction import redacted

MAX_SCOPED_KEYS: Final = 20
"""Largest number of scoped keys per main key. With ten origins per scoped key, the record stays below 20 KB."""
_MAX_ECHO: Final = 80  # characters of the caller's own input that a message repeats


class Scope(StrEnum):
    """A group of operations that a scoped key permits."""

    RECOMMEND = "recommend"
    """Request recommendations. The key is publishable, which means that a web page or an app may contain it."""
    TRAIN = "train"
    """Upload data, train and read the training jobs. The key is a secret."""


class ScopedKey(NamedTuple):
    """A scoped key as stored in the registry, with a digest instead of the secret.

    Parameters
    ----------
    scoped_key_id
        Public id, unique among the scoped keys of the main key. The text of the scoped key contains this id.
    name
        Name that the owner gave the key.
    scope
        Operations that the key permits.
    secret_sha256
        SHA-256 of the secret, in hexadecimal.
    created_at
        Time of creation.
    origins
        Origins of the web pages that may use the key, such as `https://shop.example`. If empty, pages of every origin
        may use the key.

    Examples
    --------
    >>> key = ScopedKey("aB3dE6gH", "shop page", Scope.RECOMMEND, "00" * 32, Timestamp("2026-03-01T12:00:00.000000Z"))
    >>> from_json_text(to_json_text([key])) == (key,)
    True
    """

    scoped_key_id: str
    name: str
    scope: Scope
    secret_sha256: str
    created_at: Timestamp
    origins: tuple[str, ...] = ()

    def is_usable_from(self, origin: str | None) -> bool:
        """Return whether a request with this `Origin` header may use the key.

        None stands for a request without the header. Every such request may use the key.
        """
        return origin is None or not self.origins or origin in self.origins

    @classmethod
    def from_json(cls, document: dict[str, str | list[str]]) -> Self:
        """Restore the key from a document that `to_json_text` wrote."""
        values = {
            **document,
            "scope": Scope(str(document["scope"])),
            "origins": tuple(document.get("origins", ())),
        }
        return cls(**values)  # type: ignore[arg-type]  # the members are those that to_json_text wrote


def to_json_text(keys: Sequence[ScopedKey]) -> str:
    """Convert the keys to JSON text."""
    return json.dumps([key._asdict() for key in keys], ensure_ascii=False, separators=(",", ":"))


def from_json_text(text: str) -> tuple[ScopedKey, ...]:
    """Parse the keys that `to_json_text` returned."""
    return tuple(ScopedKey.from_json(document) for document in json.loads(text))


def find(keys: Sequence[ScopedKey], scoped_key_id: str) -> ScopedKey | None:
    """Return the scoped key with this id, or None if there is none."""
    return next((key for key in keys if key.scoped_key_id == scoped_key_id), None)


def added(keys: tuple[ScopedKey, ...], new: ScopedKey) -> tuple[ScopedKey, ...]:
    """Return `keys` with `new` appended. If a repeated write has already added `new`, return `keys` unchanged.

    Raises
    ------
    TooManyScopedKeys
        `keys` already contains `MAX_SCOPED_KEYS` keys.
    """
    if new in keys:
        return keys
    if len(keys) >= MAX_SCOPED_KEYS:
        raise TooManyScopedKeys(f"The key has {len(keys)} scoped keys, which is the limit.")
    return (*keys, new)


def removed(keys: tuple[ScopedKey, ...], scoped_key_id: str) -> tuple[ScopedKey, ...]:
    """Return `keys` without the key that has this id.

    Raises
    ------
    ScopedKeyNotFound
        No key has this id.
    """
    if find(keys, scoped_key_id) is None:
        raise ScopedKeyNotFound(f"The key has no scoped key {redacted(scoped_key_id)[:_MAX_ECHO]!a}.")
    return tuple(key for key in keys if key.scoped_key_id != scoped_key_id)
