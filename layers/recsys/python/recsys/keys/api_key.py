"""API keys: `rk_<key_id>_<secret><checksum>`.

The secret has 166 bits. The checksum (CRC32 in base62) tells a typo from an unknown key without a look-up. Only the
SHA-256 of the secret is stored: with that much entropy a slow hash would add cost and no safety. The key id is not part
of what is hashed, so that a claim can set a secret before it learns whose it is.
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
from recsys.keys.base62 import derived_base62, encode_base62, new_key_id, random_base62

SECRET_LENGTH: Final = 28
CHECKSUM_LENGTH: Final = 6
_PATTERN: Final = re.compile(
    rf"rk_([0-9A-Za-z]{{4,32}})_([0-9A-Za-z]{{{SECRET_LENGTH}}})([0-9A-Za-z]{{{CHECKSUM_LENGTH}}})"
)


@dataclass(frozen=True, slots=True)
class ApiKey:
    """A key in clear. It is shown once and kept nowhere; its `repr` hides the secret."""

    key_id: str
    secret: str

    @classmethod
    def mint(cls, key_id: str | None = None) -> Self:
        """A new key, or a new secret for `key_id`."""
        return cls(key_id or new_key_id(), random_base62(SECRET_LENGTH))

    @classmethod
    def derive(cls, *parts: str) -> Self:
        """The same `parts` give the same key; they must hold something only the caller knows."""
        key_id = derived_base62(len(new_key_id()), "key-id", *parts)
        return cls(key_id, derived_base62(SECRET_LENGTH, "secret", *parts))

    @classmethod
    def parse(cls, text: str | None) -> Self:
        """Read a key as a caller sends it.

        Raises
        ------
        InvalidApiKey
            Nothing was sent, or what was sent is no key or holds a typo.
        """
        if not text:
            raise InvalidApiKey("No API key was sent.")
        match = _PATTERN.fullmatch(text)
        if match is None:
            raise InvalidApiKey(
                "The API key is not complete: expected rk_, a key id, _ and a secret of "
                f"{SECRET_LENGTH + CHECKSUM_LENGTH} letters and digits.",
            )
        key = cls(match[1], match[2])
        if not hmac.compare_digest(key._checksum(), match[3]):
            raise InvalidApiKey("The API key holds a typo: its checksum does not fit.")
        return key

    def sha256(self) -> str:
        """What is stored: hex SHA-256 of the secret."""
        return hashlib.sha256(self.secret.encode()).hexdigest()

    def matches(self, stored_sha256: str) -> bool:
        """Whether `stored_sha256` is this key's, compared in constant time."""
        return hmac.compare_digest(self.sha256(), stored_sha256)

    def _checksum(self) -> str:
        return encode_base62(zlib.crc32(f"rk_{self.key_id}_{self.secret}".encode()), CHECKSUM_LENGTH)

    def __str__(self) -> str:
        return f"rk_{self.key_id}_{self.secret}{self._checksum()}"

    def __repr__(self) -> str:
        return f"ApiKey(key_id={self.key_id!r}, secret=…)"


def new_claim_token() -> str:
    """A one-time token that a receipt carries; 256 bits."""
    return f"ct_{secrets.token_urlsafe(32)}"


def claim_token_sha256(token: str) -> str:
    """What is stored of a claim token."""
    return hashlib.sha256(token.encode()).hexdigest()
