"""`recsys serve` under load: many connections, more models than the cache holds, trainings meanwhile, many keys.

python -m tests.benchmarks.load [--scenes connections models training keys] [--seconds 60]

The clients run in this process, the service in processes of its own, on the same machine, so that they share the cores.
Every response is checked for its status, and a tenth of them for the list that the model must give.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

from recsys.model.neumf import Dims
from recsys.model.recommender import ServingModel
from recsys.objects.files import FileObjectStore
from recsys.registry.sqlite import SqliteRegistry
from recsys.settings import MIB
from tests.benchmarks.load_clients import Case, Outcome, case_of, run_clients
from tests.benchmarks.serving_stage import new_shop, random_model
from tests.benchmarks.tables import Table
from tests.integration.live_service import LiveService, orders, running_service

DIMS: Final = Dims(n_users=1000, n_items=4000, gmf_dim=64, mlp_dim=32, hidden_dims=(64, 32, 16, 8))
"""A model of 4.5 MB."""
LARGE_DIMS: Final = Dims(n_users=20_000, n_items=20_000, gmf_dim=64, mlp_dim=32, hidden_dims=(32, 16, 8))
"""A model of 21 MB."""
TINY_DIMS: Final = Dims(n_users=20, n_items=20, gmf_dim=8, mlp_dim=4, hidden_dims=(8, 4))
N_LARGE: Final = 64
N_TINY: Final = 1000
CONNECTIONS: Final = 32
MAX_BASE_BYTES: Final = 150 * 10**6
MAX_CACHE_SHARE: Final = 1.3
COLUMNS: Final = {
    "scene": "s",
    "requests/s": ",.0f",
    "p50 ms": ",.1f",
    "p99 ms": ",.1f",
    "errors": "d",
    "wrong": "d",
    "peak MB": ",.0f",
    "allowed MB": ",.0f",
    "load average": ".1f",
}


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scenes", nargs="+", default=list(SCENES), choices=list(SCENES))
    parser.add_argument("--seconds", type=float, default=60.0, help="duration of each measurement")
    arguments = parser.parse_args()
    table = Table("Load on recsys serve", COLUMNS)
    for scene in arguments.scenes:
        with TemporaryDirectory() as folder:
            SCENES[scene](Path(folder), arguments.seconds, table)
    print(f"\n{table.text()}", flush=True)


def measure_connections(folder: Path, seconds: float, table: Table) -> None:
    """Send requests for one model from 256 connections."""
    model = random_model(DIMS)
    with running_service(folder / "data", folder / "log") as service:
        cases = _publish_shops(folder, [model])
        _add_row(table, "256 connections, one model", service, 512 * MIB, run_clients(service, cases, 256, seconds))


def measure_models(folder: Path, seconds: float, table: Table, *, n_keys: int = N_LARGE) -> None:
    """Send requests for many keys in random order, with a cache that holds the models of half of them."""
    models = [random_model(LARGE_DIMS, seed=seed) for seed in range(4)]
    with running_service(folder / "data", folder / "log") as service:
        cases = _publish_shops(folder, [models[number % len(models)] for number in range(n_keys)], n_users=20)
        size_bytes = sum(path.stat().st_size for path in (folder / "data" / "models").rglob("serving.npz"))
        service.end()
    cache_bytes = size_bytes // 2
    environment = {"RECSYS_MODEL_CACHE_BYTES": str(cache_bytes)}
    with running_service(folder / "data", folder / "log", environment=environment) as service:
        outcome = run_clients(service, cases, CONNECTIONS, seconds)
        name = f"{n_keys} keys, {size_bytes / 1e6:,.0f} MB of models, cache {cache_bytes / 1e6:,.0f} MB"
        _add_row(table, name, service, cache_bytes, outcome)


def measure_training(folder: Path, seconds: float, table: Table) -> None:
    """Send requests without a training, and while two files are trained, one after the other."""
    csv = orders(n_users=20_000, n_items=2_000, per_user=15)
    with running_service(folder / "data", folder / "log") as service:
        cases = _publish_shops(folder, [random_model(DIMS)])
        quiet = run_clients(service, cases, CONNECTIONS, seconds)
        _add_row(table, "32 connections, no training", service, 512 * MIB, quiet)
        jobs = [service.train(csv, wait_s=0).json() for _ in range(2)]
        busy = run_clients(service, cases, CONNECTIONS, seconds)
        states = [service.job(job["api_key"], job["job_id"])["status"] for job in jobs]
        _add_row(table, "32 connections, trainings", service, 512 * MIB, busy)
    ratio = busy.percentile_ms(99) / quiet.percentile_ms(99)
    table.notes.append(f"p99 with trainings ÷ without: {ratio:.2f}. The trainings at the end: {', '.join(states)}.")


def measure_keys(folder: Path, seconds: float, table: Table) -> None:
    """Start a service with 1,000 keys that have tiny models, and send requests for all of them."""
    models = [random_model(TINY_DIMS, seed=seed, n_seen=5) for seed in range(4)]
    with running_service(folder / "data", folder / "log") as service:
        cases = _publish_shops(folder, [models[number % len(models)] for number in range(N_TINY)], n_users=2)
        service.end()
    started_s = time.perf_counter()
    with running_service(folder / "data", folder / "log") as service:
        start_s = time.perf_counter() - started_s
        before_mb = service.server.memory_info().rss / 1e6
        outcome = run_clients(service, cases, CONNECTIONS, seconds)
        _add_row(table, f"{N_TINY:,} keys with tiny models", service, 512 * MIB, outcome)
    table.notes.append(f"With {N_TINY:,} keys the service was ready after {start_s:.1f} s, with {before_mb:.0f} MB.")


SCENES: Final[dict[str, Callable[[Path, float, Table], None]]] = {
    "connections": measure_connections,
    "models": measure_models,
    "training": measure_training,
    "keys": measure_keys,
}


def _publish_shops(folder: Path, models: list[ServingModel], *, n_users: int = 200) -> list[Case]:
    """Create a key for each model, and return the requests for `n_users` of each."""
    registry, store = SqliteRegistry(folder / "data" / "registry.sqlite3"), FileObjectStore(folder / "data")
    cases = []
    for number, model in enumerate(models):
        shop = new_shop(registry, store, folder / f"model-{number}", model)
        cases += [case_of(shop.api_key, model, user_id) for user_id in list(model.users)[:n_users]]
    registry.close()
    return cases


def _add_row(table: Table, scene: str, service: LiveService, cache_bytes: int, outcome: Outcome) -> None:
    table.rows.append(
        [
            scene,
            outcome.n_responses / outcome.seconds,
            outcome.percentile_ms(50),
            outcome.percentile_ms(99),
            len(outcome.errors),
            outcome.n_wrong,
            _peak_resident_mb(service),
            (MAX_CACHE_SHARE * cache_bytes + MAX_BASE_BYTES) / 1e6,
            os.getloadavg()[0],
        ]
    )
    table.notes.extend(f"{scene}: {error}" for error in outcome.errors[:3])
    print(f"{scene}: done", flush=True)


def _peak_resident_mb(service: LiveService) -> float:
    """Return the largest resident set that the server has had, as Linux records it."""
    status = Path(f"/proc/{service.server.pid}/status").read_text()
    return float(status.partition("VmHWM:")[2].split()[0]) * 1024 / 1e6


if __name__ == "__main__":
    main()
