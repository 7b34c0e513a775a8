"""The local service as its user runs it: `recsys serve` in processes of its own, on a free port of the loopback.

Nothing here knows how the service works. Processes are ended by their ids, also when a test fails.
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
from collections.abc import Callable, Iterator, Mapping
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
    """What `look` returns as soon as that is neither None nor False; fails the test after `timeout_s`."""
    deadline = time.monotonic() + timeout_s
    while True:
        found = look()
        if found is not None and found is not False:
            return found
        if time.monotonic() > deadline:
            pytest.fail(f"After {timeout_s:.0f} s: {what}.", pytrace=False)
        time.sleep(every_s)


def orders(n_users: int = 60, n_items: int = 40, *, per_user: int = 10, seed: int = 0, shops: str = "") -> bytes:
    """A CSV in which even users had items of the first half of the catalogue and odd ones of the second.

    User u3 is written `u3` + `shops`, item i7 `i7` + `shops`, so that two files share nothing.
    """
    rng = random.Random(seed)
    lines = ["user_id,item_id,interaction_score,timestamp"]
    for user in range(n_users):
        half = range(n_items // 2) if user % 2 == 0 else range(n_items // 2, n_items)
        for place, item in enumerate(rng.sample(half, per_user)):
            lines.append(f"u{user}{shops},i{item}{shops},1,{1_700_000_000 + 60 * place + user}")
    return "\n".join(lines).encode() + b"\n"


def items_of(csv: bytes, user_id: str) -> set[str]:
    """The items that `user_id` had."""
    rows = (line.split(",") for line in csv.decode().splitlines()[1:])
    return {row[1] for row in rows if row[0] == user_id}


def multipart(content: bytes, name: str = "orders.csv") -> dict[str, Any]:
    """The file as `curl -F file=@…` sends it, for httpx."""
    return {"file": (name, content, "text/csv")}


@dataclass
class LiveService:
    """One running service."""

    process: subprocess.Popen[bytes]
    base_url: str
    data_dir: Path
    log: Path
    client: httpx.Client

    # -- its processes

    @property
    def server(self) -> psutil.Process:
        """The process that answers HTTP."""
        return psutil.Process(self.process.pid)

    def worker(self) -> psutil.Process:
        """The process that trains; waits for the supervisor to have started one."""
        return eventually(lambda: next(iter(_children(self.server)), None), "there is no worker process")

    def processes(self) -> list[psutil.Process]:
        """Every process of the service."""
        return [self.server, *_children(self.server)]

    def rss_bytes(self) -> int:
        """Memory that the largest of its processes holds."""
        sizes = [0]
        for process in self.processes():
            with contextlib.suppress(psutil.NoSuchProcess):
                sizes.append(process.memory_info().rss)
        return max(sizes)

    def kill_all(self) -> None:
        """`kill -9` of every process."""
        _kill(self.processes())
        self.process.wait()

    def end(self, how: signal.Signals = signal.SIGTERM) -> int:
        """Ask it to end, SIGINT as a terminal's Ctrl-C does; its exit status when every process is gone."""
        processes = self.processes()
        if how is signal.SIGINT:
            os.killpg(self.process.pid, how)
        else:
            self.process.send_signal(how)
        status = self.process.wait(timeout=60)
        wait_until_gone(processes)
        return status

    # -- what it says

    def output(self) -> str:
        """Everything it wrote to stdout and stderr so far."""
        return self.log.read_text(encoding="utf-8", errors="replace")

    # -- what one does with it

    def train(
        self, csv: bytes, *, key: str | None = None, wait_s: int = 120, headers: Mapping[str, str] | None = None
    ) -> httpx.Response:
        """`POST /v1/train` with the file as multipart."""
        sent = {**with_key(key), **({"Prefer": f"wait={wait_s}"} if wait_s else {}), **(headers or {})}
        return self.client.post("/v1/train", files=multipart(csv), headers=sent, timeout=TRAIN_TIMEOUT_S)

    def trained(self, csv: bytes, *, key: str | None = None) -> dict[str, Any]:
        """The answer to a training that succeeded while the request waited."""
        response = self.train(csv, key=key)
        assert response.status_code == 201, response.text
        body: dict[str, Any] = response.json()
        return body

    def recommend(self, key: str | None, user_id: str, **members: Any) -> httpx.Response:
        """`POST /v1/recommendations`."""
        return self.client.post("/v1/recommendations", json={"user_id": user_id, **members}, headers=with_key(key))

    def items(self, key: str, user_id: str, **members: Any) -> list[str]:
        """The ids that are recommended, best first."""
        response = self.recommend(key, user_id, **members)
        assert response.status_code == 200, response.text
        return [item["item_id"] for item in response.json()["items"]]

    def job(self, key: str, job_id: str) -> dict[str, Any]:
        """`GET /v1/jobs/{job_id}`."""
        response = self.client.get(f"/v1/jobs/{job_id}", headers=with_key(key))
        assert response.status_code == 200, response.text
        body: dict[str, Any] = response.json()
        return body

    def finished_job(self, key: str, job_id: str) -> dict[str, Any]:
        """The job, when it is final."""

        def look() -> dict[str, Any] | None:
            job = self.job(key, job_id)
            return job if job["status"] in ("succeeded", "failed", "superseded") else None

        return eventually(look, f"the job {job_id} is not final", timeout_s=TRAIN_TIMEOUT_S, every_s=0.2)

    def models(self, key: str) -> dict[str, Any]:
        """`GET /v1/models`."""
        response = self.client.get("/v1/models", headers=with_key(key))
        assert response.status_code == 200, response.text
        body: dict[str, Any] = response.json()
        return body

    # -- what lies in its data directory

    def files(self, folder: str) -> list[str]:
        """Every file below a folder of the data directory, as paths relative to the data directory."""
        found = (path for path in (self.data_dir / folder).rglob("*") if path.is_file())
        return sorted(str(path.relative_to(self.data_dir)) for path in found)

    def stored_versions(self, key_id: str) -> list[str]:
        """The versions below `models/<key_id>/` that files lie in."""
        return sorted({Path(path).parts[2] for path in self.files(f"models/{key_id}")})


