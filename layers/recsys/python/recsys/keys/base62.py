"""Base62 identifiers: random ones, and ones derived from what they stand for."""

from __future__ import annotations

import hashlib
import secrets
from typing import Final

ALPHABET: Final = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
JOB_ID_LENGTH: Final = 22  # 131 bits
KEY_ID_LENGTH: Final = 12  # 71 bits


def random_base62(length: int) -> str:
    """`length` characters, 5.95 bits each, from the system's secure source."""
    return "".join(secrets.choice(ALPHABET) for _ in range(length))


def encode_base62(number: int, length: int) -> str:
    """The last `length` base62 digits of `number`, zero-padded."""
    digits = []
    for _ in range(length):
        number, remainder = divmod(number, len(ALPHABET))
        digits.append(ALPHABET[remainder])
    return "".join(reversed(digits))


def derived_base62(length: int, *parts: str) -> str:
    """The same `parts` give the same identifier: SHA-256 over the parts, each with its length in front."""
    digest = hashlib.sha256()
    for part in parts:
        encoded = part.encode()
        digest.update(len(encoded).to_bytes(8, "big") + encoded)
    return encode_base62(int.from_bytes(digest.digest(), "big"), length)


def new_job_id() -> str:
    """A job that nobody can ask for twice."""
    return random_base62(JOB_ID_LENGTH)


def job_id_of_object(object_name: str, object_version: str) -> str:
    """The job that this version of this object asks for; a repeated event is the same job."""
    return derived_base62(JOB_ID_LENGTH, "object", object_name, object_version)


def job_id_of_request(principal: str, idempotency_key: str) -> str:
    """The job that `principal` (a key id, or `anonymous`) asks for under its Idempotency-Key."""
    return derived_base62(JOB_ID_LENGTH, "request", principal, idempotency_key)


def new_key_id() -> str:
    """The public half of an API key."""
    return random_base62(KEY_ID_LENGTH)
