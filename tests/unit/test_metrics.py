"""Operational metrics: what they count, that promtool accepts them, and who may read them."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import httpx
import pytest
from anyio.from_thread import start_blocking_portal
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import generate_latest
from prometheus_client.parser import text_string_to_metric_families

from recsys.clock import after
from recsys.errors import Problem, Unavailable
from recsys.objects.files import FileObjectStore
from recsys.registry.sqlite import SqliteRegistry
from recsys.settings import Settings
from recsys_api.jobs import QueuePosition
from recsys_local.app import create_app
from recsys_local.metrics.exposition import metrics_listener
from recsys_local.metrics.names import prometheus_name
from recsys_local.metrics.service_metrics import MetricsAddress, ServiceMetrics
from recsys_local.metrics.state_metrics import ServiceState, StateCollector
from recsys_local.queue_file import QueueFile
from recsys_local.worker_process import SCRATCH
from tests.docs.pages import DOCS, REFERENCE, ROOT, code_spans, table_rows
from tests.unit.http_fakes import Now, new_job, new_key, publish

HERE = ("127.0.0.1", 40000)


@dataclass
class Machine:
    """The app of the local service with its metrics, called without sockets."""

    app: Any
    metrics: ServiceMetrics
    registry: SqliteRegistry
    store: FileObjectStore
    folder: Path
    portal: Any

    def get(self, path: str, *, peer: tuple[str, int] = HERE, host: str = "127.0.0.1:8000", **headers: str) -> Any:
        async def call() -> httpx.Response:
            transport = httpx.ASGITransport(self.app, client=peer)
            async with httpx.AsyncClient(transport=transport, base_url=f"http://{host}") as client:
                return await client.get(path, headers={name.replace("_", "-"): text for name, text in headers.items()})

        return self.portal.call(call)


@pytest.fixture
def state(tmp_path: Path) -> Iterator[ServiceState]:
    (tmp_path / SCRATCH).mkdir()
    registry = SqliteRegistry(tmp_path / "registry.sqlite3")
    yield ServiceState(registry, QueueFile(tmp_path), tmp_path, silent_s=lambda: [1.5, 0.5], n_connections=lambda: 3)
    registry.close()


@pytest.fixture
def machine(state: ServiceState, tmp_path: Path) -> Iterator[Machine]:
    store = FileObjectStore(tmp_path / "objects")
    metrics = ServiceMetrics.of(state, MetricsAddress(), is_behind_proxy=False, refresh_s=0)
    app = create_app(state.registry, store, Settings(), metrics=metrics)
    with start_blocking_portal() as portal:
        yield Machine(app, metrics, state.registry, store, tmp_path, portal)


def values(text: str) -> dict[str, float]:
    """Return the value of each sample by its name with labels."""
    return {line.rpartition(" ")[0]: float(line.rpartition(" ")[2]) for line in text.splitlines() if line[:1] != "#"}


def collected(collector: StateCollector) -> dict[str, float]:
    registry = CollectorRegistry()
    registry.register(collector)
    return values(generate_latest(registry).decode())


def test_requests_are_counted_by_method_route_and_status_class(machine: Machine) -> None:
    machine.get("/health/live")
    machine.get("/v1/key")
    machine.get("/v1/key/")
    found = values(machine.get("/metrics").text)
    requests = {name: value for name, value in found.items() if name.startswith("recsys_latency_seconds_count")}
    assert requests == {
        'recsys_latency_seconds_count{method="GET",route="/health/live",status="2xx"}': 1,
        'recsys_latency_seconds_count{method="GET",route="/v1/key",status="4xx"}': 1,
        'recsys_latency_seconds_count{method="GET",route="(none)",status="4xx"}': 1,
    }
    assert found['recsys_latency_seconds_sum{method="GET",route="/health/live",status="2xx"}'] > 0
    assert found["recsys_server_error_total"] == 0
    assert (found["recsys_catalogue_loaded_total"], found["recsys_catalogue_failed_total"]) == (0, 0)


def test_caches_are_counted(machine: Machine) -> None:
    key = new_key(machine.registry, "2026-03-01T12:00:00.000000Z")
    publish(machine.registry, machine.store, key.key_id, machine.folder / "model", Now())
    for n in (3, 3, 4):
        assert machine.get(f"/v1/popular?n={n}", X_API_Key=str(key)).status_code == 200
    found = values(machine.get("/metrics").text)
    names = ("model_loaded", "model_cache_miss", "model_cache_hit", "response_cache_miss", "response_cache_hit")
    assert [found[f"recsys_{name}_total"] for name in names] == [1, 1, 2, 2, 1]
    assert found["recsys_model_cache_bytes"] > 0
    assert found["recsys_response_cache_bytes"] > 0


def test_jobs_are_counted_when_they_have_ended(state: ServiceState) -> None:
    now = Now()
    registry = SqliteRegistry(state.data_dir / "registry.sqlite3", now.clock)
    key = new_key(registry, now.timestamp)
    earlier, failed, running = (new_job(registry, key.key_id, now.timestamp) for _ in range(3))

    def fail(job_id: str) -> None:
        lease = registry.claim_job(job_id, owner="test", data_timestamp="1", lease_s=60)
        now.move(7)
        registry.fail_job(lease, Problem("invalid-data", "title", "detail"), None)

    fail(earlier.job_id)
    collector = StateCollector(state, clock=now.clock, refresh_s=0)
    fail(failed.job_id)
    registry.claim_job(running.job_id, owner="test", data_timestamp="1", lease_s=60)
    for _ in range(2):  # the second reading counts nothing again
        found = collected(collector)
        assert found["recsys_jobs_failed_total"] == 1
        assert (found["recsys_jobs_succeeded_total"], found["recsys_jobs_superseded_total"]) == (0, 0)
        duration = "recsys_job_duration_seconds"
        assert (found[f"{duration}_count"], found[f"{duration}_sum"]) == (1, 7)
    registry.close()


def test_queue_has_the_length_that_the_worker_reports_and_the_age_of_its_oldest_job(state: ServiceState) -> None:
    now = Now()
    key = new_key(state.registry, now.timestamp)
    oldest = new_job(state.registry, key.key_id, now.timestamp)
    now.move(40)
    newest, _without_file = (new_job(state.registry, key.key_id, now.timestamp) for _ in range(2))
    state.queue_file.write({oldest.job_id: QueuePosition(2, None), newest.job_id: QueuePosition(1, 3)})
    now.move(2)
    found = collected(StateCollector(state, clock=now.clock))
    assert (found["recsys_queue_length"], found["recsys_queue_age_seconds"]) == (2, 42)


def test_an_idle_service_has_an_empty_queue_and_no_model(state: ServiceState) -> None:
    found = collected(StateCollector(state))
    assert (found["recsys_queue_length"], found["recsys_queue_age_seconds"]) == (0, 0)
    assert "recsys_model_age_seconds" not in found
    silent = [found[f'recsys_worker_silent_seconds{{worker="{number}"}}'] for number in (1, 2)]
    assert (silent, found["recsys_connections"]) == ([1.5, 0.5], 3)
    assert found["recsys_disk_free_bytes"] == pytest.approx(shutil.disk_usage(state.data_dir).free, rel=0.05)
    assert found["recsys_disk_used_bytes"] > 0


def test_model_age_is_that_of_the_newest_publication_of_any_key(state: ServiceState, tmp_path: Path) -> None:
    now = Now()
    store = FileObjectStore(tmp_path / "objects")
    for name in ("first", "second"):
        key = new_key(state.registry, now.timestamp)
        publish(state.registry, store, key.key_id, tmp_path / name, now)
        now.move(100)
    found = collected(StateCollector(state, clock=now.clock))
    assert found["recsys_model_age_seconds"] == 100


def test_a_registry_that_cannot_be_read_leaves_the_other_metrics(
    state: ServiceState, caplog: pytest.LogCaptureFixture
) -> None:
    class UnreadableRegistry:
        def query(self, *_: str) -> Any:
            raise Unavailable("The registry cannot be used.")

    found = collected(StateCollector(replace(state, registry=UnreadableRegistry())))  # type: ignore[arg-type]
    assert found["recsys_connections"] == 3
    assert "could not be read" in caplog.text


def test_the_registry_is_read_at_most_once_in_a_while(state: ServiceState) -> None:
    reads = []

    class CountingRegistry:
        def query(self, *arguments: str) -> Any:
            reads.append(arguments)
            return state.registry.query(*arguments)

    collector = StateCollector(replace(state, registry=CountingRegistry()), refresh_s=60)  # type: ignore[arg-type]
    before = len(reads)
    collected(collector)
    collected(collector)
    assert (before, len(reads)) == (2, 2)


# -- access


def test_metrics_need_no_key_on_this_machine(machine: Machine) -> None:
    response = machine.get("/metrics")
    assert response.status_code == 200
    assert response.headers["content-type"].startswith("text/plain; version=")
    assert list(text_string_to_metric_families(response.text))


@pytest.mark.parametrize("peer", ["127.0.0.1", "127.8.8.8", "::1", "::ffff:127.0.0.1"])
def test_every_loopback_address_is_this_machine(machine: Machine, peer: str) -> None:
    assert machine.get("/metrics", peer=(peer, 1)).status_code == 200


@pytest.mark.parametrize(
    "request_of",
    [
        {"peer": ("192.0.2.7", 40000)},
        {"peer": ("::ffff:192.0.2.7", 40000)},
        {"host": "recsys.example.com"},
        {"X_Forwarded_For": "127.0.0.1"},
        {"Forwarded": "for=127.0.0.1"},
        {"Via": "1.1 proxy"},
        {"X_Real_IP": "127.0.0.1"},
    ],
    ids=str,
)
def test_other_machines_proxies_and_rebound_names_get_404(machine: Machine, request_of: dict[str, Any]) -> None:
    response = machine.get("/metrics", **request_of)
    assert (response.status_code, response.json()["type"]) == (404, "urn:recsys:problem:not-found")


@pytest.mark.parametrize("options", [{"is_behind_proxy": True}, {"is_behind_proxy": False, "port": 9}], ids=str)
def test_behind_a_proxy_or_with_a_port_of_their_own_they_are_no_route(
    state: ServiceState, tmp_path: Path, options: dict[str, Any]
) -> None:
    address = MetricsAddress(port=options.pop("port", None))
    metrics = ServiceMetrics.of(state, address, **options)
    app = create_app(state.registry, FileObjectStore(tmp_path / "objects"), Settings(), metrics=metrics)
    with start_blocking_portal() as portal:
        machine = Machine(app, metrics, state.registry, FileObjectStore(tmp_path / "objects"), tmp_path, portal)
        assert machine.get("/metrics").status_code == 404


def test_metrics_can_have_a_port_of_their_own(machine: Machine) -> None:
    with metrics_listener(machine.metrics.registry, "127.0.0.1", 0) as port:
        text = httpx.get(f"http://127.0.0.1:{port}/metrics", trust_env=False).text
    assert "recsys_queue_length 0.0" in text


# -- format


def test_names_follow_from_those_of_cloudwatch() -> None:
    names = {
        ("Latency", "seconds"): "recsys_latency_seconds",
        ("JobsSucceeded", ""): "recsys_jobs_succeeded",
        ("ModelCacheHit", ""): "recsys_model_cache_hit",
    }
    assert {arguments: prometheus_name(*arguments) for arguments in names} == names


def exposed_names(machine: Machine) -> set[str]:
    """Return the names of all samples, after every kind of metric has a value."""
    key = new_key(machine.registry, "2026-03-01T12:00:00.000000Z")
    publish(machine.registry, machine.store, key.key_id, machine.folder / "model", Now())
    machine.get("/v1/popular", X_API_Key=str(key))
    return {name.partition("{")[0] for name in values(machine.get("/metrics").text)}


def test_every_metric_is_documented_and_every_documented_one_exists(machine: Machine) -> None:
    rows = table_rows(REFERENCE / "operational-metrics.md", "Operational metrics")
    documented = {span for row in rows for span in code_spans(row[0])}
    exposed = {re.sub(r"_(bucket|count|sum)$", "", name) for name in exposed_names(machine)}
    assert {name for name in exposed if name.startswith("recsys_")} == documented


def test_the_documented_names_follow_from_those_of_cloudwatch() -> None:
    for row in table_rows(REFERENCE / "operational-metrics.md", "Operational metrics"):
        prometheus, cloudwatch = code_spans(row[0])[0], code_spans(row[1])
        if cloudwatch and not row[1].startswith("SQS"):
            name = prometheus.removesuffix("_total").removesuffix("_seconds")
            assert name == prometheus_name(cloudwatch[0])


def test_the_dashboard_uses_only_metrics_that_exist(machine: Machine) -> None:
    dashboard = json.loads((ROOT / "infra/grafana/recsys.json").read_text("utf-8"))
    expressions = [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]
    used = {name for text in expressions for name in re.findall(r"\b(?:recsys|process)_\w+", text)}
    assert used - exposed_names(machine) == set()
    assert len(used) > 20


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool (of Prometheus) is not installed")
def test_promtool_parses_every_expression_of_the_dashboard_and_the_alerts(tmp_path: Path) -> None:
    dashboard = json.loads((ROOT / "infra/grafana/recsys.json").read_text("utf-8"))
    expressions = [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]
    for variable, value in {"$__rate_interval": "5m", "$__range": "6h", "$instance": ".*", "$route": ".*"}.items():
        expressions = [text.replace(variable, value) for text in expressions]
    alerts = [code_spans(row[1])[0] for row in table_rows(DOCS / "operations/monitor.md", "Metrics")]
    rules = [{"record": f"rule:{number}", "expr": text} for number, text in enumerate([*expressions, *alerts])]
    (tmp_path / "rules.yml").write_text(json.dumps({"groups": [{"name": "dashboard", "rules": rules}]}))
    checked = subprocess.run(
        ["promtool", "check", "rules", tmp_path / "rules.yml"], capture_output=True, text=True, check=False, timeout=30
    )
    assert checked.returncode == 0, checked.stdout + checked.stderr
    assert f"{len(rules)} rules found" in checked.stdout


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool (of Prometheus) is not installed")
def test_promtool_finds_nothing_to_criticize(machine: Machine) -> None:
    key = new_key(machine.registry, "2026-03-01T12:00:00.000000Z")
    publish(machine.registry, machine.store, key.key_id, machine.folder / "model", Now())
    machine.get("/v1/popular", X_API_Key=str(key))
    text = machine.get("/metrics").text
    checked = subprocess.run(
        ["promtool", "check", "metrics"], input=text, capture_output=True, text=True, check=False, timeout=30
    )
    assert (checked.returncode, checked.stdout, checked.stderr) == (0, "", "")
    assert len(re.findall(r"(?m)^# TYPE recsys_", text)) > 15


def test_a_job_of_a_newer_release_does_not_stop_the_metrics(state: ServiceState) -> None:
    now = Now()
    job = new_job(state.registry, new_key(state.registry, now.timestamp).key_id, now.timestamp)
    statement = "UPDATE registry SET document = json_set(document, '$.state', 'paused') WHERE partition = ?"
    state.registry.query(statement, f"JOB#{job.job_id}")
    assert collected(StateCollector(state, clock=lambda: after(now.timestamp, 1)))["recsys_queue_length"] == 0
