"""Excluded items are kept with the key: later files are trained without them until the option is set again."""

from __future__ import annotations

import json
from typing import Any

from recsys.registry.excluded_items import parse
from recsys.registry.records import Job, JobState
from tests.markers import TENSORFLOW
from tests.train.backend import GOOD_CSV, Backend

pytestmark = list(TENSORFLOW)

EXCLUDED = "i1"
APPEND = {"mode": "append"}


def train(backend: Backend, job_id: str, key_id: str, options: dict[str, Any] | None) -> Job:
    backend.pass_s(1)
    name = f"uploads/{job_id}.csv"
    job = Job(job_id, key_id, name, created_at=backend.now, updated_at=backend.now, options=options)
    backend.registry.create_job(job)
    finished = backend.finish(backend.put(name, GOOD_CSV))
    assert finished.state is JobState.SUCCEEDED, finished.problem
    return finished


def excluded_items(backend: Backend, key_id: str) -> tuple[str, ...]:
    return parse(backend.registry.get_key(key_id).excluded_items)


def test_items_stay_excluded_until_the_option_is_set_again(backend: Backend) -> None:
    key_id = backend.add_key().key_id
    n_lines = sum(f",{EXCLUDED}" in line for line in GOOD_CSV.decode().splitlines())
    assert n_lines
    train(backend, "all", key_id, None)
    assert EXCLUDED in backend.load(key_id).items

    added = train(backend, "added", key_id, APPEND | {"exclude_items": [EXCLUDED]})
    assert EXCLUDED not in backend.load(key_id).items  # neither from the file nor from the earlier data
    assert added.report is not None
    assert added.report["skipped"]["excluded-item"]["count"] > 0

    later = train(backend, "later", key_id, APPEND)
    assert EXCLUDED not in backend.load(key_id).items
    assert excluded_items(backend, key_id) == (EXCLUDED,)
    assert later.report is not None
    assert later.report["skipped"]["excluded-item"]["count"] == added.report["skipped"]["excluded-item"]["count"]

    backend.pass_s(1)
    drop = backend.finish(backend.put(f"inbox/{key_id}/orders.csv", GOOD_CSV))
    assert drop.state is JobState.SUCCEEDED
    assert EXCLUDED not in backend.load(key_id).items

    backend.registry.activate_version(key_id, "all.1")
    assert excluded_items(backend, key_id) == ()
    backend.registry.activate_version(key_id, "later.1")
    assert excluded_items(backend, key_id) == (EXCLUDED,)

    train(backend, "cleared", key_id, {"exclude_items": []})
    assert EXCLUDED in backend.load(key_id).items
    assert excluded_items(backend, key_id) == ()


def test_a_sidecar_clears_the_list(backend: Backend) -> None:
    key_id = backend.add_key().key_id
    train(backend, "first", key_id, {"exclude_items": [EXCLUDED]})
    backend.pass_s(1)
    backend.store.create(f"inbox/{key_id}/orders.csv.json", json.dumps({"exclude_items": ""}).encode())
    assert backend.finish(backend.put(f"inbox/{key_id}/orders.csv", GOOD_CSV)).state is JobState.SUCCEEDED
    assert EXCLUDED in backend.load(key_id).items
