"""`recsys gc`, the hourly collection of the local service, and the function `gc`."""

from __future__ import annotations

import fcntl
import json
import logging
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from recsys.clock import DAY_S, Timestamp, after, utc_now
from recsys.errors import Unavailable
from recsys.objects.files import FileObjectStore
from recsys.registry.key_record import KeyRecord
from recsys.registry.reading import version_address
from recsys.registry.records import ModelVersion
from recsys.registry.sqlite import SqliteRegistry
from recsys.registry.table import Change
from recsys.retention.collector import Collector
from recsys.retention.plan import RetentionPolicy
from recsys.settings import Settings
from recsys_local.adapters import REGISTRY_FILE, open_store
from recsys_local.backup import create_backup
from recsys_local.cli import app
from recsys_local.garbage import collect_and_log, preventing_collection
from tests.unit.lambda_events import Context, imported, unconfigured_logging

LONG_AGO = Timestamp("2025-01-01T00:00:00.000000Z")


class DataDir:
    """A data directory with a revoked key, whose only version was retired two hours ago."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.registry = SqliteRegistry(path / REGISTRY_FILE)
        self.store: FileObjectStore = open_store(path)
        self.settings = Settings(data_dir=path)
        self.registry.create_key(KeyRecord("key1", LONG_AGO, revoked_at=LONG_AGO))
        self.registry.create_key(KeyRecord("gone", LONG_AGO, expires_at=LONG_AGO))
        retired_at = after(utc_now(), -7200)
        version = ModelVersion(
            "key1", "v1.1", "v1", LONG_AGO, "digest", {}, deleted_at=retired_at, expires_at=after(retired_at, DAY_S)
        )
        self.registry.table.write([Change(version_address("key1", "v1.1"), None, version.to_document())])
        self.store.create("models/key1/v1.1/manifest.json", b"12345")

    @property
    def names(self) -> list[str]:
        return [info.name for info in self.store.list("models/")]

    def gc(self, *options: str) -> str:
        result = CliRunner().invoke(app, ["gc", "--data-dir", str(self.path), *options])
        assert result.exit_code == 0, result.output
        return result.output


@pytest.fixture
def data(tmp_path: Path) -> Iterator[DataDir]:
    data = DataDir(tmp_path / "data")
    yield data
    data.registry.close()


def test_dry_run_prints_what_why_and_how_much_and_deletes_nothing(data: DataDir) -> None:
    (row,) = json.loads(data.gc("--dry-run", "--json"))
    assert row == {
        "what": "models/key1/v1.1/",
        "reason": "its version was retired and the grace period is over",
        "files": "now",
        "bytes": "5",
    }
    n_expired = data.registry.count_expired()
    assert f"Would delete 1 versions and files (0.0 MB) and {n_expired} expired records" in data.gc("--dry-run")
    assert data.registry.count_expired() == n_expired
    assert data.names == ["models/key1/v1.1/manifest.json"]


def test_gc_deletes_files_and_expired_records_and_checkpoints_the_registry(data: DataDir) -> None:
    n_expired = data.registry.count_expired()
    assert n_expired > 0
    assert f"Deleted 1 versions and files (0.0 MB) and {n_expired} expired records" in data.gc()
    assert data.names == []
    assert data.registry.count_expired() == 0
    assert (data.path / f"{REGISTRY_FILE}-wal").stat().st_size == 0
    assert "None." in data.gc()


def test_gc_of_a_directory_without_a_registry_is_an_error(tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["gc", "--data-dir", str(tmp_path)])
    assert result.exit_code == 1


def test_nothing_is_deleted_during_a_backup(data: DataDir, caplog: pytest.LogCaptureFixture) -> None:
    with preventing_collection(data.path):
        assert "Nothing was deleted, because a backup" in data.gc()
        with caplog.at_level(logging.INFO, "recsys.gc"):
            collect_and_log(data.path, data.store, data.registry, data.settings)
    assert "Nothing was collected" in caplog.text
    assert data.names == ["models/key1/v1.1/manifest.json"]
    data.gc()
    assert data.names == []


def test_a_backup_holds_the_lock_while_it_copies(data: DataDir, monkeypatch: pytest.MonkeyPatch) -> None:
    outcomes = []

    def copy_to(registry: SqliteRegistry, target: Path) -> None:
        with (data.path / "gc.lock").open("a") as lock, pytest.raises(BlockingIOError):
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        outcomes.append("locked")
        original(registry, target)

    original = SqliteRegistry.copy_to
    monkeypatch.setattr(SqliteRegistry, "copy_to", copy_to)
    create_backup(data.path, data.path.parent / "backup")
    assert outcomes == ["locked"]


def test_the_service_logs_a_collection_only_if_it_did_something(
    data: DataDir, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, "recsys.gc"):
        for _ in range(2):
            collect_and_log(data.path, data.store, data.registry, data.settings)
    (line,) = caplog.messages
    assert line.startswith("Deleted 1 versions and files")


def test_catalogues_are_kept_unless_their_key_is_lost(data: DataDir) -> None:
    data.registry.create_key(KeyRecord("used", LONG_AGO, catalogue_version="items.1", catalogue_sha256="digest"))
    for key_id in ("used", "key1", "gone"):
        data.store.create(f"models/{key_id}/catalogue/items.1/items.npz", b"12345")

    data.gc()

    assert [name for name in data.names if "catalogue" in name] == ["models/used/catalogue/items.1/items.npz"]


# -- the function gc


def collector(data: DataDir) -> Collector:
    return Collector(data.registry.table, data.store, RetentionPolicy())


def test_the_function_collects_and_returns_the_numbers(data: DataDir, monkeypatch: pytest.MonkeyPatch) -> None:
    with unconfigured_logging():
        module = imported("recsys_api.gc_handler", monkeypatch)
        outcome = module.build_handler(collector(data))({}, Context())
    assert outcome == {"retired": 0, "deleted": 1, "freed_bytes": 5, "failed": 0}
    assert data.names == []


def test_the_function_fails_if_a_deletion_failed(data: DataDir, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_name: str) -> None:
        raise Unavailable("The store is gone.")

    monkeypatch.setattr(data.store, "delete", refuse)
    with unconfigured_logging():
        handle = imported("recsys_api.gc_handler", monkeypatch).build_handler(collector(data))
        with pytest.raises(Unavailable, match="1 deletions failed"):
            handle({}, Context())
