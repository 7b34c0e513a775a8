"""Backups of a data directory, and the registry that notices that it is missing."""

from __future__ import annotations

import json
import shutil
import stat
from pathlib import Path

import pytest
from typer.testing import CliRunner

from recsys.clock import utc_now
from recsys.errors import Unavailable
from recsys.keys.api_key import ApiKey
from recsys.objects import layout
from recsys.objects.files import FileObjectStore
from recsys.registry.key_record import KeyRecord
from recsys.registry.records import Job, ModelVersion
from recsys.registry.sqlite import SqliteRegistry
from recsys_local.adapters import REGISTRY_FILE, NoRegistry, RegistryMissing, lock_data_dir, open_registry
from recsys_local.backup import CATALOGUE, BackupDamaged, BackupRefused, create_backup, restore_backup
from recsys_local.cli import app
from tests.made_models import network_of, serving_model, write_model

KEY_ID = "shopkey1"


@pytest.fixture
def data_dir(tmp_path: Path) -> Path:
    """Return a data directory with a key, a published version, a queued job with its upload, a drop and a receipt."""
    data_dir, now = tmp_path / "data", utc_now()
    registry, store = open_registry(data_dir), FileObjectStore(data_dir)
    registry.create_key(KeyRecord(KEY_ID, now, secret_sha256=ApiKey.mint(KEY_ID).sha256()))
    registry.create_job(Job("trained1", KEY_ID, "uploads/trained1.csv", now, now))
    lease = registry.claim_job("trained1", owner="worker", data_timestamp="1", lease_s=60)
    digest = write_model(tmp_path / "model", serving_model(network_of([[1.0, 0.0]]), seen=[[0]], version=lease.version))
    for path in (tmp_path / "model").iterdir():
        store.create(layout.model_prefix(KEY_ID, lease.version) + path.name, path.read_bytes())
    registry.publish_version(lease, ModelVersion(KEY_ID, lease.version, "trained1", now, digest, {}), {})
    registry.create_job(Job("queued1", KEY_ID, "uploads/queued1.csv", now, now))
    for name in ("uploads/queued1.csv", "inbox/drop.csv", "receipts/drop.json"):
        store.create(name, name.encode())
    registry.close()
    return data_dir


def objects(data_dir: Path) -> dict[str, tuple[bytes, str]]:
    """Return the content and the version of every object."""
    store = FileObjectStore(data_dir)
    prefixes = (layout.MODELS, layout.UPLOADS, layout.INBOX, layout.RECEIPTS)
    found = [info for prefix in prefixes for info in store.list(prefix)]
    return {info.name: (store.read(info.name), info.version) for info in found}


def test_restored_directory_has_the_same_objects_keys_jobs_and_versions(data_dir: Path, tmp_path: Path) -> None:
    create_backup(data_dir, tmp_path / "backup")
    restore_backup(tmp_path / "backup", tmp_path / "restored")
    assert objects(tmp_path / "restored") == objects(data_dir)
    before, after = open_registry(data_dir), open_registry(tmp_path / "restored")
    assert after.list_keys() == before.list_keys() != []
    assert after.list_jobs() == before.list_jobs() != []
    assert after.list_versions(KEY_ID) == before.list_versions(KEY_ID) != []
    before.close()
    after.close()


def test_files_that_waited_in_the_inbox_keep_their_order_of_arrival(data_dir: Path, tmp_path: Path) -> None:
    store = FileObjectStore(data_dir)
    names = [f"inbox/{name}.csv" for name in "cab"]
    for name in names:
        store.create(name, b"user_id,item_id\n")
    create_backup(data_dir, tmp_path / "backup")
    restore_backup(tmp_path / "backup", tmp_path / "restored")
    restored = [info for info in FileObjectStore(tmp_path / "restored").list("inbox/") if info.name in names]
    assert [info.name for info in sorted(restored, key=lambda info: info.arrived_at)] == names


def test_backup_contains_the_records_in_the_write_ahead_log(data_dir: Path, tmp_path: Path) -> None:
    registry = open_registry(data_dir)  # open, as in a running service
    registry.create_key(KeyRecord("newKey1", utc_now()))
    create_backup(data_dir, tmp_path / "backup")
    registry.close()
    assert not list((tmp_path / "backup").glob(f"{REGISTRY_FILE}-*"))
    restore_backup(tmp_path / "backup", tmp_path / "restored")
    restored = open_registry(tmp_path / "restored")
    assert "newKey1" in [key.key_id for key in restored.list_keys()]
    restored.close()


