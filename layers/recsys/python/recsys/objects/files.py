"""The object store as a directory: an object is a file, and its name the path below the root.

What is being written lies in `.tmp` and appears under its name in one step, so that a `kill -9` leaves nothing half
written in sight, and a power cut nothing that was promised and is gone.
"""

from __future__ import annotations

import contextlib
import io
import logging
import os
import shutil
import stat
import tempfile
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import BinaryIO, Final

from recsys.clock import Timestamp, from_datetime
from recsys.errors import InvalidRequest, ObjectExists, ObjectNotFound, Unavailable
from recsys.objects.names import RESERVED, checked_name, checked_prefix
from recsys.objects.store import ObjectInfo, UploadForm

logger = logging.getLogger("recsys.objects")

_STALE_AFTER_S: Final = 3600.0
_PLACE_ATTEMPTS: Final = 100
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


class FileObjectStore:
    """An `ObjectStore` in a directory.

    Parameters
    ----------
    root
        The directory; made when it is not there. It must be on a file system with hard links.
    base_url
        Where the server that takes `upload_form`'s form answers: it implements `POST {base_url}/local/uploads`.
    stale_after_s
        How old something in `.tmp` must be to count as left by a writer that was killed; 0 for who knows that nobody
        else writes.
    """

    def __init__(
        self, root: Path, *, base_url: str = "http://127.0.0.1:8000", stale_after_s: float = _STALE_AFTER_S
    ) -> None:
        self._root = root
        self._temporary = root / RESERVED
        self._base_url = base_url.rstrip("/")
        self._passed_over: set[str] = set()
        with _translating_errors("open", str(root)):
            self._temporary.mkdir(parents=True, exist_ok=True)
            self._remove_stale(stale_after_s)

    def create(self, name: str, body: bytes | BinaryIO) -> ObjectInfo:
        """See `ObjectStore.create`."""
        path = self._path(name)
        with _translating_errors("create", name), self._written(body, after_ns=0) as temporary:
            status = temporary.stat()
            try:
                self._place(path, lambda: os.link(temporary, path))
            except FileExistsError as error:
                raise ObjectExists(f"An object named {name!r} exists.") from error
        return _describe(name, status)

    def replace(self, name: str, body: bytes) -> ObjectInfo:
        """See `ObjectStore.replace`."""
        path = self._path(name)
        with _translating_errors("replace", name), self._written(body, after_ns=_modified_ns(path)) as temporary:
            status = temporary.stat()
            self._place(path, lambda: temporary.replace(path))
        return _describe(name, status)

    def read(self, name: str) -> bytes:
        """See `ObjectStore.read`."""
        with self.open(name) as file, _translating_errors("read", name):
            return file.read()

    def open(self, name: str) -> BinaryIO:
        """See `ObjectStore.open`."""
        path = self._path(name)
        with _translating_errors("open", name), _absent_without_file(name):
            return path.open("rb")

    def info(self, name: str) -> ObjectInfo:
        """See `ObjectStore.info`."""
        with _translating_errors("look up", name):
            return self._info(name)

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        """See `ObjectStore.list`; what lies below and may not be looked at is passed over, with a warning."""
        checked_prefix(prefix)
        folder = prefix.rpartition("/")[0]
        with _translating_errors("list", prefix):
            yield from self._walk(f"{folder}/" if folder else "", prefix)

    def delete(self, name: str) -> None:
        """See `ObjectStore.delete`; folders left empty go too, but for those right below the root."""
        path = self._path(name)
        with _translating_errors("delete", name):
            try:
                if not path.is_file():
                    return
                path.unlink()
                _sync_directory(path.parent)
            except (FileNotFoundError, NotADirectoryError):
                return
        self._remove_empty(path.parent)

    def upload_form(self, name: str, *, max_bytes: int, valid_s: int) -> UploadForm:  # noqa: ARG002 - the port's
        """See `ObjectStore.upload_form`; the local server holds the limits, so the form does not carry them."""
        return UploadForm(f"{self._base_url}/local/uploads", {"name": checked_name(name)})

    # -- writing

    @contextlib.contextmanager
    def _written(self, body: bytes | BinaryIO, *, after_ns: int) -> Iterator[Path]:
        """A durable temporary file that holds `body`, modified later than `after_ns`; removed at the end."""
        self._temporary.mkdir(parents=True, exist_ok=True)
        descriptor, name = tempfile.mkstemp(dir=self._temporary)
        temporary = Path(name)
        try:
            with os.fdopen(descriptor, "wb") as file:
                shutil.copyfileobj(io.BytesIO(body) if isinstance(body, bytes) else body, file, 1 << 20)
                file.flush()
                # The kernel's own time steps by milliseconds; two quick writes must still differ in their version.
                modified_ns = max(time.time_ns(), after_ns + 1)
                os.utime(temporary, ns=(modified_ns, modified_ns))
                os.fsync(file.fileno())
            yield temporary
        finally:
            temporary.unlink(missing_ok=True)

    def _place(self, path: Path, step: Callable[[], object]) -> None:
        """Take the one `step` that makes a written file appear as `path`, and make it last."""
        for attempt in range(1, _PLACE_ATTEMPTS + 1):
            self._make_directory(path.parent)
            try:
                step()
                break
            except FileNotFoundError:
                # A delete took the folder away, because it was empty, before the file was in it.
                if attempt == _PLACE_ATTEMPTS:
                    raise
        _sync_directory(path.parent)

    def _make_directory(self, directory: Path) -> None:
        if directory.is_dir():
            return
        self._make_directory(directory.parent)
        with contextlib.suppress(FileNotFoundError):  # taken away meanwhile: `_place` tries again
            directory.mkdir(exist_ok=True)
            _sync_directory(directory.parent)

    def _remove_empty(self, directory: Path) -> None:
        while directory.parent not in (self._root, directory):
            try:
                directory.rmdir()
            except OSError:  # it holds something, or is gone
                return
            directory = directory.parent

    def _remove_stale(self, after_s: float) -> None:
        """Remove what writers that were killed left behind."""
        oldest_s = time.time() - after_s
        for entry in self._temporary.iterdir():
            with contextlib.suppress(FileNotFoundError):
                if entry.stat().st_mtime < oldest_s:
                    entry.unlink()

    # -- reading

    def _path(self, name: str) -> Path:
        return self._root / checked_name(name)

    def _info(self, name: str) -> ObjectInfo:
        path = self._path(name)
        with _absent_without_file(name):
            status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            raise _not_found(name)
        return _describe(name, status)

    def _walk(self, folder: str, prefix: str) -> Iterator[ObjectInfo]:
        """Objects of `folder` (empty or with its slash) in name order, which is not the order of its entries."""
        try:
            with os.scandir(self._root / folder) as entries:
                names = {
                    f"{folder}{entry.name}/" if entry.is_dir(follow_symlinks=False) else f"{folder}{entry.name}"
                    for entry in entries
                }
        except (FileNotFoundError, NotADirectoryError):
            return
        for name in sorted(names):
            if name.endswith("/"):
                if name != f"{RESERVED}/" and (name.startswith(prefix) or prefix.startswith(name)):
                    with self._passing_over(name):
                        yield from self._walk(name, prefix)
            elif name.startswith(prefix):
                # A file that was taken away meanwhile, or whose name no object can have, is passed over.
                with self._passing_over(name), contextlib.suppress(ObjectNotFound, InvalidRequest):
                    yield self._info(name)

    @contextlib.contextmanager
    def _passing_over(self, name: str) -> Iterator[None]:
        """One folder that may not be opened keeps nobody from the others; it is named once."""
        try:
            yield
        except PermissionError as error:
            if name not in self._passed_over:
                logger.warning(
                    "%s is passed over: %s. Let the service's user read it.", self._root / name, error.strerror
                )
            self._passed_over.add(name)


