"""Check whether this machine can run the local service, and suggest a fix for each check that fails."""

from __future__ import annotations

import importlib
import os
import shutil
import socket
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import Any, Final

from recsys.errors import RecsysError
from recsys.objects import layout
from recsys.settings import Settings
from recsys_local.adapters import REGISTRY_FILE, is_open_to_others, open_registry
from recsys_local.offline import check_writable, nearest_existing

REQUIRED_PACKAGES: Final = {
    "fastapi": "fastapi",
    "uvicorn": "uvicorn",
    "numpy": "numpy",
    "pandas": "pandas",
    "pyarrow": "pyarrow",
    "recsys_train.model.quiet_tf": "tensorflow-cpu",
}
"""Modules that the service imports, each with the name of the distribution that provides the module."""
REQUIRED_DISK_BYTES: Final = 2 * 1024**3
"""Free disk space for a few models and uploads, in bytes. Not tuned."""
REQUIRED_MEMORY_BYTES: Final = 2 * 1024**3
"""Required memory of the machine, in bytes. Training on the bundled sample uses about half of it."""


@dataclass(frozen=True, slots=True)
class Finding:
    """The result of one check. `what` describes the result. If `ok` is False, `fix` suggests a fix."""

    what: str
    ok: bool
    fix: str = ""

    def to_json(self) -> dict[str, Any]:
        """Return the finding as a JSON object."""
        return asdict(self)


def examine(data_dir: Path, port: int) -> list[Finding]:
    """Run every check of this machine.

    Parameters
    ----------
    data_dir
        Data directory that the service would use.
    port
        Port on which the service would listen.

    Returns
    -------
    list of Finding
        One finding per check, in the order in which failed checks should be fixed.
    """
    checks: list[Callable[[], Finding]] = [
        _check_python,
        *(partial(_check_package, *package) for package in REQUIRED_PACKAGES.items()),
        _check_settings,
        _check_memory,
        partial(_check_disk, data_dir),
        partial(_check_writable, data_dir),
        partial(_check_permissions, data_dir),
        partial(_check_registry, data_dir),
        partial(_check_port, port),
    ]
    return [check() for check in checks]


def _check_python() -> Finding:
    version = ".".join(map(str, sys.version_info[:3]))
    return Finding(
        f"Python {version}", sys.version_info >= (3, 11), "Install Python 3.11 or newer and run `make setup`."
    )


def _check_package(name: str, distribution: str) -> Finding:
    try:
        importlib.import_module(name)
    except ImportError as error:
        return Finding(f"{distribution}: {error}", ok=False, fix="Run `make setup`.")
    return Finding(f"{distribution} {metadata.version(distribution)}", ok=True)


def _check_settings() -> Finding:
    try:
        Settings.from_environment()
    except RecsysError as error:
        return Finding(error.detail, ok=False, fix="Correct or unset this environment variable.")
    return Finding("settings", ok=True)


def _check_memory() -> Finding:
    free_bytes = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    total_bytes = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    what = f"memory: {total_bytes / 1024**3:.1f} GiB, {free_bytes / 1024**3:.1f} GiB unused"
    return Finding(
        what,
        total_bytes >= REQUIRED_MEMORY_BYTES,
        "Training needs 2 GiB of memory. Train on a machine with more memory.",
    )


def _check_disk(data_dir: Path) -> Finding:
    free_bytes = shutil.disk_usage(nearest_existing(data_dir)).free
    what = f"disk: {free_bytes / 1024**3:.1f} GiB free for {data_dir}"
    return Finding(what, free_bytes >= REQUIRED_DISK_BYTES, "Free 2 GiB or pass another --data-dir.")


def _check_writable(data_dir: Path) -> Finding:
    try:
        check_writable(data_dir)
    except RecsysError as error:
        return Finding(error.detail, ok=False, fix="Pass a --data-dir that you may write to.")
    return Finding(f"{data_dir} can be written", ok=True)


def _check_permissions(data_dir: Path) -> Finding:
    if data_dir.exists() and is_open_to_others(data_dir):
        return Finding(f"every user of this machine can read {data_dir}", ok=False, fix=f"Run: chmod 700 {data_dir}")
    return Finding(f"{data_dir} is closed to other users", ok=True)


def _check_registry(data_dir: Path) -> Finding:
    if not (data_dir / REGISTRY_FILE).exists() and not (data_dir / layout.MODELS).exists():
        return Finding(f"{data_dir} contains no registry yet; `recsys serve` creates it", ok=True)
    try:
        open_registry(data_dir).list_versions("doctor")
    except RecsysError as error:
        return Finding(error.detail, ok=False, fix=error.hint or f"Restore {REGISTRY_FILE} from a backup.")
    return Finding("the registry can be read", ok=True)


def _check_port(port: int) -> Finding:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return Finding(
                f"port {port} is in use",
                ok=False,
                fix="Stop the program that listens on it (it may be recsys itself), or pass another --port.",
            )
    return Finding(f"port {port} is free", ok=True)
