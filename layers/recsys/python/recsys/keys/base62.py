"""Generate base62 identifiers, which are either random or derived from texts."""

from __future__ import annotations

import hashlib
import secrets
from typing import Final

ALPHABET: Final = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
JOB_ID_LENGTH: Final = 22  # 131 bits
KEY_ID_LENGTH: Final = 12  # 71 bits


def random_base62(length: int) -> str:
    """Return `length` random base62 characters (5.95 bits each) from the operating system's secure source."""
    return "".join(secrets.choice(ALPHABET) for _ in range(length))


def encode_base62(number: int, length: int) -> str:
    """Return the last `length` base62 digits of a non-negative `number`, padded with zeros.

    >>> encode_base62(61, 1), encode_base62(62, 4)
    ('z', '0010')
    """
    digits = []
    for _ in range(length):
        number, remainder = divmod(number, len(ALPHABET))
        digits.append(ALPHABET[remainder])
    return "".join(reversed(digits))


def derived_base62(length: int, *parts: str) -> str:
    """Derive an identifier from `parts`. Equal parts yield equal identifiers.

    Parameters
    ----------
    length
        Number of characters. SHA-256 has 256 bits, so characters after the 43rd add no information.
    *parts
        Texts from which the identifier is derived. Each text is hashed together with its length, so that `("ab", "c")`
        and `("a", "bc")` yield different identifiers.

    Returns
    -------
    str
        The last `length` base62 digits of the SHA-256 digest.

    Examples
    --------
    >>> derived_base62(22, "a", "b")
    'FxSYI0px5GsptIDadujgtj'
    >>> derived_base62(22, "ab") == derived_base62(22, "a", "b")
    False
    """
    digest = hashlib.sha256()
    for part in parts:
        encoded = part.encode()
        digest.update(len(encoded).to_bytes(8, "big") + encoded)
    return encode_base62(int.from_bytes(digest.digest(), "big"), length)


def new_job_id() -> str:
    """Return a random job id, for a request that is not idempotent."""
    return random_base62(JOB_ID_LENGTH)


def job_id_of_object(object_name: str, object_version: str) -> str:
    """Derive a job id from the name and version of an object, so that repeated events refer to the same job."""
    return derived_base62(JOB_ID_LENGTH, "object", object_name, object_version)


def job_id_of_request(principal: str, idempotency_key: str) -> str:
    """Derive a job id from the `Idempotency-Key` of a request, so that a repeated request refers to the same job.

    `principal` names the caller, so that equal `Idempotency-Key` values of different callers yield different ids.
    `principal` is the key id, or `anonymous` for a request without a key. For a job that does not train, the purpose of
    the job is appended.
    """
    return derived_base62(JOB_ID_LENGTH, "request", principal, idempotency_key)


def new_key_id() -> str:
    """Return a random key id, which is the public part of an API key."""
    return random_base62(KEY_ID_LENGTH)
