"""From a file to recommendations through the Lambda handlers, on moto and on MiniStack.

The functions run in Lambda's runtime client, and S3 notifies SQS of new objects; see `lambda_flow`. The queue has the
deployment's visibility timeout of 15 minutes: a message that returns within seconds was returned by the function.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote_plus

import httpx
import pytest

from recsys.clock import utc_now
from recsys.keys.api_key import ApiKey
from recsys.registry.dynamodb import DynamoTable
from recsys.registry.key_record import KeyRecord
from recsys.registry.registry import Registry
from recsys.registry.turns import ANONYMOUS
from tests.emulators import MINISTACK, Emulator
from tests.integration.lambda_flow import (
    EVENTS,
    MAX_UPLOAD_BYTES,
    Deployment,
    deployed,
    eventually,
    items_of,
    two_tastes_csv,
)

pytestmark = pytest.mark.slow

CSV = two_tastes_csv()
SMALL_CSV = two_tastes_csv(n_users=12, n_items=12, n_each=4)
BAD_CSV = b"user_id,item_id\nu1,A\nu1,\nu2\n"
VERSION_FILES = {"interactions.parquet", "manifest.json", "mappings.json", "metrics.json", "model.h5", "serving.npz"}


@dataclass(frozen=True)
class Shop:
    """A key whose model is trained."""

    api_key: str
    key_id: str
    job_id: str


@pytest.fixture(
    scope="module",
    params=[
        pytest.param("moto", marks=pytest.mark.xdist_group("lambda-flow")),
        pytest.param("ministack", marks=MINISTACK),
    ],
)
def stage(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    emulator: Emulator = request.getfixturevalue(request.param)
    with deployed(emulator, tmp_path_factory.mktemp(request.param)) as deployment:
        # S3 sends a test event for each notification that is configured.
        assert deployment.dispatch_arrivals()
        assert deployment.deliver_all() == []
        assert deployment.rows() == []
        yield deployment


@pytest.fixture
def service(stage: Deployment) -> Deployment:
    """Return the deployment, without the messages of earlier tests."""
    while (message := stage.receive(wait_s=0)) is not None:
        stage.discard(message)
    stage.forget_turns()
    return stage


@pytest.fixture(scope="module")
def shop(stage: Deployment) -> Shop:
    accepted = stage.send_csv(CSV)
    assert [delivery.failed for delivery in stage.deliver_all()] == [False]
    return Shop(accepted["api_key"], accepted["key_id"], accepted["job_id"])


def key_id_of(api_key: str) -> str:
    """Return the public part of a key."""
    return ApiKey.parse(api_key).key_id


def code_of(problem: dict[str, Any]) -> str:
    """Return the code of a problem, which its type ends in."""
    return str(problem["type"]).rpartition(":")[2]


def versions(service: Deployment, api_key: str) -> list[str]:
    """Return the published versions, newest first."""
    response = service.request("GET", "/v1/models", api_key=api_key)
    return [model["version"] for model in response.json["models"]]


# -- upload → queue → train → recommend


def test_upload_is_trained_and_published(service: Deployment, shop: Shop) -> None:
    job = service.job(shop.job_id, shop.api_key)
    assert (job["status"], job["model_version"], job["problem"]) == ("succeeded", f"{shop.job_id}.1", None)
    assert (job["report"]["users"], job["report"]["items"], job["report"]["lines"]) == (60, 40, 480)
    assert {"quality", "popularity_baseline"} <= set(job["metrics"])
    prefix = f"models/{shop.key_id}/{shop.job_id}.1/"
    assert {name.removeprefix(prefix) for name in service.object_names(f"models/{shop.key_id}/")} == VERSION_FILES


def test_recommendations_match_the_users_taste_and_are_not_in_the_history(service: Deployment, shop: Shop) -> None:
    n_of_the_taste = 0
    for user in range(10):
        response = service.recommend(shop.api_key, f"u{user}", n=5)
        assert (response["strategy"], response["model_version"]) == ("personal", f"{shop.job_id}.1")
        items = [item["item_id"] for item in response["items"]]
        assert len(set(items)) == 5
        assert not set(items) & items_of(CSV, f"u{user}")
        n_of_the_taste += sum(int(item[1:]) % 2 == user % 2 for item in items)
    assert n_of_the_taste > 40  # of 50; random items would give 19, since the history contains 8 of the 20


def test_unknown_user_gets_popular_items(service: Deployment, shop: Shop) -> None:
    response = service.recommend(shop.api_key, "unknown-user", n=3)
    assert (response["strategy"], len(response["items"])) == ("popular", 3)


def test_every_kind_of_query_uses_the_same_model(service: Deployment, shop: Shop) -> None:
    basket = service.send_json("/v1/recommendations", {"recent_items": ["i0", "i2"], "n": 5}, api_key=shop.api_key)
    assert (basket.status, basket.json["strategy"]) == (200, "session")
    requests = [{"user_id": "u1"}, {"recent_items": ["i0", "i2"]}]
    batch = service.send_json("/v1/recommendations/batch", {"requests": requests, "n": 5}, api_key=shop.api_key)
    assert batch.json["results"] == [service.recommend(shop.api_key, "u1", n=5), basket.json]
    similar = service.request("GET", "/v1/items/i0/similar", api_key=shop.api_key, route="/v1/items/{proxy+}")
    popular = service.request("GET", "/v1/popular", api_key=shop.api_key)
    for response in (batch, similar, popular):
        assert (response.status, response.json["model_version"]) == (200, f"{shop.job_id}.1")
    assert "i0" not in [item["item_id"] for item in similar.json["items"]]
    assert len(popular.json["items"]) == 10


def test_key_works_once_its_first_model_is_published(service: Deployment) -> None:
    api_key = service.send_csv(SMALL_CSV)["api_key"]
    early = service.send_json("/v1/recommendations", {"user_id": "u1"}, api_key=api_key)
    assert (early.status, code_of(early.json)) == (409, "model-not-ready")
    assert early.headers["content-type"] == "application/problem+json"
    assert int(early.headers["retry-after"]) > 0
    service.deliver_all()
    assert service.recommend(api_key, "u1")["strategy"] == "personal"


def test_file_sent_to_a_presigned_form_is_trained_on(service: Deployment) -> None:
    offer = service.send_json("/v1/uploads", {}).json
    assert service.deliver_all() == []
    sent = httpx.post(offer["url"], data=offer["fields"], files={"file": SMALL_CSV}, trust_env=False)
    assert sent.status_code == 204, sent.text
    (delivery,) = service.deliver_all()
    assert delivery.body["Records"][0]["eventName"] == "ObjectCreated:Post"
    assert service.job(offer["job_id"], offer["api_key"])["status"] == "succeeded"
    assert service.recommend(offer["api_key"], "u1")["strategy"] == "personal"


def test_presigned_form_rejects_a_file_over_its_limit(service: Deployment, request: pytest.FixtureRequest) -> None:
    if request.node.callspec.params["stage"] == "moto":
        pytest.skip("moto accepts uploads that AWS rejects.")
    offer = service.send_json("/v1/uploads", {}).json
    assert offer["max_bytes"] == MAX_UPLOAD_BYTES
    too_large = b"x" * (MAX_UPLOAD_BYTES + 1)
    sent = httpx.post(offer["url"], data=offer["fields"], files={"file": too_large}, trust_env=False)
    assert (sent.status_code, "EntityTooLarge" in sent.text) == (400, True)
    assert service.deliver_all() == []
    assert service.job(offer["job_id"], offer["api_key"])["status"] == "queued"


def test_repeated_request_is_one_file_one_job_and_one_key(service: Deployment) -> None:
    headers = {"idempotency-key": "a-request-that-is-sent-twice"}
    first, second = (service.send_csv(SMALL_CSV, headers=headers) for _ in range(2))
    assert first == second
    assert len(service.deliver_all()) == 1
    assert service.send_csv(SMALL_CSV, headers=headers) == first | {"status": "succeeded"}
    assert service.deliver_all() == []


# -- drop → train → recommend


def test_receipt_of_a_drop_yields_a_key_and_a_second_drop_its_next_version(service: Deployment) -> None:
    service.drop("inbox/spring orders + more.csv", SMALL_CSV)
    assert [delivery.failed for delivery in service.deliver_all()] == [False]
    receipt = service.receipt("receipts/spring orders + more.json")
    assert (receipt["status"], receipt["file"]) == ("succeeded", "inbox/spring orders + more.csv")
    api_key = service.claim(receipt)
    assert service.recommend(api_key, "u1", n=2)["model_version"] == receipt["model_version"]
    again = service.send_json("/v1/key/claim", {"claim_token": receipt["claim_token"]})
    assert (again.status, code_of(again.json)) == (410, "claim-gone")

    service.drop(f"inbox/{receipt['key_id']}/summer.csv", two_tastes_csv(n_users=12, n_items=12, n_each=4, shift=1))
    service.deliver_all()
    second = service.receipt(f"receipts/{receipt['key_id']}/summer.json")
    assert (second["status"], second["key_id"]) == ("succeeded", receipt["key_id"])
    assert "claim_token" not in second
    assert versions(service, api_key) == [second["model_version"], receipt["model_version"]]
    # The previous version is served while the new one is loaded.
    eventually(lambda: service.recommend(api_key, "u1")["model_version"] == second["model_version"])


def test_other_objects_are_not_trained_on(service: Deployment) -> None:
    before = service.rows()
    service.drop("inbox/read me.txt", b"hello")
    service.drop("uploads/unannounced.csv", SMALL_CSV)
    assert service.deliver_all() == []
    assert service.rows() == before
    assert service.messages_left() == 0


def test_event_from_the_aws_documentation_is_processed(service: Deployment) -> None:
    service.drop("inbox/spring orders + more.csv", BAD_CSV)
    own = service.receive()
    assert own is not None
    service.discard(own)
    documented = (EVENTS / "s3_object_created.json").read_text()
    bucket = json.loads(documented)["Records"][0]["s3"]["bucket"]["name"]
    service.sqs.send_message(QueueUrl=service.queue_url, MessageBody=documented.replace(bucket, service.bucket))
    assert [delivery.failed for delivery in service.deliver_all()] == [False]
    receipt = service.receipt("receipts/spring orders + more.json")
    assert (receipt["status"], receipt["file"]) == ("failed", "inbox/spring orders + more.csv")
    assert receipt["problem"]["code"] == "upload-replaced"  # the documented version id is not that of the object


# -- bad data


def test_invalid_upload_fails_its_job_and_its_message_is_deleted(service: Deployment) -> None:
    accepted = service.send_csv(BAD_CSV)
    assert [delivery.failed for delivery in service.deliver_all()] == [False]
    job = service.job(accepted["job_id"], accepted["api_key"])
    assert job["status"] == "failed"
    assert code_of(job["problem"]) == "too-many-bad-lines"
    assert [error["line"] for error in job["problem"]["errors"]] == [3, 4]
    assert service.object_names(f"models/{accepted['key_id']}/") == []
    assert service.messages_left() == 0


def test_receipt_of_an_invalid_drop_has_the_problem_and_no_claim_token(service: Deployment) -> None:
    service.drop("inbox/bad.csv", BAD_CSV)
    assert [delivery.failed for delivery in service.deliver_all()] == [False]
    receipt = service.receipt("receipts/bad.json")
    assert (receipt["status"], receipt["problem"]["code"]) == ("failed", "too-many-bad-lines")
    assert "claim_token" not in receipt


# -- repeated events, and events out of order


def test_repeated_message_trains_once(service: Deployment) -> None:
    accepted = service.send_csv(SMALL_CSV)
    (delivery,) = service.deliver_all()
    job = service.job(accepted["job_id"], accepted["api_key"])
    objects = service.object_names(f"models/{accepted['key_id']}/")
    service.sqs.send_message(QueueUrl=service.queue_url, MessageBody=json.dumps(delivery.body))
    assert [repeated.failed for repeated in service.deliver_all()] == [False]
    assert service.job(accepted["job_id"], accepted["api_key"]) == job
    assert service.object_names(f"models/{accepted['key_id']}/") == objects
    assert service.row(f"JOB#{accepted['job_id']}", "JOB")["fence"] == "1"


def test_older_event_that_arrives_late_is_superseded(service: Deployment, shop: Shop) -> None:
    service.drop(f"inbox/{shop.key_id}/older.csv", SMALL_CSV)
    older = service.receive()
    service.forget_turns()  # otherwise the second file waits for the first one
    service.drop(f"inbox/{shop.key_id}/newer.csv", CSV)
    newer = service.receive()
    assert older is not None
    assert newer is not None
    assert [service.deliver(message).failed for message in (newer, older)] == [False, False]
    assert service.receipt(f"receipts/{shop.key_id}/older.json")["status"] == "superseded"
    newer_version = service.receipt(f"receipts/{shop.key_id}/newer.json")["model_version"]
    eventually(lambda: service.recommend(shop.api_key, "u1")["model_version"] == newer_version)
    assert versions(service, shop.api_key)[0] == newer_version


# -- turns (docs/decisions/0065-turns-on-aws.md)

FLOOD = 6
N_SLOTS = 2


def known_key(service: Deployment) -> str:
    """Return a new key that the operator created."""
    api_key = ApiKey.mint()
    registry = Registry(DynamoTable(service.emulator.dynamodb, service.table))
    registry.create_key(KeyRecord(api_key.key_id, utc_now(), secret_sha256=api_key.sha256()))
    return str(api_key)


def group_of(message: Any) -> str:
    """Return the group whose turn a message is."""
    return str(json.loads(message["Body"])["turn"]["group"])


def test_flood_without_a_key_and_a_backlog_of_one_key_delay_another_key_by_one_training_each(
    service: Deployment,
) -> None:
    busy, waiting = known_key(service), known_key(service)
    jobs = [service.send_csv(BAD_CSV)["job_id"] for _ in range(FLOOD)]
    for name in ("1", "2", "3"):
        service.drop(f"inbox/{key_id_of(busy)}/append/{name}.csv", BAD_CSV)
    while service.dispatch_arrivals():
        pass
    slots = [service.receive() for _ in range(N_SLOTS)]
    assert {group_of(message) for message in slots} == {ANONYMOUS, key_id_of(busy)}
    assert service.receive(wait_s=0) is None  # neither the flood nor the backlog may use a third slot

    jobs.append(service.send_csv(BAD_CSV, api_key=waiting)["job_id"])
    eventually(lambda: service.dispatch_arrivals() > 0)
    order = []
    while slots:
        message = slots.pop(0)
        assert not service.deliver(message).failed
        order.append(group_of(message))
        following = service.receive(wait_s=0)
        slots += [following] if following else []
        groups = [group_of(each) for each in slots]
        assert len(set(groups)) == len(groups) <= N_SLOTS
    # Both groups that were there before have one turn, the running one, and then it is this key's turn.
    assert sorted(order[:2]) == sorted([ANONYMOUS, key_id_of(busy)])
    assert order[2] == key_id_of(waiting)
    assert {group: order.count(group) for group in set(order)} == {
        ANONYMOUS: FLOOD,
        key_id_of(busy): 3,
        key_id_of(waiting): 1,
    }
    assert {service.row(f"JOB#{job_id}", "JOB")["state"] for job_id in jobs} == {"failed"}
    assert [row for row in service.rows() if row["pk"]["S"].partition("#")[0] in ("TURNS", "WAITING")] == []


def test_newest_of_the_waiting_files_of_a_key_is_trained_and_the_older_ones_are_superseded(
    service: Deployment, shop: Shop
) -> None:
    service.send_csv(BAD_CSV, api_key=shop.api_key)
    first = service.receive()
    assert first is not None
    older = service.send_csv(CSV, api_key=shop.api_key)["job_id"]
    eventually(lambda: service.dispatch_arrivals() > 0)
    newer = service.send_csv(two_tastes_csv(shift=1), api_key=shop.api_key)["job_id"]
    eventually(lambda: service.dispatch_arrivals() > 0)
    service.deliver(first)
    keys = [delivery.body["Records"][0]["s3"]["object"]["key"] for delivery in service.deliver_all()]
    names = [unquote_plus(key) for key in keys]
    assert names == [f"uploads/{newer}.csv", f"uploads/{older}.csv"]
    assert service.job(newer, shop.api_key)["status"] == "succeeded"
    assert service.job(older, shop.api_key)["status"] == "superseded"


def test_message_of_an_earlier_release_is_processed_without_a_turn(service: Deployment) -> None:
    accepted = service.send_csv(BAD_CSV)
    message = service.receive()
    assert message is not None
    service.discard(message)
    body = json.loads(message["Body"])
    service.sqs.send_message(QueueUrl=service.queue_url, MessageBody=json.dumps({"Records": body["Records"]}))
    assert [delivery.failed for delivery in service.deliver_all()] == [False]
    assert service.job(accepted["job_id"], accepted["api_key"])["status"] == "failed"


# -- faults


@pytest.mark.parametrize("store", ["DYNAMODB", "S3"])
def test_message_is_retried_while_a_store_is_down(service: Deployment, store: str) -> None:
    accepted = service.send_csv(SMALL_CSV)
    message = service.receive()
    assert message is not None
    with service.start("train", **{f"AWS_ENDPOINT_URL_{store}": "http://127.0.0.1:9"}) as cut_off:
        assert service.deliver(message, cut_off).failed
    assert "Message will be retried: AWS did not respond" in service.functions["train"].log.read_text()
    assert service.job(accepted["job_id"], accepted["api_key"])["status"] in ("queued", "running")
    deliveries = service.deliver_when_visible()
    assert deliveries[0].receive_count == 2
    assert service.job(accepted["job_id"], accepted["api_key"])["status"] == "succeeded"
    assert service.messages_left() == 0


def kill_training(service: Deployment, job_id: str, *, attempt: int) -> None:
    """Deliver the next message to a function, and kill it during the training with SIGKILL, as for its memory."""
    message = service.next_message()
    with service.start("train") as killed:
        killed.start(service.sqs_event(message))
        eventually(lambda: service.row(f"JOB#{job_id}", "JOB").get("fence") == str(attempt))


def test_next_delivery_finishes_the_job_of_a_killed_function(service: Deployment) -> None:
    accepted = service.send_csv(CSV)
    kill_training(service, accepted["job_id"], attempt=1)
    service.deliver_when_visible()  # the function hid the message for two leases, not for the queue's 15 minutes
    job = service.job(accepted["job_id"], accepted["api_key"])
    fence = int(service.row(f"JOB#{accepted['job_id']}", "JOB")["fence"])
    assert fence == 2
    assert (job["status"], job["model_version"]) == ("succeeded", f"{accepted['job_id']}.2")
    prefix = f"models/{accepted['key_id']}/{accepted['job_id']}.2/"
    assert {name.removeprefix(prefix) for name in service.object_names(f"models/{accepted['key_id']}/")} == (
        VERSION_FILES
    )
    assert versions(service, accepted["api_key"]) == [job["model_version"]]


def test_training_that_is_killed_twice_fails_with_the_reason_and_without_a_third_attempt(service: Deployment) -> None:
    """`tests/infra/test_train_image.py` shows the same with a memory limit and a timeout, in a container."""
    accepted = service.send_csv(CSV)
    for attempt in (1, 2):
        kill_training(service, accepted["job_id"], attempt=attempt)
        assert service.job(accepted["job_id"], accepted["api_key"])["status"] == "running"
    last = service.deliver(service.next_message())
    assert (last.receive_count, last.failed) == (3, False)
    job = service.job(accepted["job_id"], accepted["api_key"])
    assert (job["status"], code_of(job["problem"])) == ("failed", "training-failed")
    assert job["problem"]["detail"].startswith("Training failed 2 times. ")
    assert "most likely because memory ran out" in job["problem"]["detail"]
    assert "give the training more memory" in job["problem"]["hint"]
    assert service.messages_left() == 0


def test_message_that_fails_five_times_moves_to_the_dead_letter_queue(service: Deployment) -> None:
    body = f"no JSON {service.bucket}"
    service.sqs.send_message(QueueUrl=service.queue_url, MessageBody=body)
    for count in range(1, 6):
        message = service.receive()
        assert message is not None
        delivery = service.deliver(message)
        assert (delivery.failed, delivery.receive_count) == (True, count)
        assert service.receive(wait_s=0) is None  # hidden for a while, so that the fault can pass
        _make_visible(service, message)
    assert service.receive(wait_s=0) is None
    dead = service.receive(queue_url=service.failed_queue_url)
    assert dead is not None
    assert dead["Body"] == body


def _make_visible(service: Deployment, message: Any) -> None:
    """Make the message visible, as if its visibility timeout had passed."""
    service.sqs.change_message_visibility(
        QueueUrl=service.queue_url, ReceiptHandle=message["ReceiptHandle"], VisibilityTimeout=0
    )


# -- keys


def test_revoked_key_is_rejected_by_every_function(service: Deployment) -> None:
    api_key = service.send_csv(SMALL_CSV)["api_key"]
    assert service.request("DELETE", "/v1/key", api_key=api_key).status == 204
    assert service.send_json("/v1/recommendations", {"user_id": "u1"}, api_key=api_key).status == 401
    assert service.request("GET", "/v1/models", api_key=api_key).status == 401


def test_no_secret_is_in_a_log_line_an_object_or_an_item(service: Deployment, shop: Shop) -> None:
    service.drop("inbox/canary.csv", SMALL_CSV)
    service.deliver_all()
    token = service.receipt("receipts/canary.json")["claim_token"]
    api_key = service.claim({"claim_token": token})
    service.recommend(api_key, "u1")
    service.send_json("/v1/recommendations", {"user_id": 1, "api_key": api_key}, api_key=api_key)
    service.request("GET", f"/v1/{api_key}", api_key=f"{api_key}x", route="$default")
    service.send_json("/v1/key/claim", {"claim_token": token})
    service.send_json("/v1/key/rotate", {}, api_key=api_key)
    assert {api_key, token, shop.api_key} <= service.secrets

    logs = "".join(path.read_text() for path in service.folder.glob("*.log"))
    assert shop.job_id in logs
    rows = json.dumps(service.rows())
    assert shop.key_id in rows
    objects = {name: service.read(name) for name in service.object_names()}
    receipts = {name for name in objects if name.startswith("receipts/")}
    for secret in service.secrets:
        assert secret not in logs
        assert secret not in rows
        holders = {name for name, content in objects.items() if secret.encode() in content}
        assert holders <= (receipts if secret.startswith("ct_") else set())