def with_key(key: str | None) -> dict[str, str]:
    """The header that carries an API key."""
    return {} if key is None else {"X-API-Key": key}


@contextlib.contextmanager
def running_service(
    data_dir: Path, log: Path, *options: str, environment: Mapping[str, str] | None = None, until: str = "ready"
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
    """
    start = log.stat().st_size if log.exists() else 0
    with log.open("ab") as output:
        process = subprocess.Popen(
            [RECSYS, "serve", "--port", "0", "--data-dir", data_dir, *options],
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
        # Not the machine's proxies: this is the loopback interface.
        with httpx.Client(base_url=base_url, trust_env=False, timeout=30) as client:
            yield LiveService(process, base_url, data_dir, log, client)
    finally:
        with contextlib.suppress(psutil.NoSuchProcess):
            _kill([started, *started.children(recursive=True)])
        process.wait()


def clean_environment(more: Mapping[str, str] | None = None) -> dict[str, str]:
    """This process's environment without settings of ours, and with `more`."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("RECSYS_")}
    return {**kept, "PYTHONUNBUFFERED": "1", "NO_PROXY": "127.0.0.1", **(more or {})}


def wait_until_gone(processes: list[psutil.Process]) -> None:
    """Fails the test when one of `processes` is still there after a while, and kills it."""
    _, left = psutil.wait_procs(processes, timeout=30)
    _kill(left)
    assert not left, "processes of the service outlived it"


def _children(process: psutil.Process) -> list[psutil.Process]:
    try:
        children = process.children(recursive=True)
    except psutil.NoSuchProcess:
        return []
    return [child for child in children if child.status() != psutil.STATUS_ZOMBIE]


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
        found = re.search(r"serves on (http://[\w.:\[\]]+)", written)
        if found is None:
            return None
        with contextlib.suppress(httpx.HTTPError):
            if httpx.get(f"{found[1]}/health/{what}", trust_env=False, timeout=5).status_code == 200:
                return found[1]
        return None

    return eventually(look, f"the service is not {what}", timeout_s=START_TIMEOUT_S)
