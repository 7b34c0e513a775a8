"""Run the local service, with HTTP in this process, training in worker processes and all state in one directory."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from recsys.errors import Unavailable
from recsys.objects.layout import INBOX
from recsys.registry.sqlite import SqliteRegistry
from recsys.settings import InvalidSetting, Settings
from recsys_local.adapters import SIGN_IN_FILE, lock_data_dir, open_locked_store, open_registry
from recsys_local.app import answer_on_shutdown, create_app
from recsys_local.connections import ConnectionLimits, create_server, listen, serve, url_of
from recsys_local.console import SignInLinks
from recsys_local.malloc import return_large_blocks
from recsys_local.metrics.service_metrics import MetricsAddress, ServiceMetrics
from recsys_local.metrics.state_metrics import ServiceState
from recsys_local.queue_file import QueueFile
from recsys_local.readiness import WORKER_SILENT_AFTER_S, DataDirCheck, FreeSpaceCheck, WorkerCheck
from recsys_local.sample import SampleRun
from recsys_local.worker_process import WorkerPool


def run_service(
    host: str,
    port: int,
    data_dir: Path,
    *,
    workers: int | None = None,
    public_url: str = "",
    metrics_address: MetricsAddress = MetricsAddress(),  # noqa: B008  # it is immutable
    sample: bool,
) -> None:
    """Run the local service until the process receives SIGINT or SIGTERM.

    Parameters
    ----------
    host, port
        Address to listen on. Port 0 selects a free port. The address is printed.
    data_dir
        Data directory. It is created if it does not exist.
    workers
        Number of training workers. Default: the setting `workers`.
    public_url
        URL at which clients reach the service. Upload forms contain it. Default: the address that the service listens
        on.
    metrics_address
        Address at which the metrics are exposed.
    sample
        Whether to train on the bundled sample at the first start.

    Raises
    ------
    DataDirInUse, DataDirUnusable
        Another service uses the data directory, or the directory cannot be written.
    CannotListen
        The service cannot listen on the address.
    InvalidSetting
        An environment variable `RECSYS_*` has an invalid value, or selects the AWS backend.
    """
    settings = _local_settings(data_dir, workers)
    return_large_blocks()
    limits = ConnectionLimits.of_process()
    with _until_interrupted(), lock_data_dir(data_dir), listen(host, port, backlog=limits.backlog) as listener:
        base_url = url_of(listener)
        store = open_locked_store(data_dir, base_url=public_url or base_url)
        registry = open_registry(data_dir, audit_days=settings.audit_days)
        pool = _create_pool(data_dir, settings)
        check_space = FreeSpaceCheck(data_dir, settings.min_free_bytes)
        queue = QueueFile(data_dir)
        state = ServiceState(registry, queue, data_dir, pool.silent_s, lambda: len(server.server_state.connections))
        metrics = ServiceMetrics.of(state, metrics_address, is_behind_proxy=bool(public_url))
        app = create_app(
            registry,
            store,
            settings,
            readiness_checks=(DataDirCheck.of(data_dir), check_space, WorkerCheck(pool.silent_s)),
            check_space=check_space,
            find_position=queue.position_of,
            metrics=metrics,
            sign_in_links=SignInLinks(data_dir / SIGN_IN_FILE, base_url),
        )
        server = create_server(answer_on_shutdown(app), limits, trusted_proxies=settings.trusted_proxies)
        _print_addresses(base_url, data_dir)
        # The workers end before the checkpoint, so that registry.sqlite3 is then complete without its write-ahead log.
        with _checkpointing(registry), pool, metrics.listening():
            if sample:
                SampleRun(store, registry, settings, base_url).start()
            asyncio.run(serve(server, listener))


def _local_settings(data_dir: Path, workers: int | None) -> Settings:
    overrides: dict[str, Any] = {} if workers is None else {"workers": workers}
    settings = Settings.from_environment(data_dir=data_dir, **overrides)
    if settings.workers < 1:
        raise InvalidSetting(f"RECSYS_WORKERS must be 1 or greater. Received: {settings.workers}.")
    if settings.backend != "local":
        raise InvalidSetting(
            f"Expected RECSYS_BACKEND=local, because `recsys serve` keeps its state in a directory. Received: "
            f"{settings.backend}.",
            hint="Unset RECSYS_BACKEND. The value aws is for the Lambda functions, which `sam deploy` sets up.",
        )
    return settings


def _create_pool(data_dir: Path, settings: Settings) -> WorkerPool:
    hung_after_s = max(settings.lease_s, 2 * WORKER_SILENT_AFTER_S)
    return WorkerPool(data_dir, settings.workers, hung_after_s=hung_after_s)


def _print_addresses(base_url: str, data_dir: Path) -> None:
    print(
        f"recsys is running on {base_url} (docs at {base_url}/docs) and keeps its state in {data_dir}/. "
        "Press Ctrl-C to stop it.",
        flush=True,
    )
    print(f"Open {base_url}/console in a browser to train and to try recommendations.")
    print(f"Copy a CSV into {data_dir / INBOX}/ to train on it.", flush=True)


@contextlib.contextmanager
def _checkpointing(registry: SqliteRegistry) -> Iterator[None]:
    """Write the write-ahead log of the registry into its database file (a checkpoint) when the context ends."""
    try:
        yield
    finally:
        with contextlib.suppress(Unavailable):  # the data directory was deleted, or the disk is full
            registry.checkpoint()


@contextlib.contextmanager
def _until_interrupted() -> Iterator[None]:
    """Make SIGTERM act like Ctrl-C within the context. Either of them ends the context without a traceback."""
    previous = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        with contextlib.suppress(KeyboardInterrupt):
            yield
    finally:
        signal.signal(signal.SIGTERM, previous)
