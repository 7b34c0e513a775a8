"""Read access as `recommend` uses it, on every adapter, including those without boto3."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from recsys.clock import after
from recsys.errors import KeyNotFound, ObjectNotFound
from recsys.objects.files import FileObjectStore
from recsys.objects.s3 import S3ObjectStore
from recsys.objects.store import ObjectReader, ObjectStore
from recsys.registry.dynamodb import DynamoTable
from recsys.registry.key_record import KeyRecord
from recsys.registry.reading import KeyReader
from recsys.registry.registry import Registry
from recsys.registry.sqlite import SqliteRegistry
from recsys_recommend.lean_aws.config import AwsConfig
from recsys_recommend.lean_aws.credentials import CredentialProvider
from recsys_recommend.lean_aws.dynamodb_reader import DynamoKeyReader
from recsys_recommend.lean_aws.s3_reader import S3Reader
from tests.contract.conftest import FixedClock
from tests.contract.records import NOW
from tests.emulators import MINISTACK, Emulator

KEY = KeyRecord("key", NOW, revision=3, secret_sha256="s", current_version="job.1", current_manifest_sha256="m")


@dataclass
class Stores:
    """Registry and object store for writing, and the readers under test."""

    registry: Registry
    store: ObjectStore
    keys: KeyReader
    objects: ObjectReader
    clock: FixedClock


@pytest.fixture(params=["local", "moto", pytest.param("ministack", marks=MINISTACK)])
def stores(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Stores]:
    clock = FixedClock()
    if request.param == "local":
        registry, store = SqliteRegistry(tmp_path / "registry", clock), FileObjectStore(tmp_path / "objects")
        yield Stores(registry, store, registry, store, clock)
        registry.close()
        return
    emulator: Emulator = request.getfixturevalue(request.param)
    table, bucket = emulator.new_table(), emulator.new_bucket(versioned=True)
    config = AwsConfig.from_environment(emulator.environment)
    credentials = CredentialProvider(emulator.environment)
    keys, objects = DynamoKeyReader(config, credentials, table, clock), S3Reader(config, credentials, bucket)
    registry = Registry(DynamoTable(emulator.dynamodb, table), clock)
    yield Stores(registry, S3ObjectStore(emulator.s3, bucket), keys, objects, clock)
    keys.close()
    objects.close()


def test_a_key_reads_back(stores: Stores) -> None:
    stores.registry.create_key(KEY)
    assert stores.keys.get_key("key") == KEY


def test_a_change_is_visible_immediately(stores: Stores) -> None:
    stores.registry.create_key(KEY)
    assert stores.keys.get_key("key").revoked_at is None
    stores.registry.revoke_key("key")
    assert stores.keys.get_key("key").revoked_at == NOW


@pytest.mark.parametrize("key_id", ["other", "ü", "x" * 3000])
def test_a_missing_key_is_not_found(stores: Stores, key_id: str) -> None:
    with pytest.raises(KeyNotFound):
        stores.keys.get_key(key_id)


def test_an_expired_key_is_not_found(stores: Stores) -> None:
    stores.registry.create_key(replace(KEY, expires_at=after(NOW, 10)))
    stores.clock.advance(10)
    with pytest.raises(KeyNotFound):
        stores.keys.get_key("key")


@pytest.mark.parametrize("content", [b"", b"\x00\xff", b"x" * 300_000])
@pytest.mark.parametrize("name", ["models/key/job.1/serving.npz", "models/spring orders + more (ü).csv"])
def test_an_object_reads_back(stores: Stores, name: str, content: bytes) -> None:
    stores.store.create(name, content)
    assert stores.objects.read(name) == content


def test_a_missing_object_is_not_found(stores: Stores) -> None:
    with pytest.raises(ObjectNotFound):
        stores.objects.read("models/key/job.1/serving.npz")
