"""Operations on API keys, their scoped keys and claim tokens."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from recsys.clock import Timestamp
from recsys.errors import KeyExists, KeyNotFound
from recsys.registry import audit, rules, scoped_keys
from recsys.registry.key_record import KeyRecord
from recsys.registry.reading import claim_address, key_address, read_key, unexpired
from recsys.registry.scoped_keys import ScopedKey
from recsys.registry.table import Change
from recsys.registry.transactions import TableOperations


class KeyOperations(TableOperations):
    """The part of `Registry` for keys. Every method raises `Unavailable` if the database does not respond."""

    def create_key(self, key: KeyRecord) -> None:
        """Store a new key.

        Raises
        ------
        KeyExists
            A key with the same id exists and has not expired. The existing key remains unchanged.
        """

        def decide(now: Timestamp) -> tuple[None, list[Change]]:
            row = self._table.get(key_address(key.key_id))
            if unexpired(row, now) is not None:
                raise KeyExists(f"A key with the id {key.key_id!r} exists.")
            created = audit.creation_change(self._table, key, keep_days=self._audit_days)
            return None, [row.changed_to(key.to_document()), created]

        self._commit_with_retry(decide)

    def get_key(self, key_id: str) -> KeyRecord:
        """Return a key, even if it is revoked. The read is strongly consistent.

        Raises
        ------
        KeyNotFound
            The key does not exist or has expired.
        """
        return read_key(self._table, key_id, self._clock())[1]

    def rotate_key(self, key_id: str, new_sha256: str, *, overlap_s: float) -> KeyRecord:
        """Replace the secret of a key.

        Parameters
        ----------
        key_id, new_sha256
            Id of the key, and SHA-256 of its new secret.
        overlap_s
            Time for which the previous secret stays valid, in seconds.

        Returns
        -------
        KeyRecord
            The changed key.

        Raises
        ------
        KeyNotFound
            The key does not exist, has expired or is revoked.
        """
        return self._change_key(
            key_id,
            lambda key, now: rules.rotated(key, new_sha256, overlap_s=overlap_s, now=now),
            "key.rotated",
            lambda _, key: {"previous_key_expires_at": key.previous_expires_at},
        )

    def revoke_key(self, key_id: str) -> None:
        """Revoke a key permanently. A repeated call has no effect.

        Raises
        ------
        KeyNotFound
            The key does not exist or has expired.
        """
        self._change_key(key_id, lambda key, now: rules.revoked(key, now=now), "key.revoked")

    def add_scoped_key(self, key_id: str, scoped_key: ScopedKey) -> KeyRecord:
        """Add a scoped key to an API key, and return the changed API key.

        Raises
        ------
        KeyNotFound
            The key does not exist, has expired or is revoked.
        TooManyScopedKeys
            The key already has `MAX_SCOPED_KEYS` scoped keys.
        """
        detail = {"scoped_key_id": scoped_key.scoped_key_id, "name": scoped_key.name, "scope": str(scoped_key.scope)}
        return self._change_scoped_keys(
            key_id, lambda keys: scoped_keys.added(keys, scoped_key), "scoped_key.created", detail
        )

    def remove_scoped_key(self, key_id: str, scoped_key_id: str) -> KeyRecord:
        """Remove a scoped key, so that it is no longer valid, and return the changed API key.

        Raises
        ------
        KeyNotFound
            The key does not exist, has expired or is revoked.
        ScopedKeyNotFound
            The API key has no scoped key with this id.
        """
        return self._change_scoped_keys(
            key_id,
            lambda keys: scoped_keys.removed(keys, scoped_key_id),
            "scoped_key.deleted",
            {"scoped_key_id": scoped_key_id},
        )

    def offer_claim(self, token_sha256: str, key_id: str, *, expires_at: Timestamp) -> None:
        """Store a claim token for the key `key_id`. `claim_key` accepts the token until `expires_at`."""

        def decide(_: Timestamp) -> tuple[None, list[Change]]:
            row = self._table.get(claim_address(token_sha256))
            return None, [row.changed_to({"key_id": key_id, "expires_at": expires_at})]

        self._commit_with_retry(decide)

    def claim_key(self, token_sha256: str, secret_sha256: str) -> KeyRecord:
        """Set the first secret of a key and delete the claim token that permits this, in one transaction.

        Parameters
        ----------
        token_sha256, secret_sha256
            SHA-256 of the claim token, and SHA-256 of the new secret, in hexadecimal.

        Returns
        -------
        KeyRecord
            The changed key. If the key has a model, its expiry is removed.

        Raises
        ------
        Gone
            The token is unknown, used or expired, or the key of the token already has a secret, is revoked
            or does not exist.
        """

        def decide(now: Timestamp) -> tuple[KeyRecord, list[Change]]:
            claim_row = self._table.get(claim_address(token_sha256))
            claim = unexpired(claim_row, now)
            if claim is None:
                raise rules.claim_gone()
            try:
                key_row, key = read_key(self._table, str(claim["key_id"]), now)
            except KeyNotFound:
                raise rules.claim_gone() from None
            changed = rules.with_first_secret(key, secret_sha256)
            return changed, [
                claim_row.changed_to(None),
                key_row.changed_to(changed.to_document()),
                self._event_change(key.key_id, "key.claimed", now=now),
                *audit.kept_creation_change(self._table, key, changed, keep_days=self._audit_days),
            ]

        return self._commit_with_retry(decide)

    def list_events(self, key_id: str, *, limit: int, cursor: str | None = None) -> audit.AuditPage:
        """Return events of a key's audit log, newest first; see `recsys.registry.audit.read_page`."""
        return audit.read_page(self._table, key_id, limit=limit, cursor=cursor, now=self._clock())

    def _change_scoped_keys(
        self,
        key_id: str,
        change: Callable[[tuple[ScopedKey, ...]], tuple[ScopedKey, ...]],
        event: str,
        detail: dict[str, Any],
    ) -> KeyRecord:
        def changed(key: KeyRecord, _: Timestamp) -> KeyRecord:
            rules.check_not_revoked(key)
            return rules.with_scoped_keys(key, change(key.scoped_keys))

        return self._change_key(key_id, changed, event, lambda _before, _changed: detail)
