"""The item catalogue over HTTP: sending, updating, reading and deleting it, and its effect on recommendations."""

from __future__ import annotations

import io
import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import httpx
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from recsys.clock import after, utc_now
from recsys.keys.api_key import ApiKey
from recsys.objects import layout
from recsys.objects.files import FileObjectStore
from recsys.objects.store import ObjectInfo
from recsys.registry.records import JobState
from tests.unit.catalogues import ITEMS, run_job, send, update
from tests.unit.http_fakes import Service, assert_problem


def recommended(service: Service, key: ApiKey, **body: Any) -> list[str]:
    return [item["item_id"] for item in answered(service, key, **body)["items"]]


def answered(service: Service, key: ApiKey, **body: Any) -> Any:
    response = service.client.recommend_for(str(key), **{"user_id": "new", "recent_items": ["D"], **body})
    assert response.status_code == 200, response.text
    return response.json()


def attributes(service: Service, key: ApiKey, item_id: str) -> Any:
    response = service.client.get(f"/v1/items/{item_id}", str(key))
    assert response.status_code == 200, response.text
    return response.json()["attributes"]


# -- the catalogue


def test_items_are_queued_as_a_catalogue_job_and_can_be_read_when_it_ended(service: Service) -> None:
    key = service.published_key()

    accepted = send(service, key, ITEMS)
    assert accepted.status_code == 202
    assert (accepted.json()["purpose"], accepted.json()["status"]) == ("catalogue", "queued")
    assert accepted.headers["location"] == f"/v1/jobs/{accepted.json()['job_id']}"
    run_job(service, accepted.json()["job_id"])

    job = service.client.get(accepted.headers["location"], str(key)).json()
    assert (job["status"], job["model_version"], job["report"]["items"]) == ("succeeded", None, 4)
    assert attributes(service, key, "A") == {
        "title": "Green tea",
        "category": "tea",
        "tags": ["new", "sale"],
        "price": 4.5,
        "available": True,
        "brand": "Leaf",
    }
    assert attributes(service, key, "C")["brand"] is None


def test_a_catalogue_can_be_sent_before_the_first_model(service: Service) -> None:
    key = service.new_key()
    update(service, key)
    assert attributes(service, key, "X")["title"] == "Old pot"


@pytest.mark.slow
def test_the_catalogue_is_listed_in_pages(service: Service) -> None:
    key = service.published_key()
    job = update(service, key)

    first = service.client.get("/v1/items?limit=3", str(key)).json()
    last = service.client.get(f"/v1/items?limit=3&cursor={first['next']}", str(key)).json()

    assert [item["item_id"] for item in first["items"] + last["items"]] == ["A", "B", "C", "X"]
    assert (first["total"], first["catalogue_version"], last["next"]) == (4, job.version, None)
    assert {"name": "price", "kind": "number"} in first["columns"]
    assert service.client.get("/v1/items?limit=3&cursor=7", str(key)).json()["items"] == []


def test_a_patch_changes_only_what_it_mentions(service: Service) -> None:
    key = service.published_key()
    update(service, key)
    before = attributes(service, key, "A")

    patch = [{"item_id": "A", "price": 5}, {"item_id": "B", "title": None, "available": True}, {"item_id": "N"}]
    job = update(service, key, patch, method="PATCH")

    assert job.report is not None
    assert (job.report["added"], job.report["updated"], job.report["items"]) == (1, 2, 5)
    assert attributes(service, key, "A") == before | {"price": 5}
    assert (attributes(service, key, "B")["title"], attributes(service, key, "B")["available"]) == (None, True)
    assert attributes(service, key, "N") == dict.fromkeys(before) | {"tags": []}


@pytest.mark.slow
def test_a_blank_field_of_a_csv_changes_nothing(service: Service) -> None:
    key = service.published_key()
    update(service, key)
    update(service, key, b"item_id,price,title\nA,,White tea\n", method="PATCH")
    assert attributes(service, key, "A")["price"] == 4.5
    assert attributes(service, key, "A")["title"] == "White tea"


