"""Contract of the object store, on every adapter."""

from __future__ import annotations

import hashlib
import io
from functools import partial

import httpx
import pytest

from recsys.errors import InvalidRequest, ObjectExists, ObjectNotFound
from recsys.objects.files import FileObjectStore
from recsys.objects.store import ObjectInfo, ObjectStore
from tests.racing import race

UNUSUAL_NAMES = [
    "inbox/two words.csv",
    "inbox/ümläut-日本語-🛒.csv",
    "inbox/plus+and%20percent&amp=.csv",
    "inbox/'quotes\"<tag>#?.csv",
    "inbox/.hidden.csv",
    "one-part",
    f"inbox/{'n' * 255}",
]


class GeneratedStream(io.RawIOBase):
    """A stream of `size_bytes` bytes that repeats `BLOCK` and is generated while it is read."""

    BLOCK = hashlib.sha512(b"recsys").digest() * 1024  # 64 KiB

    def __init__(self, size_bytes: int) -> None:
        self._size_bytes = size_bytes
        self._position = 0
        self.largest_read = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET, /) -> int:
        self._position = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._size_bytes}[whence]
        return self._position

    def read(self, size: int | None = -1, /) -> bytes:
        remaining = self._size_bytes - self._position
        size = remaining if size is None or size < 0 else min(size, remaining)
        self.largest_read = max(self.largest_read, size)
        offset = self._position % len(self.BLOCK)
        chunk = (self.BLOCK * (1 + (offset + size) // len(self.BLOCK)))[offset : offset + size]
        self._position += size
        return chunk


def test_a_created_object_can_be_read_opened_and_described(store: ObjectStore) -> None:
    created = store.create("models/k/v/model.h5", b"\x00\xffweights")

    assert store.read("models/k/v/model.h5") == b"\x00\xffweights"
    with store.open("models/k/v/model.h5") as stream:
        assert stream.read(3) == b"\x00\xffw"
        assert stream.read() == b"eights"
    assert created.name == "models/k/v/model.h5"
    assert created.size_bytes == 9
    assert store.info("models/k/v/model.h5") == created
    assert list(store.list("")) == [created]


def test_an_empty_object_is_an_object(store: ObjectStore) -> None:
    assert store.create("inbox/empty.csv", b"").size_bytes == 0
    assert store.read("inbox/empty.csv") == b""


def test_a_stream_is_read_from_its_current_position(store: ObjectStore) -> None:
    stream = io.BytesIO(b"header|rest")
    stream.seek(7)
    store.create("uploads/rest", stream)
    assert store.read("uploads/rest") == b"rest"


def test_an_opened_object_can_be_read_by_line(store: ObjectStore) -> None:
    store.create("uploads/lines.csv", b"user_id,item_id\nu1,i1\n")
    with store.open("uploads/lines.csv") as stream:
        assert stream.readline() == b"user_id,item_id\n"
        assert list(stream) == [b"u1,i1\n"]


def test_create_does_not_change_an_existing_object(store: ObjectStore) -> None:
    first = store.create("models/k/v/manifest.json", b"first")
    with pytest.raises(ObjectExists, match="manifest"):
        store.create("models/k/v/manifest.json", b"second")
    assert store.read("models/k/v/manifest.json") == b"first"
    assert store.info("models/k/v/manifest.json") == first


def test_an_interrupted_create_leaves_no_object(store: ObjectStore) -> None:
    class Breaks(GeneratedStream):
        def read(self, size: int | None = -1, /) -> bytes:
            if self.tell() > 100_000:
                raise ConnectionError("the client disconnected")
            return super().read(min(size or 50_000, 50_000) if size != -1 else 50_000)

    with pytest.raises(Exception, match=r"client disconnected|ConnectionError|Connection was closed|did not respond"):
        store.create("uploads/broken.csv", Breaks(300_000))  # type: ignore[arg-type]  # a raw stream with `read`
    assert list(store.list("")) == []
    with pytest.raises(ObjectNotFound):
        store.info("uploads/broken.csv")


def test_a_deleted_name_can_be_created_again(store: ObjectStore) -> None:
    first = store.create("inbox/k/drop.csv", b"one")
    store.delete("inbox/k/drop.csv")
    second = store.create("inbox/k/drop.csv", b"two")
    assert store.read("inbox/k/drop.csv") == b"two"
    assert first.version != second.version


def test_replace_creates_or_overwrites_an_object(store: ObjectStore) -> None:
    assert store.replace("receipts/a.json", b"{}").size_bytes == 2
    replaced = store.replace("receipts/a.json", b'{"state": "queued"}')
    assert replaced.size_bytes == 19
    assert store.read("receipts/a.json") == b'{"state": "queued"}'
    assert store.info("receipts/a.json") == replaced
    assert [info.name for info in store.list("")] == ["receipts/a.json"]


def test_the_version_changes_with_every_write_and_only_then(store: ObjectStore) -> None:
    versions = []
    for number in range(5):
        # Equal sizes in quick succession, so that neither the size nor a coarse time distinguishes the writes.
        versions.append(store.replace("inbox/k/a.csv", b"%d" % number).version)
        assert store.info("inbox/k/a.csv").version == versions[-1]
    assert len(set(versions)) == 5
    assert [info.version for info in store.list("inbox/k/a.csv")] == versions[-1:]


@pytest.mark.parametrize("name", ["no", "inbox/no.csv", "inbox/k/no.csv", "inbox/a.csv/no"])
def test_a_missing_object_is_not_found(store: ObjectStore, name: str) -> None:
    store.create("inbox/a.csv", b"there")
    with pytest.raises(ObjectNotFound, match="no"):
        store.read(name)
    with pytest.raises(ObjectNotFound, match="no"):
        store.open(name)
    with pytest.raises(ObjectNotFound, match="no"):
        store.info(name)


def test_a_folder_is_not_an_object(store: ObjectStore) -> None:
    store.create("models/k/v/model.h5", b"x")
    with pytest.raises(ObjectNotFound):
        store.read("models/k")
    with pytest.raises(ObjectNotFound):
        store.info("models/k")
    store.delete("models/k")
    assert store.read("models/k/v/model.h5") == b"x"


def test_list_filters_by_prefix_and_sorts_by_name(store: ObjectStore) -> None:
    # "-" sorts before "/" and "0" after it, so that folders sort differently from full names.
    names = ["a", "b-c", "b/1", "b/c/2", "b/c0", "b/d", "b0", "ba/1", "é"]
    for name in [*names[::2], *names[1::2]]:
        store.create(name, name.encode())

    def listed(prefix: str) -> list[str]:
        return [info.name for info in store.list(prefix)]

    assert listed("") == names
    assert listed("b") == ["b-c", "b/1", "b/c/2", "b/c0", "b/d", "b0", "ba/1"]
    assert listed("b/") == ["b/1", "b/c/2", "b/c0", "b/d"]
    assert listed("b/c") == ["b/c/2", "b/c0"]
    assert listed("b/c/") == ["b/c/2"]
    assert listed("b/d") == ["b/d"]
    assert listed("b/d/") == []
    assert listed("nothing/here/") == []
    assert [info.size_bytes for info in store.list("b/c")] == [5, 4]


def test_deleting_a_missing_object_has_no_effect(store: ObjectStore) -> None:
    store.create("models/k/v/a", b"a")
    store.create("models/k/v/b", b"b")
    store.delete("models/k/v/a")
    store.delete("models/k/v/a")
    store.delete("models/never/was")
    assert [info.name for info in store.list("")] == ["models/k/v/b"]
    with pytest.raises(ObjectNotFound):
        store.read("models/k/v/a")


@pytest.mark.parametrize("name", UNUSUAL_NAMES)
def test_unusual_names_are_preserved(store: ObjectStore, name: str) -> None:
    created = store.create(name, b"x")
    assert created.name == name
    assert store.read(name) == b"x"
    assert list(store.list("")) == [created]
    store.delete(name)
    assert list(store.list("")) == []


@pytest.mark.parametrize(
    "name",
    [
        *["", "/", "/etc/passwd", "..", "../x", "a/../../x", "a/..", "./x", "a//b", "a/", ".tmp/x"],
        *["a\\b", "a\0b", "a\nb", "\ud800", "n" * 256, "n/" * 512 + "n"],
    ],
)
def test_invalid_names_are_rejected(store: ObjectStore, name: str) -> None:
    with pytest.raises(InvalidRequest, match="object name"):
        store.create(name, b"x")
    with pytest.raises(InvalidRequest, match="object name"):
        store.replace(name, b"x")
    with pytest.raises(InvalidRequest, match="object name"):
        store.read(name)
    with pytest.raises(InvalidRequest, match="object name"):
        store.info(name)
    with pytest.raises(InvalidRequest, match="object name"):
        store.delete(name)
    with pytest.raises(InvalidRequest, match="object name"):
        store.upload_form(name, max_bytes=1, valid_s=1)


def test_prefixes_outside_the_root_are_rejected(store: ObjectStore) -> None:
    with pytest.raises(InvalidRequest, match="object name"):
        list(store.list("../"))


def test_a_large_stream_is_not_read_into_memory(store: ObjectStore) -> None:
    size_bytes = 20 * 1024 * 1024 + 17
    body = GeneratedStream(size_bytes)
    expected = hashlib.sha256(GeneratedStream.BLOCK * 320 + GeneratedStream.BLOCK[:17]).hexdigest()

    created = store.create("uploads/large.csv", body)  # type: ignore[arg-type]  # a raw stream with `read`

    assert created.size_bytes == size_bytes
    assert 0 < body.largest_read <= 4 * 1024 * 1024
    digest = hashlib.sha256()
    with store.open("uploads/large.csv") as stream:
        while chunk := stream.read(1 << 20):
            digest.update(chunk)
    assert digest.hexdigest() == expected


def test_one_of_many_concurrent_creates_wins(atomic_store: ObjectStore) -> None:
    for number in range(15):
        name = f"models/{number}/manifest.json"
        outcomes = race(*(partial(atomic_store.create, name, b"%d" % writer) for writer in range(8)))
        winners = [writer for writer, outcome in enumerate(outcomes) if isinstance(outcome, ObjectInfo)]
        losers = [outcome for outcome in outcomes if isinstance(outcome, ObjectExists)]
        assert (len(winners), len(losers)) == (1, 7)
        assert atomic_store.read(name) == b"%d" % winners[0]


def test_a_create_during_the_deletion_of_its_folder_succeeds(atomic_store: ObjectStore) -> None:
    for number in range(15):
        atomic_store.create("models/k/old", b"old")
        outcomes = race(
            lambda: atomic_store.delete("models/k/old"),
            partial(atomic_store.create, f"models/k/{number}/new", b"new"),
        )
        assert outcomes[0] is None
        assert isinstance(outcomes[1], ObjectInfo)
        assert [info.name for info in atomic_store.list("")] == [f"models/k/{number}/new"]
        atomic_store.delete(f"models/k/{number}/new")


def test_readers_see_the_complete_previous_or_new_object(atomic_store: ObjectStore) -> None:
    old, new = b"o" * 300_000, b"n" * 200_000
    for _ in range(10):
        atomic_store.replace("receipts/a.json", old)
        _, *read = race(
            lambda: atomic_store.replace("receipts/a.json", new), *[lambda: atomic_store.read("receipts/a.json")] * 4
        )
        assert set(read) <= {old, new}


def test_an_upload_form_creates_the_object(store: ObjectStore) -> None:
    form = store.upload_form("uploads/job+1 ü.csv", max_bytes=10, valid_s=60)
    if isinstance(store, FileObjectStore):  # tests of the local service send the form
        assert form.url == "http://127.0.0.1:8000/local/uploads"
        assert form.fields == {"name": "uploads/job+1 ü.csv"}
        return
    reply = httpx.post(form.url, data=form.fields, files={"file": ("any.csv", b"0123456789")})
    assert reply.status_code in (200, 201, 204)
    assert store.read("uploads/job+1 ü.csv") == b"0123456789"
