"""Looks at this machine as the service would, and says what is wrong and how to fix it."""

from __future__ import annotations

import importlib
import os
import shutil
import socket
import sys
import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import Any

from recsys.errors import RecsysError
from recsys.settings import Settings

NEEDED_PACKAGES = {
    "fastapi": "fastapi",
    "uvicorn": "uvicorn",
    "numpy": "numpy",
    "pandas": "pandas",
    "pyarrow": "pyarrow",
    "recsys_train.model.quiet_tf": "tensorflow-cpu",
}
"""What is imported, and the distribution that brings it."""
NEEDED_DISK_BYTES = 2 * 1024**3
NEEDED_MEMORY_BYTES = 2 * 1024**3


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at."""

    what: str
    ok: bool
    fix: str = ""

    def to_json(self) -> dict[str, Any]:
        """As a JSON object."""
        return asdict(self)


def examine(data_dir: Path, port: int) -> list[Finding]:
    """Look at everything; the order is that in which to fix it."""
    looks: list[Callable[[], Finding]] = [
        _python,
        *(partial(_package, *package) for package in NEEDED_PACKAGES.items()),
        _settings,
        _memory,
        lambda: _disk(data_dir),
        lambda: _writable(data_dir),
        lambda: _registry(data_dir),
        lambda: _port(port),
    ]
    return [look() for look in looks]


def _python() -> Finding:
    version = ".".join(map(str, sys.version_info[:3]))
    return Finding(
        f"Python {version}", sys.version_info >= (3, 11), "Install Python 3.11 or newer and run `make setup`."
    )


def _package(name: str, distribution: str) -> Finding:
    try:
        importlib.import_module(name)
    except ImportError as error:
        return Finding(f"{distribution}: {error}", ok=False, fix="Run `make setup`.")
    return Finding(f"{distribution} {metadata.version(distribution)}", ok=True)


def _settings() -> Finding:
    try:
        Settings.from_environment()
    except RecsysError as error:
        return Finding(error.detail, ok=False, fix="Correct or unset this environment variable.")
    return Finding("settings", ok=True)


def _memory() -> Finding:
    free_bytes = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    total_bytes = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    what = f"memory: {total_bytes / 1024**3:.1f} GiB, {free_bytes / 1024**3:.1f} GiB unused"
    return Finding(
        what, total_bytes >= NEEDED_MEMORY_BYTES, "Training wants 2 GiB; close other programs or train elsewhere."
    )


def _disk(data_dir: Path) -> Finding:
    existing = next(folder for folder in (data_dir.absolute(), *data_dir.absolute().parents) if folder.exists())
    free_bytes = shutil.disk_usage(existing).free
    what = f"disk: {free_bytes / 1024**3:.1f} GiB free for {data_dir}"
    return Finding(what, free_bytes >= NEEDED_DISK_BYTES, "Free 2 GiB or give another --data-dir.")


def _writable(data_dir: Path) -> Finding:
    existing = next(folder for folder in (data_dir.absolute(), *data_dir.absolute().parents) if folder.exists())
    try:
        with tempfile.TemporaryFile(dir=existing):
            pass
    except OSError as error:
        return Finding(f"{existing} cannot be written: {error.strerror}", ok=False, fix="Give a --data-dir you own.")
    return Finding(f"{data_dir} can be written", ok=True)


def _registry(data_dir: Path) -> Finding:
    if not (data_dir / "registry.sqlite3").exists():
        return Finding(f"{data_dir} holds no registry yet; `recsys serve` makes one", ok=True)
    from recsys_local.adapters import open_registry  # noqa: PLC0415  # only where there is one to open

    try:
        open_registry(data_dir).list_versions("doctor")
    except RecsysError as error:
        return Finding(error.detail, ok=False, fix=error.hint or "Restore registry.sqlite3 from a backup.")
    return Finding("registry answers", ok=True)


def _port(port: int) -> Finding:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return Finding(
                f"port {port} is taken",
                ok=False,
                fix="Stop what listens there (perhaps recsys itself) or give --port.",
            )
    return Finding(f"port {port} is free", ok=True)
