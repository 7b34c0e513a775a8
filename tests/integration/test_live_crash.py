"""`kill -9` and Ctrl-C at bad moments: keys, answers and jobs are as before, and nothing half-made is left."""

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
from pathlib import Path
from typing import Any

import httpx
import pytest

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
"""Whether an unfinished job is at a certain point."""


@dataclass(frozen=True)
class Shop:
    """A key that was trained before anything was killed, and what it answered."""

    data_dir: Path
    log: Path
    key: str
    key_id: str
    version: str
    answers: dict[str, Any]

    def start(self) -> AbstractContextManager[LiveService]:
        return running_service(self.data_dir, self.log)

    def assert_as_before(self, service: LiveService) -> None:
        assert answers(service, self.key) == self.answers
        assert service.models(self.key)["current_version"] == self.version


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Shop:
    """Its service was killed."""
    folder = tmp_path_factory.mktemp("live-crash")
    data_dir, log = folder / "data", folder / "log"
    with running_service(data_dir, log) as service:
        body = service.trained(CSV)
        shop = Shop(
            data_dir, log, body["api_key"], body["key_id"], body["model_version"], answers(service, body["api_key"])
        )
        service.kill_all()
    return shop


def answers(service: LiveService, key: str) -> dict[str, Any]:
    return {user: service.recommend(key, user).json() for user in USERS}


def asked_to_train(service: LiveService, **options: Any) -> dict[str, Any]:
    response = service.train(CSV, wait_s=0, **options)
    assert response.status_code == 202, response.text
    body: dict[str, Any] = response.json()
    return body


def assert_nothing_half_made(service: LiveService) -> None:
    """What lies below `models/` is what the registry lists, whole; nothing waits in the temporary folders."""
    for folder in (service.data_dir / "models").glob("*/*"):
        names = {path.name for path in folder.iterdir()}
        assert names == {"model.h5", "mappings.json", "serving.npz", "metrics.json", "manifest.json"}, folder
    assert service.files(".tmp") == []
    assert not list((service.data_dir / ".scratch").glob("recsys-train-*"))


def assert_has_one_version(service: LiveService, key: str, job: dict[str, Any]) -> None:
    models = service.models(key)
    assert [model["version"] for model in models["models"]] == [job["model_version"]]
    assert models["current_version"] == job["model_version"]
    assert service.stored_versions(job["key_id"]) == [job["model_version"]]


# -- kill -9 of everything


def when_queued(service: LiveService, asked: dict[str, Any]) -> bool:
    return bool(service.job(asked["api_key"], asked["job_id"])["status"] == "queued")


def when_running(service: LiveService, asked: dict[str, Any]) -> bool:
    return bool(service.job(asked["api_key"], asked["job_id"])["status"] == "running")


def when_fitting(service: LiveService, asked: dict[str, Any]) -> bool:
    job = service.job(asked["api_key"], asked["job_id"])
    return job["status"] == "running" and job["progress"] is not None and job["progress"]["phase"] != "reading"


def when_uploading(service: LiveService, asked: dict[str, Any]) -> bool:
    return bool(service.stored_versions(asked["key_id"])) and when_running(service, asked)


MAX_TRIES = 5


def suspended_training(service: LiveService, moment: Moment) -> dict[str, Any]:
    """Start a training and suspend the worker at `moment`, so that the job is certainly unfinished when it is killed.

    If the training is faster than the polling, another one is started.
    """
    worker = service.worker()
    for _ in range(MAX_TRIES):
        asked = asked_to_train(service)
        wait_for_moment(service, moment, asked)
        worker.suspend()
        if moment(service, asked):
            return asked
        worker.resume()
    pytest.fail(f"The moment had passed in each of {MAX_TRIES} trainings.", pytrace=False)


def wait_for_moment(service: LiveService, moment: Moment, asked: dict[str, Any]) -> None:
    """Wait until the moment has come or has passed."""

    def look() -> bool:
        return moment(service, asked) or service.job(asked["api_key"], asked["job_id"])["status"] == "succeeded"

    eventually(look, "the moment did not come", timeout_s=120, every_s=0.002)


@pytest.mark.parametrize("moment", [when_queued, when_running, when_fitting, when_uploading])
def test_a_training_that_was_killed_is_finished_after_a_restart_with_one_version(shop: Shop, moment: Moment) -> None:
    with shop.start() as service:
        asked = suspended_training(service, moment)
        service.kill_all()
    with shop.start() as service:
        job = service.finished_job(asked["api_key"], asked["job_id"])
        assert job["status"] == "succeeded"
        assert_has_one_version(service, asked["api_key"], job)
        assert service.items(asked["api_key"], "u0")
        assert_nothing_half_made(service)
        shop.assert_as_before(service)


