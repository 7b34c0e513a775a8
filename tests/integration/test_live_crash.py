"""`kill -9` and Ctrl-C at inconvenient moments: keys, responses and jobs survive, and no partial file is left."""

from __future__ import annotations

import json
import re
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest

from recsys.model import artifact
from tests.integration.live_service import (
    RECSYS,
    LiveService,
    clean_environment,
    eventually,
    multipart,
    orders,
    running_service,
    wait_until_gone,
    with_key,
)

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("live-crash")]

CSV = orders()
USERS = [f"u{number}" for number in range(0, 60, 7)]

Moment = Callable[[LiveService, dict[str, Any]], bool]
"""Whether a job has reached a certain point."""


@dataclass(frozen=True)
class Shop:
    """A key that was trained before anything was killed, and its responses."""

    data_dir: Path
    log: Path
    key: str
    key_id: str
    version: str
    responses: dict[str, Any]

    def start(self) -> AbstractContextManager[LiveService]:
        return running_service(self.data_dir, self.log)

    def assert_unchanged(self, service: LiveService) -> None:
        assert responses(service, self.key) == self.responses
        assert service.models(self.key)["current_version"] == self.version


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Shop:
    """Train a key, then kill its service."""
    folder = tmp_path_factory.mktemp("live-crash")
    data_dir, log = folder / "data", folder / "log"
    with running_service(data_dir, log) as service:
        body = service.trained(CSV)
        shop = Shop(
            data_dir, log, body["api_key"], body["key_id"], body["model_version"], responses(service, body["api_key"])
        )
        service.kill_all()
    return shop


def responses(service: LiveService, key: str) -> dict[str, Any]:
    return {user: service.recommend(key, user).json() for user in USERS}


def submit(service: LiveService, csv: bytes = CSV, **options: Any) -> dict[str, Any]:
    response = service.train(csv, wait_s=0, **options)
    assert response.status_code == 202, response.text
    body: dict[str, Any] = response.json()
    return body


def assert_no_partial_files(service: LiveService) -> None:
    """Assert that every version below `models/` is complete, and that the temporary folders are empty."""
    for folder in (service.data_dir / "models").glob("*/*"):
        names = {path.name for path in folder.iterdir()}
        assert names == {*artifact.LISTED_FILES, artifact.MANIFEST}, folder
    assert service.files(".tmp") == []
    assert not list((service.data_dir / ".scratch").rglob("recsys-train-*"))


def assert_has_one_version(service: LiveService, key: str, job: dict[str, Any]) -> None:
    models = service.models(key)
    assert [model["version"] for model in models["models"]] == [job["model_version"]]
    assert models["current_version"] == job["model_version"]
    assert service.stored_versions(job["key_id"]) == [job["model_version"]]


# -- kill -9 of everything


def when_queued(_service: LiveService, _submitted: dict[str, Any]) -> bool:
    return True


def when_running(service: LiveService, submitted: dict[str, Any]) -> bool:
    return bool(service.job(submitted["api_key"], submitted["job_id"])["status"] != "queued")


def when_fitting(service: LiveService, submitted: dict[str, Any]) -> bool:
    job = service.job(submitted["api_key"], submitted["job_id"])
    return job["status"] == "succeeded" or (job["progress"] is not None and job["progress"]["phase"] != "reading")


def when_uploading(service: LiveService, submitted: dict[str, Any]) -> bool:
    return bool(service.stored_versions(submitted["key_id"]))


MANY_IDS_CSV = orders(n_users=1500, n_items=1500, per_user=3)
"""Gives a version of 12 MB, so that its upload lasts longer than it takes to notice the first file."""
MAX_TRIES = 5


