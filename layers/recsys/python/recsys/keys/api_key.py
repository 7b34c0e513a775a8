"""API keys of the form `rk_<key_id>_<secret><checksum>`.

The secret has 166 bits. The checksum (CRC32 in base62) detects typos without a lookup. Only the SHA-256 of the secret
is stored. With this much entropy, a slow password hash would take time and add no security. The hash does not include
the key id, because the server hashes the secret of a claimed key before it looks up the key to which the claim token
belongs.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
import zlib
from dataclasses import dataclass
from typing import Final, Self

from recsys.errors import InvalidApiKey
from recsys.keys.base62 import KEY_ID_LENGTH, derived_base62, encode_base62, new_key_id, random_base62
from recsys.registry.scoped_keys import Scope

SECRET_LENGTH: Final = 28
CHECKSUM_LENGTH: Final = 6
SCOPED_PREFIXES: Final = {Scope.RECOMMEND: "pk", Scope.TRAIN: "tk"}
"""Prefix of a scoped key, by scope (see `recsys.keys.scoped_api_key`)."""
_PATTERN: Final = re.compile(
    rf"rk_([0-9A-Za-z]{{4,32}})_([0-9A-Za-z]{{{SECRET_LENGTH}}})([0-9A-Za-z]{{{CHECKSUM_LENGTH}}})"
)


@dataclass(frozen=True, slots=True)
class ApiKey:
    """An API key in clear text, which is shown to its owner once and never stored.

    `str(key)` is the key in the form that the owner sends. `repr(key)` hides the secret from logs and tracebacks.

    Parameters
    ----------
    key_id
        Public part, which names the tenant in logs and in the object store.
    secret
        Private part, which consists of `SECRET_LENGTH` base62 characters.

    Examples
    --------
    >>> key = ApiKey("shop12345678", "0123456789ABCDEFGHIJabcdefgh")
    >>> str(key)
    'rk_shop12345678_0123456789ABCDEFGHIJabcdefgh2X5dp7'
    >>> ApiKey.parse(str(key)) == key
    True
    >>> key
    ApiKey(key_id='shop12345678', secret=…)
    """

    key_id: str
    secret: str

    @classmethod
    def mint(cls, key_id: str | None = None) -> Self:
        """Generate a key with a random secret.

        Parameters
        ----------
        key_id
            Id of an existing key that receives the new secret, as in a rotation. If None, a random id is generated.

        Returns
        -------
        ApiKey
            The new key. It is valid only after the registry has stored its `sha256()`.

        Examples
        --------
        >>> ApiKey.mint("shop12345678").key_id
        'shop12345678'
        >>> len(str(ApiKey.mint()))
        50
        """
        return cls(key_id or new_key_id(), random_base62(SECRET_LENGTH))

    @classmethod
    def derive(cls, *parts: str) -> Self:
        """Derive a key from texts, so that a repeated request yields the same key. At least one text must be secret."""
        key_id = derived_base62(KEY_ID_LENGTH, "key-id", *parts)
        return cls(key_id, derived_base62(SECRET_LENGTH, "secret", *parts))

    @classmethod
    def parse(cls, text: str | None) -> Self:
        """Parse a key that a caller sent, and verify its checksum.

        Parameters
        ----------
        text
            Value of the `X-API-Key` header. None if the header is missing.

        Returns
        -------
        ApiKey
            The well-formed key. Only the registry knows whether the key exists.

        Raises
        ------
        InvalidApiKey
            The text is missing, has the wrong format or contains a typo. The message never quotes the text.

        Examples
        --------
        >>> ApiKey.parse("rk_shop12345678_0123456789ABCDEFGHIJabcdefgh2X5dp7").key_id
        'shop12345678'
        >>> ApiKey.parse("rk_shop12345678_0123456789ABCDEFGHIJabcdefgh2X5dp8")
        Traceback (most recent call last):
        recsys.errors.InvalidApiKey: The checksum of the API key does not match, so the key probably contains a typo.
        """
        if not text:
            raise InvalidApiKey("No API key was sent.")
        match = _PATTERN.fullmatch(text)
        if match is None:
            raise InvalidApiKey(
                "The API key does not have the expected format. It must consist of rk_, a key id, _ and a secret of "
                f"{SECRET_LENGTH + CHECKSUM_LENGTH} letters and digits.",
            )
        key = cls(match[1], match[2])
        if not hmac.compare_digest(key._checksum(), match[3]):
            raise checksum_mismatch()
        return key

    def sha256(self) -> str:
        """Return the SHA-256 digest of the secret in hexadecimal, which the registry stores."""
        return hashlib.sha256(self.secret.encode()).hexdigest()

    def matches(self, stored_sha256: str) -> bool:
        """Compare the secret of the key with a stored digest, in constant time.

        Parameters
        ----------
        stored_sha256
            Digest in hexadecimal, as returned by `sha256()`.

        Returns
        -------
        bool
            Whether the digest belongs to this key's secret.

        Examples
        --------
        >>> key = ApiKey.mint()
        >>> key.matches(key.sha256()), key.matches(ApiKey.mint(key.key_id).sha256())
        (True, False)
        """
        return hmac.compare_digest(self.sha256(), stored_sha256)

    def _checksum(self) -> str:
        return checksum(f"rk_{self.key_id}_{self.secret}")

    def __str__(self) -> str:
        return f"rk_{self.key_id}_{self.secret}{self._checksum()}"

    def __repr__(self) -> str:
        return f"ApiKey(key_id={self.key_id!r}, secret=…)"


def is_scoped(text: str | None) -> bool:
    """Return whether an API key starts with the prefix of a scoped key, `pk_` or `tk_`."""
    return text is not None and text.startswith(tuple(f"{prefix}_" for prefix in SCOPED_PREFIXES.values()))


def checksum(text: str) -> str:
    """Return the checksum of the text of a key, which is the CRC32 in base62.

    >>> checksum("rk_shop12345678_0123456789ABCDEFGHIJabcdefgh")
    '2X5dp7'
    """
    return encode_base62(zlib.crc32(text.encode()), CHECKSUM_LENGTH)


def checksum_mismatch() -> InvalidApiKey:
    """Return the error for a key or a scoped key whose checksum does not match the other parts."""
    return InvalidApiKey(
        "The checksum of the API key does not match, so the key probably contains a typo.", hint="Copy the key again."
    )


def new_claim_token() -> str:
    """Generate a claim token with 256 random bits, which the owner of a dropped file exchanges once for an API key."""
    return f"ct_{secrets.token_urlsafe(32)}"


def claim_token_sha256(token: str) -> str:
    """Return the SHA-256 digest of a claim token in hexadecimal, which the registry stores."""
    return hashlib.sha256(token.encode()).hexdigest()