def test_what_the_killed_training_wrote_in_part_is_removed(shop: Shop) -> None:
    """A worker that is stopped, not killed, at the first file of a version shows what a kill leaves."""
    with shop.start() as service:
        asked = asked_to_train(service)
        worker = service.worker()
        eventually(
            lambda: bool(service.stored_versions(asked["key_id"])), "nothing was uploaded", timeout_s=120, every_s=0.001
        )
        worker.suspend()
        left = service.stored_versions(asked["key_id"])
        service.kill_all()
    assert left == [f"{asked['job_id']}.1"]
    with shop.start() as service:
        job = service.finished_job(asked["api_key"], asked["job_id"])
        assert service.stored_versions(asked["key_id"]) == [job["model_version"]]
        assert_nothing_half_made(service)


def test_a_retraining_that_was_killed_leaves_the_old_version_answering(shop: Shop) -> None:
    with shop.start() as service:
        key = service.trained(CSV)["api_key"]
        before = answers(service, key)
        asked = asked_to_train(service, key=key)
        eventually(lambda: service.job(key, asked["job_id"])["status"] == "running", "it did not start")
        service.worker().suspend()  # so that the old version still answers after the start
        service.kill_all()
    with shop.start() as service:
        first = answers(service, key)
        job = service.finished_job(key, asked["job_id"])
        assert job["status"] == "succeeded"
        # The file, the seed and the machine are the same, so the answers are; which version gave them is not asked.
        assert [without_version(answer) for answer in first.values()] == [
            without_version(answer) for answer in before.values()
        ]
        assert len(service.models(key)["models"]) == 2


def without_version(answer: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in answer.items() if name != "model_version"}


def test_a_drop_whose_training_was_killed_gets_its_receipt_and_its_key(shop: Shop) -> None:
    name = "killed-drop"
    with shop.start() as service:
        (service.data_dir / "inbox" / f"{name}.csv").write_bytes(CSV)
        eventually(lambda: "Reading the CSV" in service.output().rpartition("serves on")[2], "it did not start")
        service.kill_all()
    receipt = shop.data_dir / "receipts" / f"{name}.json"
    assert not receipt.exists()
    with shop.start() as service:
        eventually(receipt.exists, "there is no receipt", timeout_s=120)
        told = json.loads(receipt.read_text())
        key = service.client.post("/v1/key/claim", json={"claim_token": told["claim_token"]}).json()["api_key"]
        assert service.items(key, "u0")
        assert service.stored_versions(told["key_id"]) == [told["model_version"]]


def test_a_service_killed_while_it_serves_answers_as_before(shop: Shop) -> None:
    wrong: list[Any] = []
    served = threading.Event()

    def ask_on(service: LiveService) -> None:
        with httpx.Client(base_url=service.base_url, trust_env=False, headers=with_key(shop.key), timeout=10) as client:
            while True:
                for user, expected in shop.answers.items():
                    try:
                        answer = client.post("/v1/recommendations", json={"user_id": user})
                    except httpx.HTTPError:
                        return
                    if answer.json() != expected:
                        wrong.append(answer.text)
                served.set()

    with shop.start() as service, ThreadPoolExecutor(4) as threads:
        asking = [threads.submit(ask_on, service) for _ in range(4)]
        assert served.wait(60)
        service.kill_all()
        for one in asking:
            one.result(timeout=60)
    assert wrong == []
    with shop.start() as service:
        shop.assert_as_before(service)
        assert service.client.get("/v1/key", headers=with_key(shop.key)).json()["key_id"] == shop.key_id


def test_a_file_that_was_half_sent_leaves_nothing(shop: Shop) -> None:
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
        assert_nothing_half_made(service)


def test_what_killed_writers_left_is_removed_at_the_next_start(shop: Shop) -> None:
    (shop.data_dir / ".tmp").mkdir(exist_ok=True)
    (shop.data_dir / ".tmp" / "tmphalf").write_bytes(b"half an upload")
    half_model = shop.data_dir / ".scratch" / "recsys-train-killed"
    half_model.mkdir(parents=True, exist_ok=True)
    (half_model / "model.h5").write_bytes(b"half a model")
    with shop.start() as service:
        eventually(lambda: not half_model.exists(), "the worker's folder is still there")
        assert service.files(".tmp") == []


