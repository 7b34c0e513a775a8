"""A registry and an object store under publications, readers, crashes and collections, on a simulated clock."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any, BinaryIO, Final

from recsys.clock import Timestamp, after
from recsys.errors import (
    Gone,
    JobBusy,
    JobFinished,
    KeyNotFound,
    LeaseLost,
    ObjectNotFound,
    TooManyPinnedVersions,
    VersionNotFound,
)
from recsys.objects import layout
from recsys.objects.files import FileObjectStore
from recsys.objects.store import ObjectInfo, UploadForm
from recsys.registry.records import Lease
from recsys.registry.registry import Published, Registry
from recsys.registry.sqlite import SqliteTable
from recsys.registry.table import Address, Change, Row
from recsys.retention.collector import Collector
from recsys.retention.plan import RetentionPolicy
from tests.contract.conftest import FixedClock
from tests.contract.records import a_job, a_key, a_version

FILES: Final = {"serving.npz": b"x" * 90, "manifest.json": b"y" * 10}
VERSION_BYTES: Final = sum(map(len, FILES.values()))
LEASE_S: Final = 60.0
KEY_LIFE_S: Final = 7 * 86_400.0
REFUSALS: Final = (Gone, JobBusy, JobFinished, KeyNotFound, LeaseLost, TooManyPinnedVersions, VersionNotFound)


class Killed(BaseException):
    """The process ends before this call."""


class Fuse:
    """Kills the process at the n-th call, or calls `interrupt` before it; without a number, it does nothing."""

    def __init__(self) -> None:
        self._calls_left: int | None = None
        self._interrupt: Callable[[], object] | None = None

    def light(self, calls: int | None, interrupt: Callable[[], object] | None = None) -> None:
        self._calls_left, self._interrupt = calls, interrupt

    def burn(self) -> None:
        if self._calls_left is None:
            return
        self._calls_left -= 1
        if self._calls_left < 0:
            interrupt = self._interrupt
            self.light(None)
            if interrupt is None:
                raise Killed
            interrupt()


@dataclass
class FusedTable:
    """A table whose calls burn a fuse."""

    table: SqliteTable
    fuse: Fuse

    def get(self, address: Address) -> Row:
        self.fuse.burn()
        return self.table.get(address)

    def list(self, partition: str, sort_prefix: str) -> list[Row]:
        self.fuse.burn()
        return self.table.list(partition, sort_prefix)

    def write(self, changes: Sequence[Change]) -> bool:
        self.fuse.burn()
        return self.table.write(changes)


@dataclass
class FusedStore:
    """An object store whose writes burn a fuse, and whose objects arrive by the simulated clock."""

    store: FileObjectStore
    fuse: Fuse
    clock: FixedClock
    arrivals: dict[str, Timestamp] = field(default_factory=dict)

    def create(self, name: str, body: bytes | BinaryIO) -> ObjectInfo:
        self.fuse.burn()
        info = self.store.create(name, body)
        self.arrivals[name] = self.clock()
        return self._at(info)

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        self.fuse.burn()
        yield from map(self._at, self.store.list(prefix))

    def delete(self, name: str) -> None:
        self.fuse.burn()
        self.store.delete(name)

    def read(self, name: str) -> bytes:
        return self.store.read(name)

    def open(self, name: str) -> BinaryIO:
        return self.store.open(name)

    def info(self, name: str) -> ObjectInfo:
        return self._at(self.store.info(name))

    def replace(self, name: str, body: bytes) -> ObjectInfo:
        raise AssertionError("The collector must not write objects.")

    def upload_form(self, name: str, *, max_bytes: int, valid_s: int) -> UploadForm:
        raise AssertionError("The collector must not write objects.")

    def _at(self, info: ObjectInfo) -> ObjectInfo:
        at = self.arrivals[info.name]
        return ObjectInfo(info.name, info.size_bytes, info.version, modified_at=at, arrived_at=at)


@dataclass(frozen=True)
class Reader:
    """A process that read the record of a key, and loads its current version within the grace period."""

    key_id: str
    version: str
    until: Timestamp


class World:
    """Operations of tenants, workers, readers and the collector, and the checks of what must hold."""

    def __init__(self, folder: Path, policy: RetentionPolicy) -> None:
        self.policy = policy
        self.clock = FixedClock()
        self.fuse = Fuse()
        self._sqlite = SqliteTable(folder / "registry.sqlite3")
        self.table = FusedTable(self._sqlite, self.fuse)
        self.store = FusedStore(FileObjectStore(folder), self.fuse, self.clock)
        self.registry = Registry(self.table, self.clock)
        self.keys: list[str] = []
        self.leases: list[Lease] = []
        self.readers: list[Reader] = []
        self.publications = 0
        self._numbers = count()

    def close(self) -> None:
        self._sqlite.close()

    # -- operations

    def create_key(self, *, is_claimed: bool) -> None:
        key_id = f"key{next(self._numbers)}"
        secret = "1" * 64 if is_claimed else None
        self.registry.create_key(a_key(key_id, secret_sha256=secret, expires_at=after(self.clock(), KEY_LIFE_S)))
        self.registry.offer_claim(f"token of {key_id}", key_id, expires_at=after(self.clock(), KEY_LIFE_S))
        self.keys.append(key_id)

    def start_job(self, key_id: str) -> None:
        """Upload data and begin to train on it."""
        job_id = f"job{next(self._numbers):05}"
        job = a_job(job_id, key_id=key_id, created_at=self.clock(), updated_at=self.clock())
        self.registry.create_job(job)
        self.store.create(job.object_name, b"user_id,item_id")
        self.start_attempt(job_id)

    def start_attempt(self, job_id: str) -> None:
        """Claim a job and upload the files of a version, without publishing it yet."""
        source = f"{self.clock()}#{next(self._numbers):05}"
        lease = self.registry.claim_job(job_id, owner=source, data_timestamp=source, lease_s=LEASE_S)
        self.leases.append(lease)
        for name, content in FILES.items():
            self.store.create(layout.model_prefix(lease.job.key_id, lease.version) + name, content)

    def publish(self, lease: Lease) -> None:
        """Publish the version of an attempt, whose worker was perhaps suspended for days."""
        self.leases.remove(lease)
        if not self._has_files(lease.job.key_id, lease.version):
            return  # a worker checks the files before it publishes; this one was killed before it wrote them all
        version = a_version(lease, created_at=self.clock(), metrics={})
        self.publications += self.registry.publish_version(lease, version, {}) is Published.CURRENT

    def start_reader(self, key_id: str) -> None:
        key = self.registry.get_key(key_id)
        if key.current_version is not None and key.revoked_at is None:
            self.readers.append(Reader(key_id, key.current_version, after(self.clock(), self.policy.grace_s)))

    def collect(self) -> None:
        Collector(self.table, self.store, self.policy, self.clock).run()

    def attempt(
        self, operation: Callable[..., Any], *arguments: Any, calls: int | None = None, interrupt: Any = None
    ) -> None:
        """Call an operation that may be refused; it is killed, or interrupted, before the given number of calls."""
        self.fuse.light(calls, interrupt)
        try:
            operation(*arguments)
        except (*REFUSALS, Killed):
            return
        finally:
            self.fuse.light(None)

    # -- checks

    def check_readers(self) -> None:
        """Check that whatever a reader may load is complete."""
        self.readers = [reader for reader in self.readers if reader.until > self.clock()]
        for reader in self.readers:
            assert self._has_files(reader.key_id, reader.version), f"{reader} finds no files"

    def check_listed(self) -> None:
        """Check that every version that can be listed is complete."""
        for key_id in self.keys:
            for version in self._listed(key_id):
                assert self._has_files(key_id, version), f"{version} of {key_id} is listed without its files"

    def settle(self) -> None:
        """Collect until everything unreachable is gone."""
        for _ in range(3):  # a mark, the deletion, and a margin for attempts that were alive at first
            self.clock.advance(self.policy.grace_s + LEASE_S)
            self.collect()

    def check_nothing_unreachable(self) -> None:
        """Check that exactly the files of kept versions and the uploads of live keys are left."""
        expected = {
            layout.model_prefix(key_id, version) + name
            for key_id in self.keys
            for version in self._kept(key_id)
            for name in FILES
        }
        assert {info.name for info in self.store.list(layout.MODELS)} == expected
        for info in self.store.list(layout.UPLOADS):
            job_id = info.name.removeprefix("uploads/").removesuffix(".csv")
            assert self._is_live(self.registry.get_job(job_id).key_id), f"{info.name} outlived its key"

    def stored_bytes(self) -> int:
        return sum(info.size_bytes for info in self.store.list(layout.MODELS))

    def allowed_bytes(self) -> int:
        """Bytes of the versions that the policy keeps at most."""
        n_pinned = sum(
            version.pinned_at is not None
            for key_id in self.keys
            if self._is_live(key_id)
            for version in self.registry.list_versions(key_id)
        )
        n_live = sum(self._is_live(key_id) for key_id in self.keys)
        return VERSION_BYTES * (n_live * (1 + self.policy.versions_kept) + n_pinned)

    def versions(self, key_id: str) -> list[str]:
        return [version.version for version in self.registry.list_versions(key_id)]

    def _kept(self, key_id: str) -> set[str]:
        """Return the versions that must be left, computed from the registry's own list."""
        if not self._is_live(key_id):
            return set()
        current = self.registry.get_key(key_id).current_version
        listed = self.registry.list_versions(key_id)
        others = [v.version for v in listed if v.version != current and v.pinned_at is None]
        assert len(others) <= self.policy.versions_kept
        return {v.version for v in listed}

    def _listed(self, key_id: str) -> list[str]:
        return self.versions(key_id) if self._is_live(key_id) else []

    def _is_live(self, key_id: str) -> bool:
        try:
            return self.registry.get_key(key_id).revoked_at is None
        except KeyNotFound:
            return False

    def _has_files(self, key_id: str, version: str) -> bool:
        prefix = layout.model_prefix(key_id, version)
        try:
            return all(self.store.read(prefix + name) == content for name, content in FILES.items())
        except ObjectNotFound:
            return False