def test_backup_and_restored_directory_are_closed_to_other_users(data_dir: Path, tmp_path: Path) -> None:
    create_backup(data_dir, tmp_path / "backup")
    restore_backup(tmp_path / "backup", tmp_path / "restored")
    for folder in (tmp_path / "backup", tmp_path / "restored"):
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
        assert stat.S_IMODE((folder / REGISTRY_FILE).stat().st_mode) == 0o600


def test_backup_into_a_directory_with_files_is_rejected(data_dir: Path, tmp_path: Path) -> None:
    create_backup(data_dir, tmp_path / "backup")
    with pytest.raises(BackupRefused):
        create_backup(data_dir, tmp_path / "backup")


def test_restore_over_data_is_rejected(data_dir: Path, tmp_path: Path) -> None:
    create_backup(data_dir, tmp_path / "backup")
    before = objects(data_dir)
    with pytest.raises(BackupRefused):
        restore_backup(tmp_path / "backup", data_dir)
    assert objects(data_dir) == before


def test_restore_under_a_running_service_is_rejected(data_dir: Path, tmp_path: Path) -> None:
    create_backup(data_dir, tmp_path / "backup")
    with lock_data_dir(tmp_path / "restored"):
        result = CliRunner().invoke(
            app, ["restore", str(tmp_path / "backup"), "--data-dir", str(tmp_path / "restored")]
        )
    assert result.exit_code == 1
    assert "in use by process" in result.stderr


def test_backup_without_a_model_file_fails(data_dir: Path, tmp_path: Path) -> None:
    (data_dir / layout.model_prefix(KEY_ID, "trained1.1") / "serving.npz").unlink()
    with pytest.raises(BackupDamaged, match=r"serving\.npz is missing"):
        create_backup(data_dir, tmp_path / "backup")
    assert not (tmp_path / "backup" / CATALOGUE).exists()


@pytest.mark.parametrize("path", ["uploads/queued1.csv", REGISTRY_FILE])
def test_damaged_backup_is_not_restored(data_dir: Path, tmp_path: Path, path: str) -> None:
    create_backup(data_dir, tmp_path / "backup")
    damaged = tmp_path / "backup" / path
    damaged.write_bytes(damaged.read_bytes() + b"x")
    with pytest.raises(BackupDamaged, match="differs from its digest"):
        restore_backup(tmp_path / "backup", tmp_path / "restored")
    assert not (tmp_path / "restored" / REGISTRY_FILE).exists()


def test_interrupted_backup_is_not_restored(data_dir: Path, tmp_path: Path) -> None:
    create_backup(data_dir, tmp_path / "backup")
    (tmp_path / "backup" / CATALOGUE).unlink()
    with pytest.raises(BackupDamaged, match="was interrupted"):
        restore_backup(tmp_path / "backup", tmp_path / "restored")


@pytest.mark.parametrize("path", ["../outside", "/outside"])
def test_backup_that_names_files_outside_the_directory_is_rejected(data_dir: Path, tmp_path: Path, path: str) -> None:
    create_backup(data_dir, tmp_path / "backup")
    catalogue = json.loads((tmp_path / "backup" / CATALOGUE).read_text())
    catalogue["files"][0]["path"] = path
    (tmp_path / "backup" / CATALOGUE).write_text(json.dumps(catalogue))
    with pytest.raises(BackupDamaged, match="outside"):
        restore_backup(tmp_path / "backup", tmp_path / "restored")


def test_backup_of_a_directory_without_a_registry_fails(tmp_path: Path) -> None:
    with pytest.raises(NoRegistry):
        create_backup(tmp_path / "nothing", tmp_path / "backup")
    assert not (tmp_path / "backup").exists()


# -- one file


def test_after_a_checkpoint_the_registry_is_one_file(data_dir: Path, tmp_path: Path) -> None:
    registry = open_registry(data_dir)
    registry.create_key(KeyRecord("newKey1", utc_now()))
    registry.checkpoint()
    shutil.copy(data_dir / REGISTRY_FILE, tmp_path / "copy.sqlite3")
    registry.close()
    copy = SqliteRegistry(tmp_path / "copy.sqlite3")
    assert "newKey1" in [key.key_id for key in copy.list_keys()]
    copy.close()