def suspended_training(service: LiveService, moment: Moment, csv: bytes) -> dict[str, Any]:
    """Start a training job and suspend the worker at `moment`, so that the job is unfinished when the worker is killed.

    If the job was finished before the worker was suspended, start another one.
    """
    worker = service.worker()
    for _ in range(MAX_TRIES):
        submitted = submit(service, csv)
        eventually(partial(moment, service, submitted), "the moment did not come", timeout_s=120, every_s=0.001)
        worker.suspend()
        if service.job(submitted["api_key"], submitted["job_id"])["status"] in ("queued", "running"):
            return submitted
        worker.resume()
    pytest.fail(f"The job was finished too early in each of {MAX_TRIES} tries.", pytrace=False)


@pytest.mark.parametrize(
    ("moment", "csv"),
    [(when_queued, CSV), (when_running, CSV), (when_fitting, CSV), (when_uploading, MANY_IDS_CSV)],
    ids=["queued", "running", "fitting", "uploading"],
)
def test_killed_training_finishes_after_a_restart_with_one_version(shop: Shop, moment: Moment, csv: bytes) -> None:
    with shop.start() as service:
        submitted = suspended_training(service, moment, csv)
        service.kill_all()
    with shop.start() as service:
        job = service.finished_job(submitted["api_key"], submitted["job_id"])
        assert job["status"] == "succeeded"
        assert_has_one_version(service, submitted["api_key"], job)
        assert service.items(submitted["api_key"], "u0")
        assert_no_partial_files(service)
        shop.assert_unchanged(service)


@pytest.mark.parametrize("moment", [when_queued, when_running, when_fitting], ids=["queued", "running", "fitting"])
def test_files_that_are_added_survive_a_kill(shop: Shop, moment: Moment) -> None:
    """Three days are sent, the service is killed while the first of them is added, and each ends in the model once."""
    days = [orders(n_users=30, per_user=5, seed=day, shops=f"-day{day}") for day in range(3)]
    with shop.start() as service:
        key = service.trained(CSV)["api_key"]
        submitted = [submit(service, day, key=key, mode="append") for day in days]
        eventually(partial(moment, service, {**submitted[0], "api_key": key}), "the moment did not come", every_s=0.001)
        service.kill_all()
    with shop.start() as service:
        jobs = [service.finished_job(key, body["job_id"]) for body in submitted]
        assert [(job["status"], job["mode"]) for job in jobs] == [("succeeded", "append")] * 3
        newest = max(jobs, key=lambda job: job["report"]["interactions"])
        assert newest["report"]["interactions"] == CSV.count(b"\n") + sum(day.count(b"\n") for day in days) - 4
        assert service.models(key)["current_version"] == newest["model_version"]
        assert_no_partial_files(service)


def test_partial_version_of_a_killed_training_is_removed(shop: Shop) -> None:
    """The worker is suspended at the first file of a version, so that the kill leaves an incomplete version."""
    with shop.start() as service:
        submitted = submit(service)
        worker = service.worker()
        eventually(
            lambda: bool(service.stored_versions(submitted["key_id"])),
            "nothing was uploaded",
            timeout_s=120,
            every_s=0.001,
        )
        worker.suspend()
        partial = service.stored_versions(submitted["key_id"])
        service.kill_all()
    assert partial == [f"{submitted['job_id']}.1"]
    with shop.start() as service:
        job = service.finished_job(submitted["api_key"], submitted["job_id"])
        assert service.stored_versions(submitted["key_id"]) == [job["model_version"]]
        assert_no_partial_files(service)


def test_old_version_is_served_after_its_retraining_was_killed(shop: Shop) -> None:
    with shop.start() as service:
        key = service.trained(CSV)["api_key"]
        before = responses(service, key)
        submitted = submit(service, key=key)
        eventually(lambda: service.job(key, submitted["job_id"])["status"] == "running", "it did not start")
        service.worker().suspend()  # so that the old version is still served after the start
        service.kill_all()
    with shop.start() as service:
        first = responses(service, key)
        job = service.finished_job(key, submitted["job_id"])
        assert job["status"] == "succeeded"
        # Both versions rank alike, because the file, the seed and the machine are the same.
        assert [without_version(response) for response in first.values()] == [
            without_version(response) for response in before.values()
        ]
        assert len(service.models(key)["models"]) == 2


