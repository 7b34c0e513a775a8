"""Commands for the operator to manage keys and jobs in the registry. They also work while the service is running."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from rich.console import Console
from rich.table import Table

from recsys.clock import utc_now
from recsys.keys.api_key import ApiKey
from recsys.registry.audit import AuditEvent
from recsys.registry.key_record import KeyRecord
from recsys.registry.records import Job
from recsys.registry.sqlite import SqliteRegistry
from recsys.settings import Settings
from recsys_local.adapters import open_existing_registry

DEFAULT_OVERLAP_S: Final = 86_400.0
MAX_OVERLAP_S: Final = 7 * 86_400.0
"""Longest overlap of a rotation, in seconds. `POST /v1/key/rotate` has the same limit."""


_EVENTS_PER_READ: Final = 1000


def key_rows(data_dir: Path) -> list[dict[str, str | None]]:
    """Return one row per key, oldest first, without secrets.

    Raises
    ------
    NoRegistry
        The data directory has no registry.
    """
    with _registry(data_dir) as registry:
        return [
            {
                "key_id": key.key_id,
                "status": _status_of(key),
                "created_at": key.created_at,
                "expires_at": key.expires_at,
                "current_version": key.current_version,
            }
            for key in registry.list_keys()
        ]


def job_rows(data_dir: Path, key_id: str = "") -> list[dict[str, str | None]]:
    """Return one row per job, newest first. A `key_id` that is not empty restricts the rows to the jobs of this key.

    Raises
    ------
    NoRegistry
        The data directory has no registry.
    """
    with _registry(data_dir) as registry:
        return [
            {
                "job_id": job.job_id,
                "key_id": job.key_id,
                "status": str(job.state),
                "created_at": job.created_at,
                "updated_at": job.updated_at,
                "detail": _detail_of(job),
            }
            for job in registry.list_jobs()
            if key_id in ("", job.key_id)
        ]


def create_key(data_dir: Path) -> ApiKey:
    """Create a key that never expires. All other keys expire as long as they have no model.

    Raises
    ------
    NoRegistry
        The data directory has no registry.
    """
    api_key = ApiKey.mint()
    with _registry(data_dir) as registry:
        registry.create_key(KeyRecord(api_key.key_id, utc_now(), secret_sha256=api_key.sha256()))
    return api_key


def rotate_key(data_dir: Path, key_id: str, *, overlap_s: float) -> ApiKey:
    """Replace the secret of a key, and return the new key. The previous secret remains valid for `overlap_s` seconds.

    Raises
    ------
    NoRegistry
        The data directory has no registry.
    KeyNotFound
        The key does not exist or was revoked.
    """
    api_key = ApiKey.mint(key_id)
    with _registry(data_dir) as registry:
        registry.rotate_key(key_id, api_key.sha256(), overlap_s=overlap_s)
    return api_key


def revoke_key(data_dir: Path, key_id: str) -> None:
    """Revoke a key permanently. A repeated call has no effect.

    Raises
    ------
    NoRegistry
        The data directory has no registry.
    KeyNotFound
        The key does not exist.
    """
    with _registry(data_dir) as registry:
        registry.revoke_key(key_id)


def event_rows(data_dir: Path, key_id: str) -> list[dict[str, str | None]]:
    """Return one row per event of a key's audit log, newest first. This also works for a revoked key.

    Raises
    ------
    NoRegistry
        The data directory has no registry.
    """
    events: list[AuditEvent] = []
    with _registry(data_dir) as registry:
        page = registry.list_events(key_id, limit=_EVENTS_PER_READ)
        events += page.events
        while page.next_cursor is not None:
            page = registry.list_events(key_id, limit=_EVENTS_PER_READ, cursor=page.next_cursor)
            events += page.events
    return [{"at": event.at, "event": event.event, "detail": json.dumps(event.detail)} for event in events]


def print_table(rows: Sequence[dict[str, str | None]], *, as_json: bool) -> None:
    """Print rows as a table or as a JSON array. All rows have the same members."""
    if as_json:
        print(json.dumps(rows))
        return
    if not rows:
        print("None.")
        return
    table = Table(*rows[0], box=None)
    for row in rows:
        table.add_row(*(value or "–" for value in row.values()))
    Console(highlight=False, markup=False, width=None if sys.stdout.isatty() else 250).print(table)


@contextmanager
def _registry(data_dir: Path) -> Iterator[SqliteRegistry]:
    registry = open_existing_registry(data_dir, audit_days=Settings.from_environment().audit_days)
    try:
        yield registry
    finally:
        registry.close()


def _status_of(key: KeyRecord) -> str:
    if key.revoked_at is not None:
        return "revoked"
    if key.secret_sha256 is None:
        return "unclaimed"
    return "active" if key.current_version is not None else "without a model"


def _detail_of(job: Job) -> str | None:
    if job.problem is not None:
        return f"{job.problem.code}: {job.problem.detail}"
    if job.progress is not None and not job.state.is_final:
        return job.progress.phase
    if job.held_reasons:
        return f"{job.version}: {', '.join(reason['code'] for reason in job.held_reasons)}"
    return job.version
