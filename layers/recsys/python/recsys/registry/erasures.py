"""The erased users of a key. The service treats an erased user as unknown, and the next training leaves the user out.

The record of the key stores keyed hashes of the user ids, so that the function `recommend` needs no further read
(docs/decisions/0048-erasure.md). The hashes are pseudonymous, not anonymous, because a reader of the record can test a
guessed id.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Collection, Iterable
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Final, Self

from recsys.clock import DAY_S, Timestamp, after
from recsys.errors import TooManyErasures
from recsys.registry.key_record import KeyRecord
from recsys.registry.records import ModelVersion

MAX_ERASURES: Final = 1000
"""Largest number of erasures in the record of a key. An erasure takes about 60 bytes."""
ERASED_WITHIN_DAYS: Final = 30
"""Days after an erasure until every version that contains the user must be deleted."""
_SALT_BYTES: Final = 16
_HASH_BYTES: Final = 16


@dataclass(frozen=True, slots=True)
class Erasure:
    """An erased user.

    Parameters
    ----------
    number
        Number of the erasure. The erasures of a key are numbered from 1.
    user_hash
        Keyed hash of the user id, in hexadecimal.
    erased_at
        Time of the request. Data that arrived later may contain the user again.
    """

    number: int
    user_hash: str
    erased_at: Timestamp


@dataclass(frozen=True, slots=True)
class Erasures:
    """The erasures of a key, oldest first.

    Parameters
    ----------
    salt
        Key of the hash function, in hexadecimal.
    last
        Number of the last erasure. 0 if there was no erasure.
    users
        The erasures that are kept. `added` drops old erasures.

    Examples
    --------
    >>> at = Timestamp("2026-03-01T12:00:00.000000Z")
    >>> erasures = Erasures.parse(None).added("anna", applied=0, now=at)
    >>> erasures == Erasures.parse(erasures.to_text()), "anna" in erasures.unapplied(0), "anna" in erasures.unapplied(1)
    (True, True, False)
    >>> "anna" in erasures.after(after(at, -1)), "anna" in erasures.after(after(at, 1))
    (True, False)
    """

    salt: str
    last: int
    users: tuple[Erasure, ...]

    @classmethod
    def parse(cls, text: str | None) -> Self:
        """Parse erasures that `to_text` returned. None yields an empty object with a new random salt."""
        if text is None:
            return cls(os.urandom(_SALT_BYTES).hex(), 0, ())
        document = json.loads(text)
        return cls(document["salt"], document["last"], tuple(Erasure(*user) for user in document["users"]))

    def to_text(self) -> str:
        """Return the erasures as compact JSON text."""
        users = [(user.number, user.user_hash, user.erased_at) for user in self.users]
        return json.dumps({"salt": self.salt, "last": self.last, "users": users}, separators=(",", ":"))

    def added(self, user_id: str, *, applied: int, now: Timestamp) -> Self:
        """Return a copy with the erasure of a user appended. An earlier erasure of the same user is removed.

        Parameters
        ----------
        user_id
            Id of the user.
        applied
            Number of the last erasure before the training of the current version, which left the erased users out.
            Erasures up to this number are dropped when they are older than `ERASED_WITHIN_DAYS`, because by then no
            file from before the erasure can still wait for its training.
        now
            Time of the request.

        Raises
        ------
        TooManyErasures
            The key already has `MAX_ERASURES` erasures.
        """
        new = Erasure(self.last + 1, _hashed(user_id, self.salt), now)
        oldest_kept = after(now, -ERASED_WITHIN_DAYS * DAY_S)
        kept = tuple(
            user
            for user in self.users
            if user.user_hash != new.user_hash and (user.number > applied or user.erased_at > oldest_kept)
        )
        if len(kept) >= MAX_ERASURES:
            raise TooManyErasures(
                f"The key has {len(kept)} erased users, which is the limit. An erased user counts towards "
                f"the limit until {ERASED_WITHIN_DAYS} days have passed and a training has left the user out."
            )
        return replace(self, last=new.number, users=(*kept, new))

    def unapplied(self, applied: int) -> ErasedUsers:
        """Return the users of the erasures with a number greater than `applied`.

        If `applied` is `ModelVersion.erasures` of a version, these are the users whom the version may still contain.
        """
        return self._of(user for user in self.users if user.number > applied)

    def after(self, arrived_at: str) -> ErasedUsers:
        """Return the users who were erased after `arrived_at`. Data that arrived at this time may still contain them.

        `arrived_at` is a timestamp or a `Job.data_timestamp`, which starts with a timestamp.
        """
        return self._of(user for user in self.users if user.erased_at > arrived_at)

    def _of(self, users: Iterable[Erasure]) -> ErasedUsers:
        return ErasedUsers(self.salt, frozenset(user.user_hash for user in users))


@dataclass(frozen=True, slots=True)
class ErasedUsers:
    """A set of erased users. `user_id in erased_users` tests whether a user was erased."""

    salt: str
    user_hashes: Collection[str]

    def __contains__(self, user_id: object) -> bool:
        return isinstance(user_id, str) and _hashed(user_id, self.salt) in self.user_hashes

    def __len__(self) -> int:
        return len(self.user_hashes)


def hidden_users(key: KeyRecord) -> ErasedUsers | None:
    """Return the users who were erased after the training of the current version, or None if there are none.

    The current version may still contain these users. Requests must therefore treat them as unknown.
    """
    if key.erasures is None:
        return None
    return _hidden_users(key.erasures, key.current_erasures or 0)


@lru_cache(maxsize=64)  # parsing 1,000 erasures takes a millisecond, and nearly all requests share a record
def _hidden_users(text: str, applied: int) -> ErasedUsers | None:
    return Erasures.parse(text).unapplied(applied) or None


def with_erased_user(key: KeyRecord, user_id: str, *, now: Timestamp) -> KeyRecord:
    """Return the key with one more erased user.

    Raises
    ------
    TooManyErasures
        The key already has `MAX_ERASURES` erasures.
    """
    erasures = Erasures.parse(key.erasures).added(user_id, applied=key.current_erasures or 0, now=now)
    return replace(key, revision=key.revision + 1, erasures=erasures.to_text())


def with_erase_by(version: ModelVersion, key: KeyRecord) -> ModelVersion:
    """Return the version with the time by which it must be deleted, if users were erased after its training.

    This time, `erase_by`, is `ERASED_WITHIN_DAYS` days after the oldest of these erasures. If the version already has
    an earlier `erase_by`, the earlier time is kept. A version without such erasures is returned unchanged.
    """
    if key.erasures is None:
        return version
    open_ = [user.erased_at for user in Erasures.parse(key.erasures).users if user.number > (version.erasures or 0)]
    if not open_:
        return version
    erase_by = after(min(open_), ERASED_WITHIN_DAYS * DAY_S)
    return replace(version, erase_by=min(erase_by, version.erase_by or erase_by))


def _hashed(user_id: str, salt: str) -> str:
    # A request can contain a lone surrogate, which UTF-8 cannot express.
    return hashlib.blake2b(
        user_id.encode("utf-8", "surrogatepass"), key=bytes.fromhex(salt), digest_size=_HASH_BYTES
    ).hexdigest()
