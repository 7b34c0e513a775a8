"""Serving over HTTP: cold start, warm requests, cached responses, load, and sessions. `make bench-serve`.

python -m tests.benchmarks.serving_http [--parts cold warm cache load sessions] [--model DIR] [--seconds 60]
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import importlib.util
import json
import os
import re
import statistics
import subprocess
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from types import ModuleType
from typing import Any, Final

import numpy as np
import psutil

from recsys.model.artifact import read_folder
from recsys.model.neumf import Dims
from recsys.model.recommender import ServingModel
from recsys.objects.files import FileObjectStore
from recsys.objects.s3 import S3ObjectStore
from recsys.registry.dynamodb import DynamoTable
from recsys.registry.registry import Registry
from recsys.registry.sqlite import SqliteRegistry
from recsys.settings import Settings
from recsys_local.offline import train_folder
from tests.benchmarks.serving_load import CONNECTIONS, REVOKED_WITHIN_S, run_load
from tests.benchmarks.serving_models import DEEP, SAMPLE, resized, trained
from tests.benchmarks.serving_sessions import newcomers_ndcg, overlap, split_newcomers
from tests.benchmarks.serving_stage import BARE_HANDLER, Runtime, new_shop, packaged_runtime
from tests.benchmarks.tables import Table
from tests.emulators import running_ministack
from tests.integration.lambda_flow import http_event
from tests.unit.lambda_events import Context, unconfigured_logging

PARTS: Final = ("cold", "warm", "cache", "load", "sessions")
WARM_ITEMS: Final = 4000
CACHE_ITEMS: Final = (WARM_ITEMS, 250_000)
"""Catalogue sizes of the part cache; at the larger one, a search takes most of a request."""
LOADED: Final = Dims(n_users=1000, n_items=4000, gmf_dim=64, mlp_dim=32, hidden_dims=(64, 32, 16, 8))
N: Final = 20
WARM_BLOCK: Final = 500
"""Requests to one handler before the other has its turn."""
_IMPORT_GROUPS: Final = ("recsys_recommend", "recsys", "numpy", "aws_lambda_powertools", "cachetools")
_IMPORT_LINE: Final = re.compile(r"import time:\s+(\d+) \|\s+\d+ \|\s+(\S+)")

Handler = Callable[[Mapping[str, Any], Any], Mapping[str, Any]]


def main() -> None:
    """Print one table per part."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--model", type=Path, help="sessions: folder of a trained model (default: train one)")
    parser.add_argument(
        "--newcomers", type=Path, help="sessions: CSV of users who are not in the training data of --model"
    )
    parser.add_argument("--seconds", type=float, default=60.0, help="load: duration")
    parser.add_argument("--runs", type=int, default=15, help="cold: starts per handler")
    parser.add_argument("--requests", type=int, default=20_000, help="warm: requests per handler")
    arguments = parser.parse_args()
    for part in arguments.parts:
        with TemporaryDirectory() as folder:
            table = globals()[f"measure_{part}"](Path(folder), arguments)
        print(f"\n{table.text()}", flush=True)


# -- a cold start: from the start of the process to the first recommendation


def measure_cold(folder: Path, arguments: argparse.Namespace) -> Table:
    """Compare with a function of FastAPI and Mangum alone. Starts alternate, in Lambda's runtime client."""
    runtime = packaged_runtime(folder)
    with running_ministack(folder) as emulator:
        bucket, table = emulator.new_bucket(versioned=True), emulator.new_table()
        registry, store = Registry(DynamoTable(emulator.dynamodb, table)), S3ObjectStore(emulator.s3, bucket)
        model, _ = trained("shipped")
        shop = new_shop(registry, store, folder / "model", model)
        environment = emulator.environment | {
            "RECSYS_BUCKET": bucket,
            "RECSYS_TABLE": table,
            "OPENBLAS_NUM_THREADS": "1",
            "POWERTOOLS_SERVICE_NAME": "recommend",
            "POWERTOOLS_METRICS_NAMESPACE": "recsys",
            "LOG_LEVEL": "INFO",
        }
        event = _event(shop.api_key, model.users[0])
        handlers = {"bare": "bare_handler.handle", "ours": "recsys_recommend.handler.handle"}
        starts: dict[str, list[tuple[float, float, float]]] = defaultdict(list)
        for turn in range(arguments.runs + 1):
            for name, handler in handlers.items():
                log = folder / f"{name}-{turn}.log"
                with runtime.start(handler, environment, log) as function:
                    assert function.invoke(event)["statusCode"] == 200
                    whole_s = time.perf_counter() - function.started_s
                    if turn:  # the first start reads the files from the disk
                        starts[name].append((whole_s, function.init_s, _load_ms(log) / 1000))
    return _cold_table(runtime, environment, starts)