@pytest.mark.slow
def test_replacing_the_catalogue_removes_the_items_that_are_left_out(service: Service) -> None:
    key = service.published_key()
    update(service, key)
    update(service, key, b"item_id,title\nA,Tea\n")
    assert attributes(service, key, "A") == {"title": "Tea"}
    assert_problem(service.client.get("/v1/items/B", str(key)), 404, "item-not-found")


@pytest.mark.slow
def test_json_lines_and_parquet_are_read_like_csv(service: Service) -> None:
    key = service.published_key()
    records = [{"item_id": "A", "title": "Tea", "tags": ["x"], "price": 1.5, "available": True}]
    update(service, key, b'{"item_id": "A", "title": "Tea", "tags": ["x"], "price": 1.5, "available": true}\n')
    from_lines = attributes(service, key, "A")
    parquet = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(records), parquet)
    update(service, key, parquet.getvalue())
    assert attributes(service, key, "A") == from_lines == {k: v for k, v in records[0].items() if k != "item_id"}


def test_an_unusable_file_fails_its_job_and_keeps_the_catalogue(service: Service) -> None:
    key = service.published_key()
    update(service, key)
    job = update(service, key, b"item_id,price\nA,cheap\nB,2\n")
    assert job.state is JobState.FAILED
    assert job.problem is not None
    assert job.problem.code == "too-many-bad-lines"
    assert job.problem.errors[0].line == 2
    assert job.problem.hint == "Fix the bad lines and send the file again. `errors` lists them."
    assert attributes(service, key, "A")["price"] == 4.5


def test_a_deleted_catalogue_is_gone(service: Service) -> None:
    key = service.published_key()
    update(service, key)
    assert service.client.delete("/v1/items", str(key)).status_code == 204
    service.now.move(5)
    assert_problem(service.client.get("/v1/items", str(key)), 409, "no-catalogue")
    assert recommended(service, key) == ["A", "B", "C"]


@pytest.mark.slow
def test_items_that_were_sent_before_a_deletion_do_not_bring_the_catalogue_back(service: Service) -> None:
    key = service.published_key()
    job_id = send(service, key, ITEMS).json()["job_id"]
    stamp = f"{service.now.timestamp}#"
    service.now.move(1)
    service.client.delete("/v1/items", str(key))
    service.registry.claim_job(job_id, owner="test", data_timestamp=stamp, lease_s=0)

    assert run_job(service, job_id).state is JobState.SUPERSEDED
    assert service.registry.get_key(key.key_id).catalogue_version is None


@pytest.mark.slow
def test_an_older_replacement_does_not_undo_a_newer_one(service: Service) -> None:
    key = service.published_key()
    late = send(service, key, b"item_id,title\nA,old\n").json()["job_id"]
    service.registry.claim_job(late, owner="test", data_timestamp=f"{service.now.timestamp}#", lease_s=0)
    service.now.move(1)
    update(service, key, b"item_id,title\nA,new\n")
    assert run_job(service, late).state is JobState.SUPERSEDED
    assert attributes(service, key, "A")["title"] == "new"


@pytest.mark.slow
def test_replaced_catalogues_are_deleted_ten_minutes_later(service: Service) -> None:
    key = service.published_key()

    def files() -> list[str]:
        return [name for name in service.stored() if name.startswith(layout.catalogue_prefix(key.key_id))]

    update(service, key)
    update(service, key)
    assert len(files()) == 2
    time_of_store = 365 * 86400  # files have the time of the machine, the service that of the test
    service.now.move(10 * time_of_store)
    job = update(service, key)
    assert files() == [f"{layout.catalogue_prefix(key.key_id)}{job.version}/items.npz"]


