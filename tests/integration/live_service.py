"""Run the local service as its users do: `recsys serve` as a process, on a free port of the loopback interface.

Nothing here depends on how the service works inside. Processes are killed by their ids, also when a test fails.
"""

from __future__ import annotations

import contextlib
import os
import random
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import httpx
import psutil
import pytest

RECSYS = Path(sys.executable).with_name("recsys")
START_TIMEOUT_S = 90.0
TRAIN_TIMEOUT_S = 150.0

T = TypeVar("T")


def eventually(look: Callable[[], T | None], what: str, *, timeout_s: float = 60.0, every_s: float = 0.05) -> T:
    """Call `look` until it returns neither None nor False, and return that; fail the test after `timeout_s`."""
    deadline = time.monotonic() + timeout_s
    while True:
        found = look()
        if found is not None and found is not False:
            return found
        if time.monotonic() > deadline:
            pytest.fail(f"After {timeout_s:.0f} s: {what}.", pytrace=False)
        time.sleep(every_s)


def orders(n_users: int = 60, n_items: int = 40, *, per_user: int = 10, seed: int = 0, shops: str = "") -> bytes:
    """Return a CSV in which even users bought items of the first half of the catalogue, and odd users of the second.

    `shops` is appended to every id, so that two files with different `shops` share no user and no item.
    """
    rng = random.Random(seed)
    lines = ["user_id,item_id,interaction_score,timestamp"]
    for user in range(n_users):
        half = range(n_items // 2) if user % 2 == 0 else range(n_items // 2, n_items)
        for position, item in enumerate(rng.sample(half, per_user)):
            lines.append(f"u{user}{shops},i{item}{shops},1,{1_700_000_000 + 60 * position + user}")
    return "\n".join(lines).encode() + b"\n"


def items_of(csv: bytes, user_id: str) -> set[str]:
    """Return the items that the user interacted with."""
    rows = (line.split(",") for line in csv.decode().splitlines()[1:])
    return {row[1] for row in rows if row[0] == user_id}


def multipart(content: bytes, name: str = "orders.csv") -> dict[str, Any]:
    """Return the argument `files` for httpx that sends the file as `curl -F file=@…` does."""
    return {"file": (name, content, "text/csv")}


@dataclass
class LiveService:
    """A running service and a client for it."""

    process: subprocess.Popen[bytes]
    base_url: str
    data_dir: Path
    log: Path
    client: httpx.Client

    # -- processes

    @property
    def server(self) -> psutil.Process:
        """The process that serves HTTP."""
        return psutil.Process(self.process.pid)

    def worker(self) -> psutil.Process:
        """Return the training worker; wait until the supervisor has started it."""
        return eventually(lambda: next(iter(_children(self.server)), None), "there is no worker process")

    def processes(self) -> list[psutil.Process]:
        """Return every process of the service."""
        return [self.server, *_children(self.server)]

    def rss_bytes(self) -> int:
        """Return the resident memory of the largest process."""
        sizes = [0]
        for process in self.processes():
            with contextlib.suppress(psutil.NoSuchProcess):
                sizes.append(process.memory_info().rss)
        return max(sizes)

    def kill_all(self) -> None:
        """Send SIGKILL to every process."""
        _kill(self.processes())
        self.process.wait()

    def end(self, how: signal.Signals = signal.SIGTERM) -> int:
        """Stop the service, wait until every process has ended, and return its exit status.

        SIGINT is sent to the process group, as a terminal does on Ctrl-C.
        """
        processes = self.processes()
        if how is signal.SIGINT:
            os.killpg(self.process.pid, how)
        else:
            self.process.send_signal(how)
        status = self.process.wait(timeout=60)
        wait_until_gone(processes)
        return status

    # -- output

    def output(self) -> str:
        """Return everything written to stdout and stderr so far."""
        return self.log.read_text(encoding="utf-8", errors="replace")

    # -- requests

    def train(
        self,
        csv: bytes,
        *,
        key: str | None = None,
        wait_s: int = 120,
        headers: Mapping[str, str] | None = None,
        mode: str = "replace",
    ) -> httpx.Response:
        """Send `POST /v1/train` with the file as multipart."""
        sent = {**with_key(key), **({"Prefer": f"wait={wait_s}"} if wait_s else {}), **(headers or {})}
        return self.client.post(
            "/v1/train", params={"mode": mode}, files=multipart(csv), headers=sent, timeout=TRAIN_TIMEOUT_S
        )

    def trained(self, csv: bytes, *, key: str | None = None) -> dict[str, Any]:
        """Train, wait for the success, and return the response."""
        response = self.train(csv, key=key)
        assert response.status_code == 201, response.text
        body: dict[str, Any] = response.json()
        return body

    def recommend(self, key: str | None, user_id: str, **members: Any) -> httpx.Response:
        """Send `POST /v1/recommendations`."""
        return self.client.post("/v1/recommendations", json={"user_id": user_id, **members}, headers=with_key(key))

    def items(self, key: str, user_id: str, **members: Any) -> list[str]:
        """Return the ids of the recommended items, best first."""
        response = self.recommend(key, user_id, **members)
        assert response.status_code == 200, response.text
        return [item["item_id"] for item in response.json()["items"]]

    def job(self, key: str, job_id: str) -> dict[str, Any]:
        """Return the job as `GET /v1/jobs/{job_id}` does."""
        response = self.client.get(f"/v1/jobs/{job_id}", headers=with_key(key))
        assert response.status_code == 200, response.text
        body: dict[str, Any] = response.json()
        return body

    def finished_job(self, key: str, job_id: str) -> dict[str, Any]:
        """Wait until the job is final, and return it."""

        def look() -> dict[str, Any] | None:
            job = self.job(key, job_id)
            return job if job["status"] in ("succeeded", "failed", "superseded", "held") else None

        return eventually(look, f"the job {job_id} is not final", timeout_s=TRAIN_TIMEOUT_S, every_s=0.2)

    def models(self, key: str) -> dict[str, Any]:
        """Return the versions as `GET /v1/models` does."""
        response = self.client.get("/v1/models", headers=with_key(key))
        assert response.status_code == 200, response.text
        body: dict[str, Any] = response.json()
        return body

    # -- files in the data directory

    def files(self, folder: str) -> list[str]:
        """Return every file below a folder of the data directory, as paths relative to the data directory."""
        found = (path for path in (self.data_dir / folder).rglob("*") if path.is_file())
        return sorted(str(path.relative_to(self.data_dir)) for path in found)

    def stored_versions(self, key_id: str) -> list[str]:
        """Return the versions of a key that have files below `models/<key_id>/`."""
        return sorted({Path(path).parts[2] for path in self.files(f"models/{key_id}")})


def with_key(key: str | None) -> dict[str, str]:
    """Return the header with the API key."""
    return {} if key is None else {"X-API-Key": key}


@contextlib.contextmanager
def running_service(
    data_dir: Path,
    log: Path,
    *options: str,
    environment: Mapping[str, str] | None = None,
    until: str = "ready",
    command: Sequence[str | Path] = (RECSYS,),
) -> Iterator[LiveService]:
    """Run `recsys serve --port 0 --data-dir DATA_DIR [OPTIONS]`, and kill every process of it at the end.

    Parameters
    ----------
    data_dir
        Its data directory.
    log
        File that its output is appended to.
    options
        Further options of the command.
    environment
        Further environment variables.
    until
        "ready" waits until `/health/ready` returns 200, "live" until `/health/live` does.
    command
        The program; `serve` and the options are its arguments.
    """
    start = log.stat().st_size if log.exists() else 0
    with log.open("ab") as output:
        process = subprocess.Popen(
            [*command, "serve", "--port", "0", "--data-dir", data_dir, *options],
            env=clean_environment(environment),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            cwd=log.parent,
            start_new_session=True,
        )
    started = psutil.Process(process.pid)
    try:
        base_url = _wait_until(until, process, log, start)
        # trust_env=False: the machine's proxies must not be used for the loopback interface.
        with httpx.Client(base_url=base_url, trust_env=False, timeout=30) as client:
            yield LiveService(process, base_url, data_dir, log, client)
    finally:
        with contextlib.suppress(psutil.NoSuchProcess):
            _kill([started, *started.children(recursive=True)])
        process.wait()


def clean_environment(more: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return this process's environment without `RECSYS_*`, and with `more`."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("RECSYS_")}
    return {**kept, "PYTHONUNBUFFERED": "1", "NO_PROXY": "127.0.0.1", **(more or {})}


def wait_until_gone(processes: list[psutil.Process]) -> None:
    """Wait for the processes to end; kill those that do not, and fail the test."""
    _, left = psutil.wait_procs(processes, timeout=30)
    _kill(left)
    assert not left, "processes of the service are still running"


def _children(process: psutil.Process) -> list[psutil.Process]:
    try:
        children = process.children(recursive=True)
    except psutil.NoSuchProcess:
        return []
    return [child for child in children if _is_alive(child)]


def _is_alive(process: psutil.Process) -> bool:
    with contextlib.suppress(psutil.NoSuchProcess):
        return bool(process.status() != psutil.STATUS_ZOMBIE)
    return False


def _kill(processes: list[psutil.Process]) -> None:
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
    psutil.wait_procs(processes, timeout=30)


def _wait_until(what: str, process: subprocess.Popen[bytes], log: Path, start: int) -> str:
    def look() -> str | None:
        written = log.read_bytes()[start:].decode(errors="replace")
        if process.poll() is not None:
            pytest.fail(f"The service ended with status {process.returncode}:\n{written[-3000:]}", pytrace=False)
        found = re.search(r"is running on (http://[\w.:\[\]]+)", written)
        if found is None:
            return None
        with contextlib.suppress(httpx.HTTPError):
            if httpx.get(f"{found[1]}/health/{what}", trust_env=False, timeout=5).status_code == 200:
                return found[1]
        return None

    return eventually(look, f"the service is not {what}", timeout_s=START_TIMEOUT_S)