def without_version(response: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in response.items() if name != "model_version"}


def test_drop_whose_training_was_killed_gets_its_receipt_and_key(shop: Shop) -> None:
    name = "killed-drop"
    with shop.start() as service:
        (service.data_dir / "inbox" / f"{name}.csv").write_bytes(CSV)
        eventually(lambda: "Reading the CSV" in service.output().rpartition("is running on")[2], "it did not start")
        service.kill_all()
    receipt = shop.data_dir / "receipts" / f"{name}.json"
    assert not receipt.exists()
    with shop.start() as service:
        eventually(receipt.exists, "there is no receipt", timeout_s=120)
        outcome = json.loads(receipt.read_text())
        key = service.client.post("/v1/key/claim", json={"claim_token": outcome["claim_token"]}).json()["api_key"]
        assert service.items(key, "u0")
        assert service.stored_versions(outcome["key_id"]) == [outcome["model_version"]]


def test_service_killed_while_serving_responds_as_before(shop: Shop) -> None:
    wrong: list[Any] = []
    served = threading.Event()

    def send_requests(service: LiveService) -> None:
        with httpx.Client(base_url=service.base_url, trust_env=False, headers=with_key(shop.key), timeout=10) as client:
            while True:
                for user, expected in shop.responses.items():
                    try:
                        response = client.post("/v1/recommendations", json={"user_id": user})
                    except httpx.HTTPError:
                        return
                    if response.json() != expected:
                        wrong.append(response.text)
                served.set()

    with shop.start() as service, ThreadPoolExecutor(4) as threads:
        clients = [threads.submit(send_requests, service) for _ in range(4)]
        assert served.wait(60)
        service.kill_all()
        for client in clients:
            client.result(timeout=60)
    assert wrong == []
    with shop.start() as service:
        shop.assert_unchanged(service)
        assert service.client.get("/v1/key", headers=with_key(shop.key)).json()["key_id"] == shop.key_id


def test_half_sent_file_leaves_no_files(shop: Shop) -> None:
    with shop.start() as service:
        before = service.files("uploads")
        address = httpx.URL(service.base_url)
        with socket.create_connection((address.host, address.port or 80), timeout=10) as half:
            half.sendall(
                b"POST /v1/train HTTP/1.1\r\nHost: x\r\nContent-Type: text/csv\r\nContent-Length: 99999999\r\n\r\n"
            )
            half.sendall(CSV * 500)
            service.kill_all()
    with shop.start() as service:
        assert service.files("uploads") == before
        assert_no_partial_files(service)


def test_temporary_files_of_killed_writers_are_removed_at_the_next_start(shop: Shop) -> None:
    (shop.data_dir / ".tmp").mkdir(exist_ok=True)
    (shop.data_dir / ".tmp" / "tmphalf").write_bytes(b"half an upload")
    half_model = shop.data_dir / ".scratch" / "worker-1" / "recsys-train-killed"
    half_model.mkdir(parents=True, exist_ok=True)
    (half_model / "model.h5").write_bytes(b"half a model")
    with shop.start() as service:
        eventually(lambda: not half_model.exists(), "the worker's temporary folder was not removed")
        assert service.files(".tmp") == []


# -- kill -9 of one process


def test_killed_worker_is_started_again_and_finishes_the_job(shop: Shop) -> None:
    with shop.start() as service:
        submitted = submit(service)
        eventually(lambda: when_running(service, submitted), "the training did not start", timeout_s=120)
        killed = service.worker()
        killed.kill()
        job = service.finished_job(submitted["api_key"], submitted["job_id"])
        assert job["status"] == "succeeded"
        assert_has_one_version(service, submitted["api_key"], job)
        assert service.worker().pid != killed.pid
        shop.assert_unchanged(service)


