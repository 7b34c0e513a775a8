"""`recsys serve` under hostile connections, and the commands that it prints at the first start."""

from __future__ import annotations

import contextlib
import resource
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import psutil
import pytest

from recsys.settings import MIB
from recsys_local.sample import commands_to_try
from tests.integration.live_service import LiveService, clean_environment, eventually, orders, running_service

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("live-connections")]

CLOSED_WITHIN_S = 30.0
N_SLOW = 1000


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveService]:
    folder = tmp_path_factory.mktemp("live-connections")
    with running_service(folder / "data", folder / "log") as running:
        yield running


def address_of(service: LiveService) -> tuple[str, int]:
    url = httpx.URL(service.base_url)
    return url.host, url.port or 80


def send_half_a_request(service: LiveService) -> socket.socket:
    connection = socket.create_connection(address_of(service), timeout=10)
    connection.sendall(b"POST /v1/recommendations HTTP/1.1\r\nHost: x\r\nX-Slow: ")
    return connection


def n_accepted(service: LiveService) -> int:
    """Return the number of connections that the server has accepted and not closed."""
    connections = service.server.net_connections(kind="tcp")
    return sum(connection.status == psutil.CONN_ESTABLISHED for connection in connections)


def is_closed(connection: socket.socket) -> bool:
    """Return whether the server has closed the connection."""
    connection.setblocking(False)
    try:
        while received := connection.recv(65536):
            del received
    except BlockingIOError:
        return False
    except OSError:
        return True
    return True


@pytest.fixture
def many_descriptors() -> Iterator[None]:
    """Let this process open a socket for each of the slow connections."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = N_SLOW + 200
    if hard != resource.RLIM_INFINITY and hard < needed:
        pytest.skip(f"the limit of file descriptors (ulimit -Hn) is {hard}, {needed} are needed")
    if soft != resource.RLIM_INFINITY:
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, needed), hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.usefixtures("many_descriptors")
def test_slowloris_is_closed_within_30_seconds_and_the_service_answers_throughout(service: LiveService) -> None:
    answered_ms = []
    with contextlib.ExitStack() as stack:
        started = time.monotonic()
        slow = [stack.enter_context(send_half_a_request(service)) for _ in range(N_SLOW)]
        eventually(lambda: n_accepted(service) >= N_SLOW, "not all are open at the same time", timeout_s=5)
        while open_ones := [connection for connection in slow if not is_closed(connection)]:
            assert time.monotonic() - started < CLOSED_WITHIN_S, f"{len(open_ones)} connections are still open"
            asked = time.monotonic()
            # A new connection each time, as a client that arrives now has none.
            assert httpx.get(f"{service.base_url}/health/live", trust_env=False, timeout=5).status_code == 200
            answered_ms.append(1000 * (time.monotonic() - asked))
            for connection in open_ones:
                with contextlib.suppress(OSError):
                    connection.send(b"x")  # one byte now and then
            time.sleep(0.5)
        closed_after_s = time.monotonic() - started
    print(
        f"{N_SLOW} slow connections were open at once, and closed after {closed_after_s:.1f} s; meanwhile "
        f"{len(answered_ms)} requests on new connections took at most {max(answered_ms):.0f} ms"
    )


def test_declared_body_over_the_limit_gets_413_without_100_continue(service: LiveService) -> None:
    with socket.create_connection(address_of(service), timeout=10) as connection:
        connection.sendall(
            b"POST /v1/recommendations HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
            b"Expect: 100-continue\r\nContent-Length: 9999999999\r\n\r\n"
        )
        response = connection.recv(65536)
    assert response.startswith(b"HTTP/1.1 413 "), response


@pytest.mark.parametrize("path", ["/v1/train", "/v1/recommendations"])
def test_body_of_10_gb_gets_413_at_once_and_is_not_read(service: LiveService, path: str) -> None:
    """The length is declared, and the client does not wait for `100 Continue`."""
    head = f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Type: text/csv\r\nContent-Length: 9999999999\r\n\r\n"
    sent_bytes, part = 0, bytes(1 << 20)
    started = time.monotonic()
    with socket.create_connection(address_of(service), timeout=1) as connection:
        connection.sendall(head.encode())
        assert connection.recv(65536).startswith(b"HTTP/1.1 413 ")
        answered_ms = 1000 * (time.monotonic() - started)
        while not is_closed(connection) and time.monotonic() - started < CLOSED_WITHIN_S:
            connection.settimeout(1)
            with contextlib.suppress(OSError):
                sent_bytes += connection.send(part)
    closed_after_s = time.monotonic() - started
    print(
        f"{path}: 413 after {answered_ms:.0f} ms; the connection took {sent_bytes / 1e6:.1f} MB of the body and was "
        f"closed after {closed_after_s:.1f} s"
    )
    assert closed_after_s < CLOSED_WITHIN_S
    assert sent_bytes < 32 * MIB, "the kernel's buffers, and what the service reads of a rejected body"


def test_running_out_of_file_descriptors_is_logged_briefly(tmp_path: Path) -> None:
    log = tmp_path / "log"
    with running_service(tmp_path / "data", log) as service:
        resource.prlimit(service.process.pid, resource.RLIMIT_NOFILE, (64, 64))
        before = log.stat().st_size
        with contextlib.ExitStack() as stack:
            for _ in range(120):
                stack.enter_context(send_half_a_request(service))
            time.sleep(3)
        assert httpx.get(f"{service.base_url}/health/live", trust_env=False, timeout=30).status_code == 200
        assert log.stat().st_size - before < 2000


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
def test_commands_printed_at_the_first_start_work_as_printed(service: LiveService, tmp_path: Path) -> None:
    api_key = service.trained(orders())["api_key"]
    # The sample has a catalogue, and the first command requests titles.
    headers = {"X-API-Key": api_key, "Content-Type": "text/csv", "Prefer": "wait=60"}
    sent = httpx.put(
        f"{service.base_url}/v1/items", content=b"item_id,title\ni1,Tea\n", headers=headers, timeout=90, trust_env=False
    )
    assert sent.status_code == 200, sent.text
    printed = commands_to_try(service.base_url, api_key, "u0", "i1")
    commands = [line.strip() for line in printed.splitlines() if line.startswith("  ")]
    assert len(commands) == 4
    for command in commands:
        ended = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", command.replace("curl ", "curl -sS --fail --noproxy '*' ")],
            cwd=tmp_path,
            env=clean_environment(),
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert ended.returncode == 0, f"{command}\n{ended.stdout}\n{ended.stderr}"
        assert '"items"' in ended.stdout or '"succeeded"' in ended.stdout, ended.stdout
