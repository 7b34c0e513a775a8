"""Request bodies above the limit, over a real socket: every client gets the problem document, and gets it early."""

from __future__ import annotations

import http.client
import json
import shutil
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest

from tests.unit.http_fakes import running, serving

LIMIT = 64 * 1024
LARGE = b"x" * (8 * 1024 * 1024)


@pytest.fixture
def base_url(tmp_path: Path) -> Iterator[str]:
    with running(tmp_path, max_request_bytes=LIMIT) as service, serving(service.client.app) as url:
        yield url


def chunks() -> Iterator[bytes]:
    for start in range(0, len(LARGE), 65536):
        yield LARGE[start : start + 65536]


def assert_too_large(content_type: str | None, body: bytes) -> None:
    document = json.loads(body)
    assert content_type == "application/problem+json"
    assert (document["status"], document["type"]) == (413, "urn:recsys:problem:payload-too-large")
    assert "POST /v1/uploads" in document["hint"]


@pytest.mark.parametrize("expect", ["", "Expect: 100-continue\r\n"])
def test_declared_size_above_the_limit_is_rejected_before_the_body_is_sent(base_url: str, expect: str) -> None:
    address = urlsplit(base_url)
    with socket.create_connection((address.hostname, address.port), timeout=10) as client:
        head = "POST /v1/train HTTP/1.1\r\nHost: test\r\nContent-Type: text/csv\r\nContent-Length: 1000000000\r\n"
        client.sendall(f"{head}{expect}\r\n".encode())

        response = http.client.HTTPResponse(client)
        response.begin()

        assert response.status == 413  # not 100 Continue
        assert_too_large(response.headers["content-type"], response.read())


@pytest.mark.parametrize("chunked", [False, True])
def test_client_that_sends_the_whole_body_gets_the_problem(base_url: str, *, chunked: bool) -> None:
    response = httpx.post(
        f"{base_url}/v1/train",
        content=chunks() if chunked else LARGE,
        headers={"content-type": "text/csv"},
        trust_env=False,
    )

    assert response.status_code == 413
    assert_too_large(response.headers["content-type"], response.content)


def test_form_above_the_limit_gets_the_problem(base_url: str) -> None:
    response = httpx.post(f"{base_url}/v1/train", files={"file": ("a.csv", LARGE)}, trust_env=False)

    assert response.status_code == 413
    assert_too_large(response.headers["content-type"], response.content)


def test_json_route_has_a_limit_of_its_own(base_url: str) -> None:
    response = httpx.post(f"{base_url}/v1/key/claim", json={"claim_token": "x" * 3_000_000}, trust_env=False)

    assert response.status_code == 413
    assert "2097152 bytes" in response.json()["detail"]


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
@pytest.mark.parametrize(
    "headers",
    [
        [],
        ["Expect:"],
        ["Expect:", "Transfer-Encoding: chunked"],
        ["Expect: 100-continue", "Transfer-Encoding: chunked"],
    ],
    ids=["expect", "no expect", "chunked", "chunked, expect"],
)
def test_curl_gets_the_problem(base_url: str, tmp_path: Path, headers: list[str]) -> None:
    (tmp_path / "large.csv").write_bytes(LARGE)
    options = [argument for header in ["Content-Type: text/csv", *headers] for argument in ("-H", header)]
    curl = ["curl", "-sS", "--noproxy", "*", "-X", "POST", "-T", str(tmp_path / "large.csv"), *options]

    result = subprocess.run(
        [*curl, "-w", "\n%{content_type}", f"{base_url}/v1/train"], capture_output=True, timeout=30, check=False
    )

    body, _, content_type = result.stdout.rpartition(b"\n")
    assert_too_large(content_type.decode(), body)