def test_service_responds_while_its_worker_is_restarting(shop: Shop) -> None:
    with shop.start() as service:
        service.worker().kill()
        shop.assert_unchanged(service)


def test_worker_ends_when_its_server_is_killed(shop: Shop) -> None:
    with shop.start() as service:
        worker = service.worker()
        service.server.kill()
        service.process.wait()
        wait_until_gone([worker])


def test_worker_in_training_ends_when_its_server_is_killed(shop: Shop) -> None:
    with shop.start() as service:
        submitted = submit(service)
        eventually(lambda: when_running(service, submitted), "the training did not start", timeout_s=120)
        worker = service.worker()
        service.server.kill()
        service.process.wait()
        wait_until_gone([worker])


# -- failing starts


def start_and_fail(*arguments: str | Path) -> str:
    """Run `recsys serve`, assert that it exits with status 1, and return its standard error."""
    ended = subprocess.run(
        [RECSYS, "serve", *arguments],
        env=clean_environment(),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ended.returncode == 1
    assert "Traceback" not in ended.stderr
    assert "→" in ended.stderr, "there is no hint"
    return ended.stderr


def test_second_service_on_the_same_data_directory_fails_with_a_hint(shop: Shop) -> None:
    with shop.start() as service:
        stderr = start_and_fail("--port", "0", "--data-dir", shop.data_dir)
        assert f"in use by process {service.process.pid}" in stderr
        assert "--data-dir" in stderr
        shop.assert_unchanged(service)


def test_port_in_use_fails_the_start_with_a_hint(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        stderr = start_and_fail("--port", str(taken.getsockname()[1]), "--data-dir", tmp_path / "data")
    assert "--port" in stderr


def test_data_directory_that_cannot_be_created_fails_the_start_with_a_hint(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")
    stderr = start_and_fail("--port", "0", "--data-dir", tmp_path / "file")
    assert "--data-dir" in stderr


# -- orderly stop


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_service_stops_while_its_worker_is_starting(shop: Shop, how: signal.Signals) -> None:
    with shop.start() as service:
        assert_stops_cleanly(service, how)


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_training_interrupted_by_a_stop_is_finished_by_the_next_start(shop: Shop, how: signal.Signals) -> None:
    with shop.start() as service:
        submitted = submit(service)
        eventually(lambda: when_running(service, submitted), "the training did not start", timeout_s=120)
        assert_stops_cleanly(service, how)
    with shop.start() as service:
        job = service.finished_job(submitted["api_key"], submitted["job_id"])
        assert_has_one_version(service, submitted["api_key"], job)


def test_request_that_waits_for_a_training_gets_its_key_when_the_service_stops(shop: Shop) -> None:
    with shop.start() as service, ThreadPoolExecutor(1) as threads:
        before = service.files("uploads")
        with httpx.Client(base_url=service.base_url, trust_env=False, timeout=120) as client:
            headers = {"Prefer": "wait=100"}
            waiting = threads.submit(lambda: client.post("/v1/train", files=multipart(orders(400)), headers=headers))
            eventually(lambda: service.files("uploads") != before, "the file did not arrive")
            service.worker().suspend()
            started = time.monotonic()
            service.process.terminate()
            response = waiting.result(timeout=60)
        assert service.process.wait(timeout=60) in (0, 130)
        assert time.monotonic() - started < 60, "the service waited for the training before it stopped"
    body = response.json()
    assert response.status_code == 202, response.text
    assert re.fullmatch(r"rk_\w+", body["api_key"])
    with shop.start() as service:
        assert service.finished_job(body["api_key"], body["job_id"])["status"] == "succeeded"


def assert_stops_cleanly(service: LiveService, how: signal.Signals) -> None:
    start = len(service.output())
    assert service.end(how) in (0, 130)
    output = service.output()[start:]
    assert "Traceback" not in output, output
    assert "Fatal Python error" not in output, output