# -- kill -9 of one process


def test_a_worker_that_was_killed_is_started_again_and_finishes_the_job(shop: Shop) -> None:
    with shop.start() as service:
        asked = asked_to_train(service)
        eventually(lambda: when_running(service, asked), "the training did not start", timeout_s=120)
        killed = service.worker()
        killed.kill()
        job = service.finished_job(asked["api_key"], asked["job_id"])
        assert job["status"] == "succeeded"
        assert_has_one_version(service, asked["api_key"], job)
        assert service.worker().pid != killed.pid
        shop.assert_as_before(service)


def test_the_service_answers_while_its_worker_is_away(shop: Shop) -> None:
    with shop.start() as service:
        service.worker().kill()
        shop.assert_as_before(service)


def test_a_worker_whose_server_was_killed_ends_by_itself(shop: Shop) -> None:
    with shop.start() as service:
        worker = service.worker()
        service.server.kill()
        service.process.wait()
        wait_until_gone([worker])


def test_a_worker_whose_server_was_killed_during_a_training_ends_by_itself(shop: Shop) -> None:
    with shop.start() as service:
        asked = asked_to_train(service)
        eventually(lambda: when_running(service, asked), "the training did not start", timeout_s=120)
        worker = service.worker()
        service.server.kill()
        service.process.wait()
        wait_until_gone([worker])


# -- starts that cannot be


def start_and_fail(*arguments: str | Path) -> str:
    """What `recsys serve` says on stderr before it ends with status 1."""
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
    assert "→" in ended.stderr, "there is no mend"
    return ended.stderr


def test_a_second_service_on_the_same_data_is_refused_with_a_mend(shop: Shop) -> None:
    with shop.start() as service:
        said = start_and_fail("--port", "0", "--data-dir", shop.data_dir)
        assert f"in use by process {service.process.pid}" in said
        assert "--data-dir" in said
        shop.assert_as_before(service)


def test_a_port_that_is_taken_is_said_with_a_mend(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        said = start_and_fail("--port", str(taken.getsockname()[1]), "--data-dir", tmp_path / "data")
    assert "--port" in said


def test_a_data_directory_that_cannot_be_made_is_said_with_a_mend(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")
    said = start_and_fail("--port", "0", "--data-dir", tmp_path / "file")
    assert "--data-dir" in said


# -- being asked to end


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_it_ends_at_once_while_its_worker_is_still_starting(shop: Shop, how: signal.Signals) -> None:
    with shop.start() as service:
        assert_ends_cleanly(service, how)


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_it_ends_in_the_middle_of_a_training_that_the_next_start_finishes(shop: Shop, how: signal.Signals) -> None:
    with shop.start() as service:
        asked = asked_to_train(service)
        eventually(lambda: when_running(service, asked), "the training did not start", timeout_s=120)
        assert_ends_cleanly(service, how)
    with shop.start() as service:
        job = service.finished_job(asked["api_key"], asked["job_id"])
        assert_has_one_version(service, asked["api_key"], job)


def test_who_waits_for_a_training_when_it_ends_is_told_the_key(shop: Shop) -> None:
    with shop.start() as service, ThreadPoolExecutor(1) as threads:
        before = service.files("uploads")
        with httpx.Client(base_url=service.base_url, trust_env=False, timeout=120) as client:
            headers = {"Prefer": "wait=100"}
            waiting = threads.submit(lambda: client.post("/v1/train", files=multipart(orders(400)), headers=headers))
            eventually(lambda: service.files("uploads") != before, "the file did not arrive")
            service.worker().suspend()
            started = time.monotonic()
            service.process.terminate()
            answer = waiting.result(timeout=60)
        assert service.process.wait(timeout=60) in (0, 130)
        assert time.monotonic() - started < 60, "it waited for the training"
    body = answer.json()
    assert answer.status_code == 202, answer.text
    assert re.fullmatch(r"rk_\w+", body["api_key"])
    with shop.start() as service:
        assert service.finished_job(body["api_key"], body["job_id"])["status"] == "succeeded"


def assert_ends_cleanly(service: LiveService, how: signal.Signals) -> None:
    start = len(service.output())
    assert service.end(how) in (0, 130)
    said = service.output()[start:]
    assert "Traceback" not in said, said
    assert "Fatal Python error" not in said, said
