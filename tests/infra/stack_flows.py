"""Client flows against a deployed stack, over HTTP and through the inbox, wherever the stack runs.

While `make local-aws` runs,

    . .build/local-aws/env.sh && python -m tests.infra.stack_flows

prints the status of every route. `--compare-with URL` adds a column for a second service, such as `recsys serve`.
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
import random
import secrets
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import boto3
import httpx

from verify_aws.flows import CSV, Bucket, Service, orders_csv, presigned_upload, until, upload_and_recommend

MIB: Final = 1024 * 1024
_GZIP: Final = {"content-type": "application/gzip"}


def large_csv(size_bytes: int) -> bytes:
    """Return a CSV with random interactions of about `size_bytes` bytes."""
    generator = random.Random(0)
    lines, length = ["user_id,item_id"], 0
    while length < size_bytes:
        lines.append(f"user-{generator.randrange(5000)},item-{generator.randrange(2000)}")
        length += len(lines[-1]) + 1
    return ("\n".join(lines)[:size_bytes].rpartition("\n")[0] + "\n").encode()


# -- the flows


def send_items(service: Service, shop: Mapping[str, Any]) -> None:
    """Send an item catalogue, wait until it is current and request recommendations with titles."""
    key = {"x-api-key": shop["api_key"]}
    sent = service.request("PUT", "/v1/items", content=b"item_id,title\ni1,Tea\ni3,Mug\n", headers={**CSV, **key})
    assert sent.status_code == 202, sent.text
    job = service.finished_job({"api_key": shop["api_key"], "job_id": sent.json()["job_id"]})
    assert job["status"] == "succeeded", job
    # `recommend` may use the key's record without the catalogue for a few seconds.
    until(lambda: service.request("GET", "/v1/items", headers=key).status_code, lambda status: status == 200)
    described = until(
        lambda: service.recommend(shop["api_key"], user_id="u1", fields=["title"]),
        lambda response: response.status_code == 200,
    )
    assert all("title" in item["attributes"] for item in described.json()["items"]), described.text


def invalid_drop(bucket: Bucket) -> None:
    """Drop a CSV with too many invalid lines and check that the receipt states the reason."""
    bucket.drop("inbox/bad.csv", b"user_id,item_id\nu1,A\n,B\nu2\n")
    receipt = bucket.receipt("receipts/bad.json")
    assert (receipt["status"], receipt["problem"]["code"]) == ("failed", "too-many-bad-lines"), receipt
    assert "claim_token" not in receipt


# -- every route


@dataclass(frozen=True)
class Case:
    """A request. `route` is the route as in the OpenAPI document, or a description in brackets for a variant of it."""

    route: str
    method: str
    path: str
    arguments: dict[str, Any] = field(default_factory=dict)


def cases(shop: Mapping[str, Any], claim_token: str) -> Iterator[Case]:
    """Yield every route of the OpenAPI document, then all body formats and errors. The last cases replace the key."""
    key = {"x-api-key": shop["api_key"]}
    yield Case("GET /health/live", "GET", "/health/live")
    yield Case("GET /health/ready", "GET", "/health/ready")
    yield Case("GET /openapi.json", "GET", "/openapi.json")
    yield Case("GET /docs", "GET", "/docs")
    yield Case("GET /console", "GET", "/console")
    yield Case("[a browser at /]", "GET", "/", {"headers": {"accept": "text/html"}})
    yield Case("GET /v1/jobs/{job_id}", "GET", f"/v1/jobs/{shop['job_id']}", {"headers": key})
    query = {"json": {"user_id": "u1", "n": 3}, "headers": key}
    yield Case("POST /v1/recommendations", "POST", "/v1/recommendations", query)
    batch = {"json": {"requests": [{"user_id": "u1"}, {"recent_items": ["i1"]}]}, "headers": key}
    yield Case("POST /v1/recommendations/batch", "POST", "/v1/recommendations/batch", batch)
    yield Case("GET /v1/items/{item_id}/similar", "GET", "/v1/items/i1/similar?n=3", {"headers": key})
    yield Case("[an item id with %2F]", "GET", "/v1/items/a%2Fb/similar?n=3", {"headers": key})
    yield Case("[an item id with a slash]", "GET", "/v1/items/a/b/similar", {"headers": key})
    yield Case("[an unknown item]", "GET", "/v1/items/none/similar", {"headers": key})
    yield Case("GET /v1/popular", "GET", "/v1/popular", {"headers": key})
    yield Case("GET /v1/models", "GET", "/v1/models", {"headers": key})
    activate = f"/v1/models/{shop['model_version']}/activate"
    yield Case("POST /v1/models/{version}/activate", "POST", activate, {"headers": key})
    pin = f"/v1/models/{shop['model_version']}/pin"
    yield Case("POST /v1/models/{version}/pin", "POST", pin, {"headers": key})
    yield Case("DELETE /v1/models/{version}/pin", "DELETE", pin, {"headers": key})
    yield Case("GET /v1/items", "GET", "/v1/items", {"headers": key})
    yield Case("GET /v1/items/{item_id}", "GET", "/v1/items/i1", {"headers": key})
    yield Case("DELETE /v1/items", "DELETE", "/v1/items", {"headers": key})
    yield Case("DELETE /v1/users/{user_id}", "DELETE", "/v1/users/u59", {"headers": key})
    yield Case("GET /v1/key", "GET", "/v1/key", {"headers": key})
    yield Case("GET /v1/usage", "GET", "/v1/usage", {"headers": key})
    yield Case("POST /v1/key/claim", "POST", "/v1/key/claim", {"json": {"claim_token": claim_token}})
    yield Case("[a used claim token]", "POST", "/v1/key/claim", {"json": {"claim_token": claim_token}})
    yield from body_cases(key)
    yield from error_cases(key)
    yield Case("POST /v1/key/rotate", "POST", "/v1/key/rotate", {"json": {"overlap_s": 0}, "headers": key})
    yield Case("[a rotated key]", "GET", "/v1/key", {"headers": key})


def body_cases(key: Mapping[str, str]) -> Iterator[Case]:
    """Yield uploads in every body format that `POST /v1/train` documents."""
    content, packed = orders_csv(), gzip.compress(orders_csv())
    yield Case("POST /v1/train", "POST", "/v1/train", {"content": content, "headers": CSV})
    yield Case("[multipart]", "POST", "/v1/train", {"files": {"file": ("orders.csv", content)}})
    yield Case("[multipart, gzip]", "POST", "/v1/train", {"files": {"file": ("orders.csv.gz", packed)}})
    yield Case("[application/gzip]", "POST", "/v1/train", {"content": packed, "headers": _GZIP})
    yield Case("[gzip as text/csv]", "POST", "/v1/train", {"content": packed, "headers": CSV})
    form = {"files": {"file": ("orders.csv", large_csv(4 * MIB - 1024))}}
    yield Case("[a file of 4 MiB]", "POST", "/v1/train", form)
    yield Case("POST /v1/validate", "POST", "/v1/validate", {"content": content, "headers": {**CSV, **key}})
    yield Case("POST /v1/uploads", "POST", "/v1/uploads", {"json": {}})
    items = {"content": b"item_id,title\ni1,Tea\n", "headers": {**CSV, **key}}
    yield Case("PUT /v1/items", "PUT", "/v1/items", items)
    yield Case("PATCH /v1/items", "PATCH", "/v1/items", items)
    yield Case("[training with a key]", "POST", "/v1/train", {"content": content, "headers": {**CSV, **key}})


def error_cases(key: Mapping[str, str]) -> Iterator[Case]:
    """Yield requests that the service rejects."""
    yield Case("[no key]", "POST", "/v1/recommendations", {"json": {"user_id": "u1"}})
    yield Case("[a key with a typo]", "GET", "/v1/key", {"headers": {"x-api-key": key["x-api-key"][:-1] + "_"}})
    yield Case("[truncated JSON]", "POST", "/v1/recommendations", {"content": b"{", "headers": _json(key)})
    yield Case("[a number as user_id]", "POST", "/v1/recommendations", {"json": {"user_id": 1}, "headers": key})
    yield Case("[a wrong method]", "GET", "/v1/recommendations", {"headers": key})
    yield Case("[a wrong method, function api]", "GET", "/v1/train", {"headers": key})
    yield Case("[an unknown path]", "GET", "/v1/nothing")
    yield Case("[an unknown job]", "GET", "/v1/jobs/none", {"headers": key})
    yield Case("[an unknown version]", "POST", "/v1/models/none/activate", {"headers": key})
    yield Case("[an empty file]", "POST", "/v1/train", {"content": b"", "headers": CSV})
    yield Case("[JSON as a file]", "POST", "/v1/train", {"content": b"{}", "headers": _json({})})


def _json(headers: Mapping[str, str]) -> dict[str, str]:
    return {**headers, "content-type": "application/json"}


def status_of(response: httpx.Response) -> str:
    """Return the status, followed by the problem code if the response is a problem document."""
    is_problem = response.headers.get("content-type", "").startswith("application/problem+json")
    return f"{response.status_code}{' ' + response.json()['type'].rpartition(':')[2] if is_problem else ''}"


EXPECTED: Final = {
    "GET /health/live": "200",
    "GET /health/ready": "200",
    "GET /openapi.json": "200",
    "GET /docs": "200",
    "GET /console": "200",
    "[a browser at /]": "303",
    "GET /v1/jobs/{job_id}": "200",
    "POST /v1/recommendations": "200",
    "POST /v1/recommendations/batch": "200",
    "GET /v1/items/{item_id}/similar": "200",
    "[an item id with %2F]": "200",
    "[an item id with a slash]": "200",
    "[an unknown item]": "404 item-not-found",
    "GET /v1/popular": "200",
    "GET /v1/models": "200",
    "POST /v1/models/{version}/activate": "200",
    "POST /v1/models/{version}/pin": "200",
    "DELETE /v1/models/{version}/pin": "200",
    "GET /v1/items": "200",
    "GET /v1/items/{item_id}": "200",
    "DELETE /v1/items": "204",
    "DELETE /v1/users/{user_id}": "200",
    "GET /v1/key": "200",
    "GET /v1/usage": "200",
    "POST /v1/key/claim": "201",
    "[a used claim token]": "410 claim-gone",
    "POST /v1/train": "202",
    "[multipart]": "202",
    "[multipart, gzip]": "202",
    "[application/gzip]": "202",
    "[gzip as text/csv]": "415 unsupported-media-type",
    "[a file of 4 MiB]": "202",
    "POST /v1/validate": "202",
    "POST /v1/uploads": "201",
    "PUT /v1/items": "202",
    "PATCH /v1/items": "202",
    "[training with a key]": "202",
    "[no key]": "401 invalid-api-key",
    "[a key with a typo]": "401 invalid-api-key",
    "[truncated JSON]": "422 invalid-request",
    "[a number as user_id]": "422 invalid-request",
    "[a wrong method]": "405 method-not-allowed",
    "[a wrong method, function api]": "405 method-not-allowed",
    "[an unknown path]": "404 not-found",
    "[an unknown job]": "404 job-not-found",
    "[an unknown version]": "404 version-not-found",
    "[an empty file]": "422 empty-upload",
    "[JSON as a file]": "415 unsupported-media-type",
    "POST /v1/key/rotate": "200",
    "[a rotated key]": "401 invalid-api-key",
    "POST /v1/keys": "201",
    "GET /v1/keys": "200",
    "DELETE /v1/keys/{scoped_key_id}": "204",
    "GET /v1/audit": "200",
    "DELETE /v1/key": "204",
}
"""Expected status of each case on AWS."""


def statuses(service: Service, shop: Mapping[str, Any], claim_token: str) -> dict[str, str]:
    """Return the status of every case, and of using and revoking the key that `claim_token` was exchanged for."""
    found, claimed_key = {}, ""
    for case in cases(shop, claim_token):
        response = service.request(case.method, case.path, **case.arguments)
        found[case.route] = status_of(response)
        if case.route == "POST /v1/key/claim" and response.status_code == 201:
            claimed_key = response.json()["api_key"]
    key = {"x-api-key": claimed_key}
    created = service.request("POST", "/v1/keys", headers=key, json={"name": "shop page", "scope": "recommend"})
    listed = service.request("GET", "/v1/keys", headers=key)
    deleted = service.request("DELETE", f"/v1/keys/{created.json()['scoped_key_id']}", headers=key)
    audited = service.request("GET", "/v1/audit", headers=key)
    revoked = service.request("DELETE", "/v1/key", headers=key)
    return found | {
        "POST /v1/keys": status_of(created),
        "GET /v1/keys": status_of(listed),
        "DELETE /v1/keys/{scoped_key_id}": status_of(deleted),
        "GET /v1/audit": status_of(audited),
        "DELETE /v1/key": status_of(revoked),
    }


def main() -> None:
    """Print the status of every route as a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--compare-with", help="URL of a second service", metavar="URL")
    parser.add_argument("--inbox", help="data directory of the second service, used as its bucket", metavar="DIR")
    arguments = parser.parse_args()
    bucket = Bucket(boto3.client("s3"), os.environ["STACK_BUCKET"])
    service = Service(os.environ["STACK_URL"])
    columns = [_column(service, bucket)]
    if arguments.compare_with:
        columns.append(_column(Service(arguments.compare_with), _Directory(arguments.inbox)))
    sys.stdout.write(
        f"| request | status |{' status of the second service |' * (len(columns) - 1)}\n|---|{'---|' * len(columns)}\n"
    )
    for route in columns[0]:
        cells = [f"`{route}`" if route[0].isupper() else route.strip("[]"), *(column[route] for column in columns)]
        sys.stdout.write(f"| {' | '.join(cells)} |\n")


def _column(service: Service, bucket: Any) -> dict[str, str]:
    shop = upload_and_recommend(service)
    send_items(service, shop)
    presigned_upload(service)
    name = f"table-{secrets.token_hex(4)}"
    bucket.drop(f"inbox/{name}.csv", orders_csv())
    token = bucket.receipt(f"receipts/{name}.json")["claim_token"]
    return statuses(service, shop, token)


class _Directory:
    """The data directory of `recsys serve`, with the methods of `Bucket`."""

    def __init__(self, path: str) -> None:
        self._path = Path(path)

    def drop(self, name: str, content: bytes) -> None:
        (self._path / name).write_bytes(content)

    def receipt(self, name: str) -> dict[str, Any]:
        until((self._path / name).exists, bool)
        document: dict[str, Any] = json.loads((self._path / name).read_bytes())
        return document


if __name__ == "__main__":
    main()