def _cold_table(
    runtime: Runtime, environment: Mapping[str, str], starts: Mapping[str, list[tuple[float, float, float]]]
) -> Table:
    bare, ours = ([1000 * statistics.median(part) for part in zip(*starts[name], strict=True)] for name in starts)
    table = Table("Cold start, ms", {"": "s", "bare FastAPI + Mangum": ".0f", "ours": ".0f", "ratio": ".2f"})
    whole = [time_s for time_s, _, _ in starts["ours"]]
    table.rows = [
        ["process start → first recommendation, median", bare[0], ours[0], ours[0] / bare[0]],
        ["  start, imports, clients", bare[1], ours[1], ours[1] / bare[1]],
        *([f"    of it {what}", None, part_ms, None] for what, part_ms in _own_imports_ms(runtime, environment)),
        ["  first request", bare[0] - bare[1], ours[0] - ours[1], None],
        ["    of it loading the model", None, ours[2], None],
    ]
    table.notes = [
        f"{len(whole)} starts per handler, alternating; {runtime.description}; S3 and DynamoDB are MiniStack's.",
        f"ours: {1000 * min(whole):.0f} to {1000 * max(whole):.0f} ms. Target: a ratio of at most 1.45.",
        "Imports are those of modules that the bare function does not load, by -X importtime, which slows them down.",
    ]
    return table


def _own_imports_ms(runtime: Runtime, environment: Mapping[str, str]) -> list[tuple[str, float]]:
    """Return milliseconds of imports that the bare function does not make, by package."""
    bare, ours = (_imports_us(runtime, module, environment) for module in ("bare_handler", "recsys_recommend.handler"))
    by_package: dict[str, float] = dict.fromkeys((*_IMPORT_GROUPS, "others"), 0.0)
    for module, spent_us in ours.items():
        if module not in bare:
            package = module.partition(".")[0]
            by_package[package if package in by_package else "others"] += spent_us / 1000
    return [(f"imports of {package}", spent_ms) for package, spent_ms in by_package.items()]