def _describe(name: str, status: os.stat_result) -> ObjectInfo:
    """Time and size make the version, so a copy of the directory that keeps times keeps versions."""
    return ObjectInfo(
        name=name,
        size_bytes=status.st_size,
        version=f"{status.st_mtime_ns:x}-{status.st_size:x}",
        modified_at=_timestamp(status.st_mtime_ns),
        arrived_at=_timestamp(status.st_ctime_ns),  # set by the kernel: by cp, mv and link, also where they keep times
    )


def _timestamp(since_epoch_ns: int) -> Timestamp:
    return from_datetime(_EPOCH + timedelta(microseconds=since_epoch_ns // 1000))


def _modified_ns(path: Path) -> int:
    try:
        return path.stat().st_mtime_ns
    except OSError:
        return 0


def _sync_directory(directory: Path) -> None:
    """Make the names in `directory` survive a power cut."""
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _not_found(name: str) -> ObjectNotFound:
    return ObjectNotFound(f"There is no object named {name!r}.")


@contextlib.contextmanager
def _absent_without_file(name: str) -> Iterator[None]:
    try:
        yield
    except (FileNotFoundError, IsADirectoryError, NotADirectoryError) as error:
        raise _not_found(name) from error


@contextlib.contextmanager
def _translating_errors(verb: str, name: str) -> Iterator[None]:
    """Turn what the operating system raises within into `Unavailable`."""
    try:
        yield
    except OSError as error:
        raise Unavailable(
            f"The object directory could not {verb} {name!r}: {error.strerror or error}.",
            hint="Is the data directory there, writable, not full, and on a file system with hard links?",
        ) from error
