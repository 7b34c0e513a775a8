"""Scoped API keys of the form `pk_<key_id>_<scoped_key_id>_<secret><checksum>`, or `tk_…` for the scope `train`.

The prefix states the kind of a key. A main key starts with `rk_`. A publishable key starts with `pk_` and may be part
of a web page. A key that permits only training starts with `tk_`. The secret and the checksum have the same form as in
`recsys.keys.api_key`. A scoped key contains its id, so that the owner of a leaked key knows which key to delete.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from dataclasses import dataclass
from typing import Final, Self

from recsys.errors import InvalidApiKey
from recsys.keys.api_key import CHECKSUM_LENGTH, SCOPED_PREFIXES, SECRET_LENGTH, checksum, checksum_mismatch
from recsys.keys.base62 import random_base62
from recsys.registry.scoped_keys import Scope, ScopedKey

SCOPED_KEY_ID_LENGTH: Final = 8
_SCOPES: Final = {prefix: scope for scope, prefix in SCOPED_PREFIXES.items()}
_PATTERN: Final = re.compile(
    rf"([pt]k)_([0-9A-Za-z]{{4,32}})_([0-9A-Za-z]{{{SCOPED_KEY_ID_LENGTH}}})"
    rf"_([0-9A-Za-z]{{{SECRET_LENGTH}}})([0-9A-Za-z]{{{CHECKSUM_LENGTH}}})"
)


@dataclass(frozen=True, slots=True)
class ScopedApiKey:
    """A scoped API key in clear text, which is shown to its owner once and never stored.

    `str(key)` is the key in the form that a caller sends. `repr(key)` hides the secret from logs and tracebacks.

    Parameters
    ----------
    scope
        Operations that the key permits.
    key_id
        Public id of the main key.
    scoped_key_id
        Public id of the scoped key.
    secret
        Private part, which consists of `SECRET_LENGTH` base62 characters.

    Examples
    --------
    >>> key = ScopedApiKey(Scope.RECOMMEND, "shop12345678", "aB3dE6gH", "0123456789ABCDEFGHIJabcdefgh")
    >>> str(key)
    'pk_shop12345678_aB3dE6gH_0123456789ABCDEFGHIJabcdefgh1Ibr04'
    >>> ScopedApiKey.parse(str(key)) == key
    True
    """

    scope: Scope
    key_id: str
    scoped_key_id: str
    secret: str

    @classmethod
    def mint(cls, scope: Scope, key_id: str) -> Self:
        """Generate a scoped key of the main key `key_id`, with a random id and secret."""
        return cls(scope, key_id, random_base62(SCOPED_KEY_ID_LENGTH), random_base62(SECRET_LENGTH))

    @classmethod
    def parse(cls, text: str) -> Self:
        """Parse a scoped key that a caller sent, and verify its checksum.

        Raises
        ------
        InvalidApiKey
            The text has the wrong format or contains a typo. The message never quotes the text.
        """
        match = _PATTERN.fullmatch(text)
        if match is None:
            raise InvalidApiKey(
                "The scoped API key does not have the expected format. It must consist of pk_ or tk_, a key id, _, an "
                f"id of {SCOPED_KEY_ID_LENGTH} characters, _ and a secret of {SECRET_LENGTH + CHECKSUM_LENGTH} letters "
                "and digits.",
            )
        key = cls(_SCOPES[match[1]], match[2], match[3], match[4])
        if not hmac.compare_digest(checksum(key._text()), match[5]):
            raise checksum_mismatch()
        return key

    def sha256(self) -> str:
        """Return the SHA-256 digest of the secret in hexadecimal, which the registry stores."""
        return hashlib.sha256(self.secret.encode()).hexdigest()

    def matches(self, stored: ScopedKey) -> bool:
        """Return whether the key has the scope and the secret of `stored`. Secrets are compared in constant time."""
        return hmac.compare_digest(self.sha256(), stored.secret_sha256) and self.scope is stored.scope

    def _text(self) -> str:
        return f"{SCOPED_PREFIXES[self.scope]}_{self.key_id}_{self.scoped_key_id}_{self.secret}"

    def __str__(self) -> str:
        return self._text() + checksum(self._text())

    def __repr__(self) -> str:
        return f"ScopedApiKey(scope={self.scope!s}, key_id={self.key_id!r}, scoped_key_id={self.scoped_key_id!r}, …)"
