"""A bad file does not replace a good model: its version is held, and can be activated. Validations train nothing."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from recsys.model.recommender import recommend
from recsys.registry.records import Job, JobPurpose, JobState
from recsys.registry.table import Address
from recsys_train import build
from recsys_train.fitting.fit import FitResult
from tests.markers import TENSORFLOW
from tests.train.backend import BAD_CSV, GOOD_CSV, Backend

pytestmark = list(TENSORFLOW)

HEADER = b"user_id,item_id,timestamp\n"
N_USERS, N_ITEMS = 200, 60


def rows(n_users: int = N_USERS, *, seed: int = 0) -> list[tuple[str, str, int]]:
    """Return interactions in which users of each third of the shop stay with a third of the items."""
    generator = random.Random(seed)
    found = []
    for user in range(n_users):
        items = range(user % 3 * 20, user % 3 * 20 + 20)
        found += [(f"u{user}", f"i{item}", 10 * at + user) for at, item in enumerate(generator.sample(items, 8))]
    return found


def csv_of(lines: list[tuple[str, str, int]]) -> bytes:
    return HEADER + "".join(f"{user},{item},{at}\n" for user, item, at in lines).encode()


def shuffled_items() -> bytes:
    """Return the good file after its item column was sorted on its own, as happens in a spreadsheet."""
    items = [item for _, item, _ in rows()]
    random.Random(1).shuffle(items)
    return csv_of([(user, item, at) for (user, _, at), item in zip(rows(), items, strict=True)])


GOOD = csv_of(rows())
BAD_FILES: dict[str, tuple[Callable[[], bytes], str]] = {
    "six lines": (lambda: csv_of([*rows()[:5], ("u1", "i1", 1)]), "loses-users"),
    "one item": (
        lambda: csv_of([(user, "i0", at) for user, _, at in rows()] + [("u0", "i1", 1)]),
        "loses-items",
    ),
    "swapped columns": (lambda: csv_of([(item, user, at) for user, item, at in rows()]), "loses-users"),
    "shuffled column": (shuffled_items, "no-better-than-popularity"),
}


def worse_than_popularity(fit: Callable[..., FitResult]) -> Callable[..., FitResult]:
    """Return `fit` with results in which popularity ranks every held-out item first, and the network none."""

    def fit_badly(*arguments: Any, **given: Any) -> FitResult:
        result = fit(*arguments, **given)
        n_users = len(result.test.held_out)
        return replace(result, test=replace(result.test, gains=np.zeros(n_users), popularity_gains=np.ones(n_users)))

    return fit_badly


def answers(backend: Backend, key_id: str) -> list[list[str]]:
    model = backend.load(key_id)
    return [[item.item_id for item in recommend(model, f"u{user}", n=5).items] for user in range(0, N_USERS, 20)]


@pytest.fixture
def key_id(backend: Backend) -> str:
    """Return a key with a good model."""
    key_id = backend.add_key().key_id
    assert backend.finish(backend.upload("good", key_id, GOOD)).state is JobState.SUCCEEDED
    return key_id


@pytest.mark.parametrize("name", BAD_FILES)
def test_bad_file_is_held_until_its_version_is_activated(backend: Backend, key_id: str, name: str) -> None:
    content, reason = BAD_FILES[name]
    before = answers(backend, key_id)

    job = backend.finish(backend.upload("bad", key_id, content()))

    assert job.state is JobState.HELD
    assert reason in [each["code"] for each in job.held_reasons or ()]
    assert job.comparison is not None
    assert job.comparison["current"]["users"] == N_USERS
    assert answers(backend, key_id) == before
    assert f"models/{key_id}/bad.1/manifest.json" in backend.objects("models/")
    backend.registry.activate_version(key_id, "bad.1")
    assert backend.load(key_id).version == "bad.1"


def test_file_of_a_single_item_fails_and_changes_nothing(backend: Backend, key_id: str) -> None:
    before = answers(backend, key_id)
    job = backend.finish(backend.upload("bad", key_id, csv_of([(user, "i0", at) for user, _, at in rows()])))
    assert job.state is JobState.FAILED
    assert job.problem is not None
    assert job.problem.code == "too-few-items"
    assert answers(backend, key_id) == before


def test_file_of_the_next_day_becomes_current(backend: Backend, key_id: str) -> None:
    newer = csv_of([*rows(), *rows(20, seed=1)])
    job = backend.finish(backend.upload("newer", key_id, newer))
    assert (job.state, job.held_reasons) == (JobState.SUCCEEDED, None)
    assert job.comparison is not None
    assert backend.load(key_id).version == "newer.1"


def test_force_publishes_a_version_that_would_be_held(backend: Backend, key_id: str) -> None:
    event = backend.upload("bad", key_id, GOOD_CSV)
    _change_job(backend, "bad", options={"force": True})
    job = backend.finish(event)
    assert (job.state, job.held_reasons) == (JobState.SUCCEEDED, None)
    assert job.comparison is not None
    assert backend.load(key_id).version == "bad.1"


def test_sidecar_forces_a_drop_and_without_it_the_receipt_says_held(backend: Backend, key_id: str) -> None:
    backend.finish(backend.put(f"inbox/{key_id}/small.csv", GOOD_CSV))
    receipt = backend.receipt(f"receipts/{key_id}/small.json")
    assert (receipt["status"], receipt["model_version"]) == ("held", f"{receipt['job_id']}.1")
    assert "loses-users" in [reason["code"] for reason in receipt["held_reasons"]]
    assert receipt["comparison"]["new"]["users"] == 8

    backend.store.replace(f"inbox/{key_id}/forced.csv.json", b'{"force": true}')
    backend.finish(backend.put(f"inbox/{key_id}/forced.csv", GOOD_CSV))
    assert backend.receipt(f"receipts/{key_id}/forced.json")["status"] == "succeeded"


def test_setting_disables_holding(backend: Backend, key_id: str) -> None:
    backend.settings = replace(backend.settings, hold_versions=False)
    assert backend.finish(backend.upload("bad", key_id, GOOD_CSV)).state is JobState.SUCCEEDED


def test_first_version_is_never_held_but_warns(backend: Backend, monkeypatch: pytest.MonkeyPatch) -> None:
    fit = build.fit
    monkeypatch.setattr(build, "fit", lambda *args, **given: replace(fit(*args, **given), lift_interval=(0.5, 0.8)))
    key_id = backend.add_key().key_id
    job = backend.finish(backend.upload("first", key_id, GOOD_CSV))
    assert (job.state, job.comparison, job.held_reasons) == (JobState.SUCCEEDED, None, None)
    assert job.report is not None
    assert "worse-than-popularity" in [warning["code"] for warning in job.report["warnings"]]
    metrics = json.loads(backend.store.read(f"models/{key_id}/first.1/metrics.json"))
    assert metrics["data"] == job.report


def test_damaged_current_version_is_replaced_without_a_comparison(backend: Backend, key_id: str) -> None:
    backend.store.delete(f"models/{key_id}/good.1/serving.npz")
    job = backend.finish(backend.upload("next", key_id, GOOD_CSV))
    assert (job.state, job.comparison) == (JobState.SUCCEEDED, None)


def test_version_is_compared_again_if_another_one_becomes_current(
    backend: Backend, key_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    event = backend.upload("bad", key_id, GOOD_CSV)
    publish = backend.registry.publish_version
    outcomes = []

    def publish_after_another(lease: object, *arguments: object) -> object:
        if not outcomes:
            # The only version with older data than the job's: activated as if it had been published meanwhile.
            _change_key(backend, key_id, current_version="other.1")
        outcomes.append(publish(lease, *arguments))  # type: ignore[arg-type]
        if len(outcomes) == 1:
            _change_key(backend, key_id, current_version="good.1")
        return outcomes[-1]

    monkeypatch.setattr(type(backend.registry), "publish_version", lambda _self, *given: publish_after_another(*given))
    assert backend.finish(event).state is JobState.HELD
    assert outcomes == ["outdated", "held"]


def test_validation_reports_without_training(backend: Backend, key_id: str) -> None:
    fits = backend.fits
    event = backend.upload("check", key_id, GOOD_CSV)
    _change_job(backend, "check", purpose=JobPurpose.VALIDATE)
    job = backend.finish(event)
    assert (job.state, job.version, backend.fits) == (JobState.SUCCEEDED, None, fits)
    assert job.report is not None
    assert (job.report["users"], job.report["items"]) == (8, 6)
    assert backend.load(key_id).version == "good.1"
    assert not [name for name in backend.objects("models/") if "check" in name]


def test_validation_ignores_the_mode(backend: Backend, key_id: str) -> None:
    event = backend.upload("check", key_id, GOOD_CSV)  # without times, so that it could not be added
    _change_job(backend, "check", purpose=JobPurpose.VALIDATE, options={"mode": "append"})
    job = backend.finish(event)
    assert job.state is JobState.SUCCEEDED
    assert job.report is not None
    assert (job.mode, job.report["users"], job.report["appended_to"]) == (None, 8, None)


def test_added_file_that_is_held_becomes_part_of_the_data_when_it_is_activated(
    backend: Backend, key_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(build, "fit", worse_than_popularity(build.fit))
        event = backend.upload("held", key_id, csv_of([("new", "i1", 1), ("new", "i2", 2)]))
        _change_job(backend, "held", options={"mode": "append"})
        assert backend.finish(event).state is JobState.HELD
    backend.pass_s(1)
    backend.registry.activate_version(key_id, "held.1")
    event = backend.upload("next", key_id, csv_of([("newer", "i1", 1), ("newer", "i2", 2)]))
    _change_job(backend, "next", options={"mode": "append"})
    job = backend.finish(event)
    assert (job.state, job.held_reasons) == (JobState.SUCCEEDED, None)
    assert job.report is not None
    assert job.report["appended_to"] == "held.1"
    assert {"u0", "new", "newer"} <= set(backend.load(key_id).users)


def test_validation_of_a_bad_file_fails_with_the_report(backend: Backend, key_id: str) -> None:
    event = backend.upload("check", key_id, BAD_CSV)
    _change_job(backend, "check", purpose=JobPurpose.VALIDATE)
    job = backend.finish(event)
    assert job.state is JobState.FAILED
    assert job.problem is not None
    assert (job.problem.code, job.report is not None) == ("too-many-bad-lines", True)


def test_validation_with_older_data_is_not_superseded(backend: Backend, key_id: str) -> None:
    event = backend.upload("check", key_id, GOOD_CSV)
    _change_job(backend, "check", purpose=JobPurpose.VALIDATE)
    backend.pass_s(60)
    backend.registry.activate_version(key_id, "good.1")
    assert backend.finish(event).state is JobState.SUCCEEDED


def _change_job(backend: Backend, job_id: str, **fields: object) -> None:
    """Change a job as the API would have created it."""
    _change(backend, f"JOB#{job_id}", "JOB", lambda document: replace(Job.from_document(document), **fields))  # type: ignore[arg-type]


def _change_key(backend: Backend, key_id: str, **fields: object) -> None:
    key = backend.registry.get_key(key_id)
    _change(backend, f"KEY#{key_id}", "KEY", lambda _document: replace(key, **fields))  # type: ignore[arg-type]


def _change(backend: Backend, partition: str, sort: str, changed: Callable[..., Job]) -> None:
    table = backend.registry._table
    row = table.get(Address(partition, sort))
    assert table.write([row.changed_to(changed(row.document).to_document())])
