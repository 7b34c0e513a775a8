"""Client flows against a deployed stack, over HTTP and through the inbox, wherever the stack runs."""

from __future__ import annotations

import gzip
import json
import secrets
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import httpx

TIMEOUT_S: Final = 600.0
"""A training in an account with a cold image takes one to two minutes; not tuned."""
CSV: Final = {"content-type": "text/csv"}


class FlowFailed(Exception):
    """Raised if the stack did not respond as documented. The message contains the response."""


def orders_csv() -> bytes:
    """Return interactions of two groups of users with disjoint items. One item id contains a slash."""
    lines = ["user_id,item_id,timestamp"]
    for user in range(60):
        stride = (1, 3, 7)[user % 3]
        for step in range(8):
            item = 2 * ((user // 2 + step * stride) % 20) + user % 2
            lines.append(f"u{user},{'a/b' if item == 0 else f'i{item}'},{1_700_000_000 + 3600 * step + user}")
    return "\n".join([*lines, ""]).encode()


def check(response: httpx.Response, status: int) -> httpx.Response:
    """Return the response. Raises `FlowFailed` if it has another status."""
    if response.status_code != status:
        request = f"{response.request.method} {response.request.url.path}"
        raise FlowFailed(f"{request}: expected status {status}, received {response.status_code}: {response.text[:500]}")
    return response


def until(poll: Callable[[], Any], is_done: Callable[[Any], bool], *, timeout_s: float = TIMEOUT_S) -> Any:
    """Call `poll` twice per second until `is_done` accepts its result; return that result."""
    deadline = time.monotonic() + timeout_s
    while not is_done(result := poll()):
        if time.monotonic() > deadline:
            raise FlowFailed(f"Not done after {timeout_s:.0f} s. Last result: {result}")
        time.sleep(0.5)
    return result


@dataclass
class Service:
    """Client of a running service at `url`, which counts its requests."""

    url: str
    n_requests: int = 0

    def request(self, method: str, path: str, **arguments: Any) -> httpx.Response:
        """Send a request, and return the response whatever its status."""
        self.n_requests += 1
        # httpx does not decode escapes in the path, so %2F is sent as it is.
        return httpx.request(method, self.url + path, timeout=TIMEOUT_S, trust_env=False, **arguments)

    def train(self, content: bytes, *, headers: Mapping[str, str] = CSV) -> dict[str, Any]:
        """Upload a file and return the accepted job with its new key."""
        response = check(self.request("POST", "/v1/train", content=content, headers=dict(headers)), 202)
        accepted: dict[str, Any] = response.json()
        return accepted

    def finished_job(self, accepted: Mapping[str, Any]) -> dict[str, Any]:
        """Wait until the job is final and return it."""
        headers = {"x-api-key": accepted["api_key"]}
        job: dict[str, Any] = until(
            lambda: self.request("GET", f"/v1/jobs/{accepted['job_id']}", headers=headers).json(),
            lambda job: job.get("status") not in ("queued", "running"),
        )
        return job

    def succeeded_job(self, accepted: Mapping[str, Any]) -> dict[str, Any]:
        """Wait until the job is final and return it. Raises `FlowFailed` if it has not succeeded."""
        job = self.finished_job(accepted)
        if job["status"] != "succeeded":
            raise FlowFailed(f"The job did not succeed: {job}")
        return job

    def recommend(self, api_key: str, **members: Any) -> httpx.Response:
        """Request recommendations, and return the response whatever its status."""
        return self.request("POST", "/v1/recommendations", json=members, headers={"x-api-key": api_key})


@dataclass(frozen=True)
class Bucket:
    """The stack's bucket."""

    s3: Any
    name: str

    def drop(self, name: str, content: bytes) -> None:
        """Write an object."""
        self.s3.put_object(Bucket=self.name, Key=name, Body=content)

    def receipt(self, name: str) -> dict[str, Any]:
        """Wait until the receipt is written and return it."""

        def read() -> dict[str, Any] | None:
            try:
                document: dict[str, Any] = json.loads(self.s3.get_object(Bucket=self.name, Key=name)["Body"].read())
            except self.s3.exceptions.NoSuchKey:
                return None
            return document

        found: dict[str, Any] = until(read, lambda receipt: receipt is not None)
        return found


def upload(service: Service) -> dict[str, Any]:
    """Upload a CSV and wait for the training. Return the response to the upload, with the model version."""
    accepted = service.train(orders_csv())
    job = service.succeeded_job(accepted)
    return accepted | {"model_version": job["model_version"]}


def upload_and_recommend(service: Service) -> dict[str, Any]:
    """Upload a CSV, wait for the training and request recommendations. Return the response to the upload."""
    accepted = upload(service)
    answer = check(service.recommend(accepted["api_key"], user_id="u1", n=5), 200).json()
    if answer["strategy"] != "personal":
        raise FlowFailed(f"Expected personal recommendations, received: {answer}")
    return accepted


def presigned_upload(service: Service) -> None:
    """Request a presigned form, upload a CSV with it, wait for the training and request recommendations."""
    offer = check(service.request("POST", "/v1/uploads", json={}), 201).json()
    sent = httpx.post(
        offer["url"], data=offer["fields"], files={"file": orders_csv()}, timeout=TIMEOUT_S, trust_env=False
    )
    if not sent.is_success:
        raise FlowFailed(f"The bucket did not accept the form: {sent.status_code} {sent.text[:500]}")
    service.succeeded_job(offer)
    check(service.recommend(offer["api_key"], user_id="u1"), 200)


def drop_and_claim(service: Service, bucket: Bucket) -> str:
    """Drop a CSV, exchange the claim token of its receipt for an API key, request recommendations; return the key."""
    name = f"spring orders {secrets.token_hex(4)}"  # with a space, which S3's events encode
    bucket.drop(f"inbox/{name}.csv.gz", gzip.compress(orders_csv()))
    receipt = bucket.receipt(f"receipts/{name}.gz.json")
    if receipt["status"] != "succeeded":
        raise FlowFailed(f"The drop was not trained on: {receipt}")
    claimed = check(service.request("POST", "/v1/key/claim", json={"claim_token": receipt["claim_token"]}), 201)
    api_key: str = claimed.json()["api_key"]
    check(service.recommend(api_key, user_id="u1"), 200)
    return api_key
