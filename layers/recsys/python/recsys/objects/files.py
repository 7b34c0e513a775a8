"""The object store in a directory. Each object is a file, and the name of the object is the path below the root.

The content is written to a temporary file in `.tmp` and synced to the disk. Then the file appears under its final name
in one step. A killed process therefore leaves no partial object, and an object that was reported as written survives a
power cut.
"""

from __future__ import annotations

import contextlib
import errno
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

_logger: Final = logging.getLogger("recsys.objects")

_STALE_AFTER_S: Final = 3600.0  # not tuned: far longer than any single write
_COMMIT_ATTEMPTS: Final = 100  # not tuned: another retry is only needed after another delete at the same moment
_COPY_BUFFER_BYTES: Final = 1 << 20
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


class FileObjectStore:
    """An `ObjectStore` in a directory.

    Parameters
    ----------
    root
        The directory. A missing directory is created. The file system must support hard links.
    base_url
        Base URL of the local service, which accepts the forms of `upload_form` at `POST {base_url}/local/uploads`.
    stale_after_s
        Age in seconds from which a file in `.tmp` is deleted, because it counts as the leftover of a killed process.
        Pass 0 if no other process writes to the directory.

    Raises
    ------
    Unavailable
        The directory cannot be created or read.

    Examples
    --------
    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as folder:
    ...     store = FileObjectStore(Path(folder))
    ...     info = store.create("inbox/shop.csv", b"user_id,item_id")
    ...     store.read("inbox/shop.csv"), info.size_bytes
    (b'user_id,item_id', 15)
    """

    def __init__(
        self, root: Path, *, base_url: str = "http://127.0.0.1:8000", stale_after_s: float = _STALE_AFTER_S
    ) -> None:
        self._root = root
        self._temporary = root / RESERVED
        self._base_url = base_url.rstrip("/")
        self._skipped: set[str] = set()
        with _translating_errors("open", str(root)):
            self._temporary.mkdir(parents=True, exist_ok=True)
            self._remove_stale(stale_after_s)

    def create(self, name: str, body: bytes | BinaryIO) -> ObjectInfo:
        """Create an object atomically, with a hard link. The link fails if the name exists."""
        path = self._path(name)
        with _translating_errors("create", name), self._written(body, after_ns=0) as temporary:
            status = temporary.stat()
            try:
                self._commit(path, lambda: os.link(temporary, path))
            except FileExistsError as error:
                raise ObjectExists(f"An object named {name!r} exists.") from error
        return _describe(name, status)

    def replace(self, name: str, body: bytes) -> ObjectInfo:
        """Create or overwrite an object atomically, with a rename."""
        path = self._path(name)
        with _translating_errors("replace", name), self._written(body, after_ns=_modified_ns(path)) as temporary:
            status = temporary.stat()
            self._commit(path, lambda: temporary.replace(path))
        return _describe(name, status)

    def read(self, name: str) -> bytes:
        """Return the content of the file."""
        with self.open(name) as file, _translating_errors("read", name):
            return file.read()

    def open(self, name: str) -> BinaryIO:
        """Open the file for reading. A symbolic link counts as absent."""
        path = self._path(name)
        with _translating_errors("open", name), _absent_without_file(name):
            return open(path, "rb", opener=_open_without_links)

    def info(self, name: str) -> ObjectInfo:
        """Return the size, version and times of the file."""
        with _translating_errors("look up", name):
            return self._info(name)

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        """Iterate over the files whose name starts with `prefix`, in ascending order of the names.

        Symbolic links, and subfolders that cannot be read, are skipped with a warning. A file with an invalid object
        name is skipped without a warning.
        """
        checked_prefix(prefix)
        folder = prefix.rpartition("/")[0]
        with _translating_errors("list", prefix):
            yield from self._walk(f"{folder}/" if folder else "", prefix)

    def delete(self, name: str) -> None:
        """Delete the file and the folders that become empty. Folders directly below the root are kept."""
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

    def upload_form(self, name: str, *, max_bytes: int, valid_s: int) -> UploadForm:  # noqa: ARG002 - required by ObjectStore
        """Create an upload form. The form contains no limits, because the local service enforces them itself."""
        return UploadForm(f"{self._base_url}/local/uploads", {"name": checked_name(name)})

    # -- writing

    @contextlib.contextmanager
    def _written(self, body: bytes | BinaryIO, *, after_ns: int) -> Iterator[Path]:
        """Yield a synced temporary file that contains `body`, and delete it when the context ends.

        The modification time is later than `after_ns`, so that the new version differs from the version of the replaced
        file.
        """
        self._temporary.mkdir(parents=True, exist_ok=True)
        descriptor, name = tempfile.mkstemp(dir=self._temporary)
        temporary = Path(name)
        try:
            with os.fdopen(descriptor, "wb") as file:
                shutil.copyfileobj(io.BytesIO(body) if isinstance(body, bytes) else body, file, _COPY_BUFFER_BYTES)
                file.flush()
                # The kernel's clock ticks in milliseconds, but two writes within a tick must differ in their version.
                modified_ns = max(time.time_ns(), after_ns + 1)
                os.utime(temporary, ns=(modified_ns, modified_ns))
                os.fsync(file.fileno())
            yield temporary
        finally:
            temporary.unlink(missing_ok=True)

    def _commit(self, path: Path, publish: Callable[[], object]) -> None:
        """Create the folders of `path`, let `publish` create the file at `path`, and sync its folder to the disk."""
        for attempt in range(1, _COMMIT_ATTEMPTS + 1):
            self._make_directory(path.parent)
            try:
                publish()
                break
            except FileNotFoundError:
                # A concurrent delete removed the folder while it was still empty.
                if attempt == _COMMIT_ATTEMPTS:
                    raise
        _sync_directory(path.parent)

    def _make_directory(self, directory: Path) -> None:
        if directory.is_dir():
            return
        self._make_directory(directory.parent)
        with contextlib.suppress(FileNotFoundError):  # `_commit` retries if a concurrent delete removed the parent
            directory.mkdir(exist_ok=True)
            _sync_directory(directory.parent)

    def _remove_empty(self, directory: Path) -> None:
        while directory.parent not in (self._root, directory):
            try:
                directory.rmdir()
            except OSError:  # not empty, or already deleted
                return
            directory = directory.parent

    def _remove_stale(self, after_s: float) -> None:
        """Delete temporary files that killed processes left behind."""
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
            status = path.lstat()  # a link may point to a file outside the directory, which must not be read
        if not stat.S_ISREG(status.st_mode):
            raise _not_found(name)
        return _describe(name, status)

    def _walk(self, folder: str, prefix: str) -> Iterator[ObjectInfo]:
        """Iterate over the objects below `folder` whose names start with `prefix`.

        `folder` is empty or ends with a slash. Folders are sorted with their slash, so that the objects are in the
        order of their full names, such as `a-b` before `a/b`.
        """
        try:
            with os.scandir(self._root / folder) as entries:
                names = {
                    f"{folder}{entry.name}/" if entry.is_dir(follow_symlinks=False) else f"{folder}{entry.name}"
                    for entry in entries
                    if not self._is_link(entry)
                }
        except (FileNotFoundError, NotADirectoryError):
            return
        for name in sorted(names):
            if name.endswith("/"):
                if name != f"{RESERVED}/" and (name.startswith(prefix) or prefix.startswith(name)):
                    with self._skipping_unreadable(name):
                        yield from self._walk(name, prefix)
            elif name.startswith(prefix):
                # Skip a file that has been deleted in the meantime, or whose name is not a valid object name.
                with self._skipping_unreadable(name), contextlib.suppress(ObjectNotFound, InvalidRequest):
                    yield self._info(name)

    def _is_link(self, entry: os.DirEntry[str]) -> bool:
        """Return whether an entry is a symbolic link, and log one warning per link."""
        if not entry.is_symlink():
            return False
        if entry.path not in self._skipped:
            _logger.warning("Skipped %s: it is a symbolic link. Copy the file itself.", entry.path)
        self._skipped.add(entry.path)
        return True

    @contextlib.contextmanager
    def _skipping_unreadable(self, name: str) -> Iterator[None]:
        """Skip a file or folder without read permission, and log one warning per name."""
        try:
            yield
        except PermissionError as error:
            if name not in self._skipped:
                _logger.warning(
                    "Skipped %s: %s. Grant read permission to the user of the service.",
                    self._root / name,
                    error.strerror,
                )
            self._skipped.add(name)