def _imports_us(runtime: Runtime, module: str, environment: Mapping[str, str]) -> dict[str, int]:
    done = subprocess.run(
        [*runtime.python, "-X", "importtime", "-c", f"import {module}"],
        env={**os.environ, **environment, "PYTHONPATH": runtime.path, "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        check=True,
    )
    return {name: int(spent_us) for spent_us, name in _IMPORT_LINE.findall(done.stderr)}


def _load_ms(log: Path) -> float:
    found = re.search(r'"load_ms":\s*([\d.]+)', log.read_text())
    return float(found[1]) if found else 0.0


# -- warm requests: the whole handler, in this process


def measure_warm(folder: Path, arguments: argparse.Namespace) -> Table:
    """Compare with a bare handler in alternating blocks of requests, each for another user."""
    deep, _ = trained("deep", **DEEP)
    model = resized(deep, WARM_ITEMS, WARM_ITEMS)
    # Without the response cache, which is measured by itself, so that every response is computed.
    with _handlers(folder, model, response_cache_bytes=0) as (handlers, api_key):
        events = [_event(api_key, user_id) for user_id in list(model.users)[:3000]]
        for handler in handlers.values():
            _block_ms(handler, events[:1000])
        rss_before, spent = psutil.Process().memory_info().rss, defaultdict[str, list[float]](list)
        for begin in range(0, arguments.requests, WARM_BLOCK):
            block = [events[index % len(events)] for index in range(begin, begin + WARM_BLOCK)]
            for name, handler in handlers.items():
                spent[name] += _block_ms(handler, block)
        gc.collect()
        grown_mib = (psutil.Process().memory_info().rss - rss_before) / 2**20
    columns = {"": "s", "p50": ".2f", "p99": ".2f", "p99 / p50": ".2f"}
    table = Table(f"Warm request through the Lambda handler, {len(model.items):,} items, top {N}, ms", columns)
    for name, each in spent.items():
        p50, p99 = np.percentile(each, [50, 99])
        table.rows.append([name, p50, p99, p99 / p50])
    added_ms = table.rows[1][1] - table.rows[0][1]  # type: ignore[operator]  # these cells are numbers
    table.notes = [
        f"{arguments.requests:,} requests per handler. p50 above the bare one: {added_ms:.2f} ms (target: at most 2).",
        f"Memory growth: {grown_mib:+.1f} MiB, of which the timings take {arguments.requests / 2**14:.1f}.",
    ]
    return table


def measure_cache(folder: Path, arguments: argparse.Namespace) -> Table:
    """Compare a request whose response is computed with a repeated one, whose response is cached."""
    table = Table(
        "Response cache, p50 in ms per request",
        {"": "s", "computed": ".3f", "cached": ".3f", "computed / cached": ".2f"},
    )
    deep, _ = trained("deep", **DEEP)
    for n_items in CACHE_ITEMS:
        model = resized(deep, n_items, 1000)
        p50 = []
        for cache_bytes in (0, 16 * 2**20):
            with _handlers(folder / f"{n_items} {cache_bytes}", model, response_cache_bytes=cache_bytes) as (
                handlers,
                api_key,
            ):
                events = [_event(api_key, user_id) for user_id in list(model.users)[:100]]
                _block_ms(handlers["ours"], events)
                p50.append(statistics.median(_block_ms(handlers["ours"], events)))
        table.rows.append([f"{n_items:,} items", *p50, p50[0] / p50[1]])
    return table


@contextlib.contextmanager
def _handlers(folder: Path, model: ServingModel, **settings: Any) -> Iterator[tuple[dict[str, Handler], str]]:
    """Yield the bare handler and the service's, with logs discarded, and the API key of `model`."""
    # Imported late: Powertools logs to the standard output of the time at which the handler is built.
    from recsys_recommend.handler import build_handler  # noqa: PLC0415  # slow to import, and not every part needs it

    folder.mkdir(parents=True, exist_ok=True)
    registry, store = SqliteRegistry(folder / "registry.sqlite3"), FileObjectStore(folder / "objects")
    shop = new_shop(registry, store, folder / "model", model)
    with Path(os.devnull).open("w") as nowhere, contextlib.redirect_stdout(nowhere), unconfigured_logging():
        ours: Handler = build_handler(registry, store, Settings(backend="aws", **settings))
        yield {"bare FastAPI + Mangum": _bare(folder).handle, "ours": ours}, shop.api_key
    registry.close()


def _bare(folder: Path) -> ModuleType:
    path = folder / "bare_handler.py"
    path.write_text(BARE_HANDLER)
    spec = importlib.util.spec_from_file_location("bare_handler", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _block_ms(handler: Handler, events: list[dict[str, Any]]) -> list[float]:
    spent = []
    for event in events:
        started = time.perf_counter()
        response = handler(event, Context())
        spent.append(1000 * (time.perf_counter() - started))
        assert response["statusCode"] == 200, response
    return spent


# -- concurrent clients, and users without an account


def measure_load(folder: Path, arguments: argparse.Namespace) -> Table:
    """Use `recsys serve` from 32 connections while versions are activated and one key is revoked."""
    seen = run_load(folder, arguments.seconds, dims=LOADED)
    table = Table(f"{CONNECTIONS} connections for {seen.seconds:.0f} s", {"": "s", "result": "s"})
    table.rows = [
        ["responses", f"{len(seen.latencies_ms):,}, {len(seen.latencies_ms) / seen.seconds:.0f}/s"],
        ["p50, p99", f"{seen.percentile(50):.1f} ms, {seen.percentile(99):.1f} ms"],
        ["wrong responses (target: 0)", str(len(seen.wrong))],
        ["errors (target: 0)", str(len(seen.errors))],
        ["responses by version", ", ".join(f"{count:,}" for count in seen.versions.values())],
        ["401 of the revoked key", f"{seen.rejected:,}"],
        [
            f"time it still worked after revocation (target: < {REVOKED_WITHIN_S:.0f} s)",
            _s(seen.last_answer_after_revoked_s),
        ],
    ]
    table.notes = [*seen.wrong[:3], *seen.errors[:3]]
    return table


def measure_sessions(folder: Path, arguments: argparse.Namespace) -> Table:
    """Compare sessions with known users, and with popularity on held-out users of Online Retail."""
    model_folder, newcomers = arguments.model, arguments.newcomers
    if model_folder is None:
        model_folder = folder / "model"
        source, newcomers = split_newcomers(SAMPLE, folder)
        train_folder(source, model_folder, Settings.from_environment(), lambda _: None)
    model = read_folder(model_folder)
    table = Table("Sessions", {"": "s", "ours": ".4f", "popularity": ".4f", "ratio": ".2f"})
    table.rows.append([f"share of a known user's own top {N} (target: 0.5)", overlap(model), None, None])
    if newcomers is not None:
        ours, theirs, n_users = newcomers_ndcg(model, newcomers)
        table.rows.append([f"NDCG@{N} of {n_users} new users (target: twice)", ours, theirs, ours / theirs])
    return table


def _s(seconds: float) -> str:
    return f"{seconds:.1f} s"


def _event(api_key: str, user_id: str) -> dict[str, Any]:
    body = json.dumps({"user_id": user_id, "n": N}).encode()
    path, headers = "/v1/recommendations", {"content-type": "application/json"}
    return http_event("POST", path, route=path, api_key=api_key, headers=headers, body=body)


if __name__ == "__main__":
    main()
