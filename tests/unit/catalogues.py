"""Send items to the service of `http_fakes` and run the job, as the worker does."""

from __future__ import annotations

import json
from functools import partial
from typing import Any

import httpx

from recsys.keys.api_key import ApiKey
from recsys.registry.records import Job
from recsys.settings import Settings
from recsys_train.catalogue_job import CatalogueUpdater, report_of
from recsys_train.data.reader import InvalidData
from tests.unit.http_fakes import Service, key_header

ITEMS = (
    b"item_id,title,category,tags,price,available,brand\n"
    b"A,Green tea,tea,new|sale,4.50,true,Leaf\n"
    b"B,Black tea,tea,sale,3,false,Leaf\n"
    b"C,Blue mug,mugs,,12,true,\n"
    b"X,Old pot,pots,old,20,true,Clay\n"
)
"""The model of `http_fakes` has the items A, B, C and D, and X has nothing in common with them."""


def send(
    service: Service, key: ApiKey | str, content: bytes | list[dict[str, Any]], *, method: str = "PUT", path: str = ""
) -> httpx.Response:
    """Send items and return the response, before the job runs."""
    is_json = isinstance(content, list)
    body = json.dumps(content).encode() if is_json else content
    content_type = b"application/json" if is_json else b"text/csv"
    headers = {"content-type": content_type, **key_header(key)}
    return service.client.request(method, path or "/v1/items", content=body, headers=headers)


def run_job(service: Service, job_id: str) -> Job:
    """Run a catalogue job until it is final."""
    service.now.move(10)
    job = service.registry.get_job(job_id)
    stamp = f"{service.now.timestamp}#{job.object_name}"
    lease = service.registry.claim_job(job_id, owner="test", data_timestamp=stamp, lease_s=60)
    updater = CatalogueUpdater(service.store, service.registry, Settings(), service.now.clock, lambda: None)
    try:
        open_file = partial(service.store.open, job.object_name)
        updater.attempt(lease, service.registry.get_key(job.key_id), open_file)
    except InvalidData as error:
        service.registry.fail_job(lease, error.to_problem(), report_of(error))
    return service.registry.get_job(job_id)


def update(service: Service, key: ApiKey, content: bytes | list[dict[str, Any]] = ITEMS, *, method: str = "PUT") -> Job:
    """Send items, run the job, and return it."""
    response = send(service, key, content, method=method)
    assert response.status_code == 202, response.text
    return run_job(service, response.json()["job_id"])