def _describe(name: str, status: os.stat_result) -> ObjectInfo:
    """Return the description of an object from the status of its file.

    The version consists of the modification time and the size. A copy that preserves times therefore preserves
    versions.
    """
    return ObjectInfo(
        name=name,
        size_bytes=status.st_size,
        version=f"{status.st_mtime_ns:x}-{status.st_size:x}",
        modified_at=_timestamp(status.st_mtime_ns),
        arrived_at=_timestamp(status.st_ctime_ns),  # the kernel sets ctime, even if cp or mv preserves mtime
    )


def _timestamp(since_epoch_ns: int) -> Timestamp:
    return from_datetime(_EPOCH + timedelta(microseconds=since_epoch_ns // 1000))


def _modified_ns(path: Path) -> int:
    try:
        return path.stat().st_mtime_ns
    except OSError:
        return 0


def _sync_directory(directory: Path) -> None:
    """Sync the entries of `directory` to the disk, so that they survive a power cut."""
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


def _open_without_links(path: str, flags: int) -> int:
    try:
        return os.open(path, flags | os.O_NOFOLLOW)
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise FileNotFoundError(errno.ENOENT, "Symbolic links are not read", path) from error
        raise


@contextlib.contextmanager
def _translating_errors(verb: str, name: str) -> Iterator[None]:
    """Translate errors that the operating system raises in the context into `Unavailable`."""
    try:
        yield
    except OSError as error:
        raise Unavailable(
            f"Could not {verb} {name!r} in the object directory: {error.strerror or error}.",
            hint="Check that the data directory exists and is writable, has free space, and supports hard links.",
        ) from error