class _AgedStore(FileObjectStore):
    """A store in which the objects that were created first arrived a day earlier than the rest."""

    aged: frozenset[str] = frozenset()

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        for info in super().list(prefix):
            yield replace(info, arrived_at=after(info.arrived_at, -86_400)) if info.name in self.aged else info


@pytest.mark.slow
def test_an_old_catalogue_is_kept_for_ten_minutes_after_it_was_replaced(service: Service) -> None:
    key = service.published_key()
    service.now.timestamp = utc_now()
    first = update(service, key)
    service.store = store = _AgedStore(service.folder / "objects")
    name = f"{layout.catalogue_prefix(key.key_id)}{first.version}/items.npz"
    store.aged = frozenset({name})

    update(service, key)

    assert name in service.stored()


@pytest.mark.slow
def test_a_publishable_key_reads_single_items_but_not_the_list(service: Service) -> None:
    key = service.published_key()
    update(service, key)
    body = {"name": "page", "scope": "recommend"}
    publishable = service.client.post("/v1/keys", str(key), json=body).json()["api_key"]
    service.now.move(5)
    assert service.client.get("/v1/items/A", publishable).status_code == 200
    assert_problem(service.client.get("/v1/items", publishable), 403, "insufficient-scope")
    assert_problem(send(service, publishable, ITEMS), 403, "insufficient-scope")


# -- recommendations


def test_unavailable_items_are_left_out_by_default(service: Service) -> None:
    key = service.published_key()
    update(service, key)
    assert recommended(service, key) == ["A", "C"]
    assert recommended(service, key, include_unavailable=True) == ["A", "B", "C"]
    popular = service.client.get("/v1/popular", str(key)).json()
    assert [item["item_id"] for item in popular["items"]] == ["C", "A", "D"]
    batch = service.client.post("/v1/recommendations/batch", str(key), json={"requests": [{"user_id": "u2"}]}).json()
    assert [item["item_id"] for item in batch["results"][0]["items"]] == ["A", "D"]


@pytest.mark.slow
def test_a_patch_of_availability_takes_effect_with_the_next_key_record(service: Service) -> None:
    key = service.published_key()
    update(service, key)
    assert recommended(service, key) == ["A", "C"]
    update(service, key, [{"item_id": "A", "available": False}], method="PATCH")
    recommended(service, key)  # starts to load the update

    deadline = time.monotonic() + 5
    while recommended(service, key) != ["C"]:
        assert time.monotonic() < deadline


def test_fields_are_returned_with_each_item(service: Service) -> None:
    key = service.published_key()
    update(service, key)
    items = answered(service, key, fields=["title", "price"], exclude_seen=False)["items"]
    assert [item["attributes"] for item in items] == [
        {"title": "Green tea", "price": 4.5},
        {"title": "Blue mug", "price": 12},
        {"title": None, "price": None},
    ]
    similar = service.client.get("/v1/items/D/similar?fields=title", str(key)).json()
    assert similar["items"][0]["attributes"] == {"title": "Green tea"}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("price < 5", ["A"]),
        ("price < 20 and category in ['tea', 'mugs']", ["A", "C"]),
        ("'sale' in tags", ["A"]),
        ("brand == null", ["C", "D"]),
        ("not price < 5", ["C", "D"]),
    ],
)
def test_only_items_that_fulfil_the_filter_are_recommended(
    service: Service, expression: str, expected: list[str]
) -> None:
    key = service.published_key()
    update(service, key)
    assert recommended(service, key, filter=expression, exclude_seen=False) == expected
    popular = service.client.request(
        "GET", "/v1/popular", params={"filter": expression}, headers={"x-api-key": str(key)}
    ).json()
    assert sorted(item["item_id"] for item in popular["items"]) == expected