def test_missing_registry_beside_models_is_reported(data_dir: Path) -> None:
    (data_dir / REGISTRY_FILE).unlink()
    with pytest.raises(RegistryMissing, match="is missing") as caught:
        open_registry(data_dir)
    assert "recsys restore" in str(caught.value.hint)
    assert not (data_dir / REGISTRY_FILE).exists()


def test_registry_copied_without_its_write_ahead_log_is_reported(data_dir: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    registry = open_registry(data_dir)
    shutil.copytree(data_dir / "models", copy / "models")
    registry.close()
    open_registry(tmp_path / "new").close()
    shutil.copy(tmp_path / "new" / REGISTRY_FILE, copy / REGISTRY_FILE)
    with pytest.raises(RegistryMissing, match="is empty"):
        open_registry(copy)


def test_damaged_registry_asks_for_a_backup(data_dir: Path) -> None:
    (data_dir / REGISTRY_FILE).write_bytes(b"not a database" * 1000)
    with pytest.raises(Unavailable) as caught:
        open_registry(data_dir)
    assert "recsys restore" in str(caught.value.hint)


# -- commands


def run(*arguments: str | Path) -> str:
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert result.exit_code == 0, result.stderr
    return result.stdout


def test_backup_and_restore_commands(data_dir: Path, tmp_path: Path) -> None:
    assert "Backed up 10 files" in run("backup", tmp_path / "backup", "--data-dir", data_dir)
    assert "Restored 10 files" in run("restore", tmp_path / "backup", "--data-dir", tmp_path / "restored")
    assert objects(tmp_path / "restored") == objects(data_dir)


def test_keys_are_listed_created_rotated_and_revoked(data_dir: Path) -> None:
    created = ApiKey.parse(run("keys", "create", "--data-dir", data_dir).strip())
    rotated = json.loads(run("keys", "rotate", KEY_ID, "--data-dir", data_dir, "--overlap-s", "0", "--json"))
    run("keys", "revoke", created.key_id, "--data-dir", data_dir)
    listed = {key["key_id"]: key for key in json.loads(run("keys", "list", "--data-dir", data_dir, "--json"))}
    assert listed[KEY_ID]["status"] == "active"
    assert listed[created.key_id]["status"] == "revoked"
    registry = open_registry(data_dir)
    stored = registry.get_key(KEY_ID)
    registry.close()
    assert ApiKey.parse(rotated["api_key"]).sha256() == stored.secret_sha256
    assert stored.previous_expires_at is not None
    table = run("keys", "list", "--data-dir", data_dir)
    assert KEY_ID in table
    assert created.secret not in table


def test_the_audit_log_of_a_revoked_key_is_listed(data_dir: Path) -> None:
    created = ApiKey.parse(run("keys", "create", "--data-dir", data_dir).strip())
    run("keys", "revoke", created.key_id, "--data-dir", data_dir)
    events = json.loads(run("keys", "audit", created.key_id, "--data-dir", data_dir, "--json"))
    assert [event["event"] for event in events] == ["key.revoked", "key.created"]
    assert run("keys", "audit", "anotherKey", "--data-dir", data_dir).strip() == "None."


def test_jobs_are_listed_newest_first(data_dir: Path) -> None:
    jobs = json.loads(run("jobs", "--data-dir", data_dir, "--json"))
    assert {job["job_id"]: job["status"] for job in jobs} == {"trained1": "succeeded", "queued1": "queued"}
    assert jobs == sorted(jobs, key=lambda job: (job["created_at"], job["job_id"]), reverse=True)
    assert "trained1.1" in run("jobs", "--data-dir", data_dir, "--key", KEY_ID)
    assert run("jobs", "--data-dir", data_dir, "--key", "anotherKey").strip() == "None."


def test_unknown_key_fails_the_command_with_a_sentence(data_dir: Path) -> None:
    result = CliRunner().invoke(app, ["keys", "revoke", "unknown1", "--data-dir", str(data_dir)])
    assert result.exit_code == 1
    assert "unknown1" in result.stderr


@pytest.mark.parametrize("command", [["keys", "list"], ["keys", "create"], ["jobs"]])
def test_commands_do_not_create_a_registry(tmp_path: Path, command: list[str]) -> None:
    result = CliRunner().invoke(app, [*command, "--data-dir", str(tmp_path / "nothing")])
    assert result.exit_code == 1
    assert "--data-dir" in result.stderr
    assert not (tmp_path / "nothing").exists()