def test_at_most_n_items_of_a_category_are_recommended(service: Service) -> None:
    key = service.published_key()
    update(service, key)
    assert recommended(service, key, max_per={"category": 1}, include_unavailable=True) == ["A", "C"]
    similar = service.client.get("/v1/items/D/similar?max_per=category:1&include_unavailable=true", str(key)).json()
    assert [item["item_id"] for item in similar["items"]] == ["A", "C"]


def test_reasons_are_the_items_of_the_history(service: Service) -> None:
    key = service.published_key()
    update(service, key)
    item = answered(service, key, recent_items=["C", "X"], explain=True, n=1)["items"][0]
    assert item["reasons"] == [{"item_id": "C", "contribution": 3.0, "title": "Blue mug"}]


@pytest.mark.slow
def test_options_of_a_batch_are_defaults_for_its_entries(service: Service) -> None:
    key = service.published_key()
    update(service, key)
    body = {
        "requests": [{"user_id": "u1"}, {"user_id": "u1", "filter": "price > 5", "fields": []}],
        "fields": ["title"],
    }
    results = service.client.post("/v1/recommendations/batch", str(key), json=body).json()["results"]
    assert [item["attributes"]["title"] for item in results[0]["items"]] == ["Blue mug", None]
    assert [sorted(item) for item in results[1]["items"]] == [["item_id", "rank", "score"]]


def test_options_that_need_a_catalogue_are_rejected_without_one(service: Service) -> None:
    key = service.published_key()
    for body in ({"fields": ["title"]}, {"filter": "price < 3"}, {"max_per": {"category": 2}}):
        assert_problem(service.client.recommend_for(str(key), user_id="u1", **body), 409, "no-catalogue")
    assert recommended(service, key, include_unavailable=True, diversity=0.5, explain=True)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("body", "code", "text"),
    [
        ({"filter": "price <"}, "invalid-filter", "position 8"),
        ({"filter": "colour == 'red'"}, "invalid-filter", "position 1: expected a column of the catalogue: title"),
        ({"filter": "price == 'low'"}, "invalid-filter", "number column"),
        ({"filter": "((((price < 3)"}, "invalid-filter", "position 15"),
        ({"fields": ["colour"]}, "unknown-attribute", "'colour'"),
        ({"max_per": {"tags": 2}}, "invalid-request", "column of tags"),
        ({"max_per": {"category": 0}}, "invalid-request", ""),
        ({"diversity": 2}, "invalid-request", ""),
        ({"filter": "x" * 2001}, "invalid-request", ""),
    ],
)
def test_options_that_do_not_fit_the_catalogue_are_rejected(
    service: Service, body: dict[str, Any], code: str, text: str
) -> None:
    key = service.published_key()
    update(service, key)
    document = assert_problem(service.client.recommend_for(str(key), user_id="u1", **body), 422, code)
    assert text in document["detail"]


@pytest.mark.slow
@pytest.mark.parametrize(
    "expression",
    ["price < <", "(" * 990 + "available" + ")" * 990, "not " * 490 + "available", "price < 1 or " * 150 + "price < 1"],
    ids=["malformed", "parentheses", "negations", "comparisons"],
)
def test_a_malformed_deep_or_huge_filter_is_rejected_within_50_ms(service: Service, expression: str) -> None:
    key = service.published_key()
    update(service, key)

    def reject() -> httpx.Response:
        return service.client.recommend_for(str(key), user_id="u1", filter=expression)

    assert_problem(reject(), 422, "invalid-filter")
    durations = []
    for _ in range(3):
        started = time.perf_counter()
        reject()
        durations.append(time.perf_counter() - started)
    assert min(durations) < 0.05


@pytest.mark.slow
def test_a_damaged_catalogue_is_not_used(service: Service) -> None:
    key = service.published_key()
    job = update(service, key)
    name = f"{layout.catalogue_prefix(key.key_id)}{job.version}/items.npz"
    service.store.replace(name, service.store.read(name)[:-1] + b"x")
    assert_problem(service.client.recommend(str(key)), 503, "artifact-damaged")
