"""Behaviour of the DynamoDB adapter alone: transaction conflicts, rejected requests, expired items."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from botocore.exceptions import ClientError
from botocore.stub import Stubber

from recsys.errors import JobNotFound, KeyNotFound, Unavailable
from recsys.registry.dynamodb import DynamoTable
from recsys.registry.registry import Registry
from recsys.registry.table import Address, Change
from tests.contract.conftest import FixedClock
from tests.contract.records import HOUR_LATER, a_job, a_key
from tests.emulators import MINISTACK, Emulator

ADDRESS = Address("p", "s")


@pytest.fixture
def stubber() -> Iterator[Stubber]:
    """A client with prepared responses."""
    with Stubber(Emulator("https://dynamodb.eu-west-1.amazonaws.com").dynamodb) as stubber:
        yield stubber


def _client(stubber: Stubber) -> Any:
    return stubber.client


def _cancelled(*codes: str) -> dict[str, Any]:
    return {
        "service_error_code": "TransactionCanceledException",
        "service_message": "Transaction cancelled",
        "http_status_code": 400,
        "modeled_fields": {"CancellationReasons": [{"Code": code} for code in codes]},
    }


def test_items_have_flat_attributes_and_a_time_to_live(moto: Emulator) -> None:
    table = moto.new_table()
    registry = Registry(DynamoTable(moto.dynamodb, table), FixedClock())
    registry.create_key(a_key(expires_at=HOUR_LATER, revision=3))
    item = moto.dynamodb.get_item(TableName=table, Key={"pk": {"S": "KEY#key1"}, "sk": {"S": "KEY"}})["Item"]
    assert item.pop("etag")["S"]
    assert item == {
        "pk": {"S": "KEY#key1"},
        "sk": {"S": "KEY"},
        "key_id": {"S": "key1"},
        "created_at": {"S": "2026-03-01T12:00:00.000000Z"},
        "revision": {"N": "3"},
        "secret_sha256": {"S": "1" * 64},
        "expires_at": {"S": "2026-03-01T13:00:00.000000Z"},
        # `date -u -d 2026-03-01T13:00:00Z +%s` is 1772370000. DynamoDB may delete the item one second later.
        "ttl": {"N": "1772370001"},
    }


def test_a_record_without_expiry_has_no_time_to_live(moto: Emulator) -> None:
    table = moto.new_table()
    Registry(DynamoTable(moto.dynamodb, table), FixedClock()).create_job(a_job())
    item = moto.dynamodb.get_item(TableName=table, Key={"pk": {"S": "JOB#job1"}, "sk": {"S": "JOB"}})["Item"]
    assert "ttl" not in item
    assert item["state"] == {"S": "queued"}


def test_an_item_deleted_by_dynamodb_is_not_found(moto: Emulator) -> None:
    table = moto.new_table()
    registry = Registry(DynamoTable(moto.dynamodb, table), FixedClock())
    registry.create_key(a_key(expires_at=HOUR_LATER))
    moto.dynamodb.delete_item(TableName=table, Key={"pk": {"S": "KEY#key1"}, "sk": {"S": "KEY"}})
    with pytest.raises(KeyNotFound):
        registry.get_key("key1")
    registry.create_key(a_key())
    assert registry.get_key("key1") == a_key()


@pytest.mark.parametrize("emulator", ["moto", pytest.param("ministack", marks=MINISTACK)])
def test_changes_are_applied_all_or_none(request: pytest.FixtureRequest, emulator: str) -> None:
    aws: Emulator = request.getfixturevalue(emulator)
    table = DynamoTable(aws.dynamodb, aws.new_table())
    a, b = Address("p", "a"), Address("p", "b")
    assert table.write([Change(b, None, {"n": 1})])
    assert not table.write([Change(a, None, {"n": 1}), Change(b, None, {"n": 2})])
    assert not table.write([Change(a, None, {"n": 1}), Change(b, "another etag", {"n": 2})])
    assert not table.write([Change(a, None, {"n": 1}), Change(b, "another etag", None)])
    assert table.get(a).document is None
    assert table.get(b).document == {"n": 1}


def test_a_lost_response_is_not_taken_for_a_conflict(ministack_table: tuple[Emulator, DynamoTable]) -> None:
    """boto3 repeats the transaction with the same token."""
    emulator, table = ministack_table
    responses: list[Any] = []

    def lose_first_response(response: Any, **_: Any) -> Any:
        responses.append(response)
        return 0 if len(responses) == 1 else None  # 0: repeat the request immediately

    events: Any = emulator.dynamodb.meta.events
    events.register_first("needs-retry.dynamodb.TransactWriteItems", lose_first_response)
    try:
        assert table.write([Change(ADDRESS, None, {"n": 1})]) is True
    finally:
        events.unregister("needs-retry.dynamodb.TransactWriteItems", lose_first_response)
    assert len(responses) == 2
    assert table.get(ADDRESS).document == {"n": 1}


@pytest.fixture(params=[pytest.param("ministack", marks=MINISTACK)])
def ministack_table(request: pytest.FixtureRequest) -> tuple[Emulator, DynamoTable]:
    emulator: Emulator = request.getfixturevalue(request.param)
    return emulator, DynamoTable(emulator.dynamodb, emulator.new_table())


def test_transaction_conflicts_are_retried_after_growing_pauses(stubber: Stubber) -> None:
    pauses: list[float] = []
    stubber.add_client_error("transact_write_items", **_cancelled("TransactionConflict", "None"))
    stubber.add_client_error("transact_write_items", **_cancelled("None", "ThrottlingError"))
    stubber.add_response("transact_write_items", {})
    table = DynamoTable(_client(stubber), "table", pause=pauses.append)
    assert table.write([Change(ADDRESS, None, {"n": 1})]) is True
    assert len(pauses) == 2
    assert 0.02 <= pauses[0] <= 0.04 <= pauses[1] <= 0.08


def test_a_persistent_conflict_is_unavailable(stubber: Stubber) -> None:
    for _ in range(6):
        stubber.add_client_error("transact_write_items", **_cancelled("TransactionConflict"))
    table = DynamoTable(_client(stubber), "table", pause=lambda _: None)
    with pytest.raises(Unavailable, match="6 times: TransactionConflict"):
        table.write([Change(ADDRESS, None, {"n": 1})])
    stubber.assert_no_pending_responses()


def test_a_failed_condition_takes_precedence_over_a_conflict(stubber: Stubber) -> None:
    stubber.add_client_error("transact_write_items", **_cancelled("TransactionConflict", "ConditionalCheckFailed"))
    table = DynamoTable(_client(stubber), "table", pause=lambda _: pytest.fail("it must not retry"))
    assert table.write([Change(ADDRESS, None, {"n": 1})]) is False


def test_an_invalid_transaction_is_not_retried(stubber: Stubber) -> None:
    stubber.add_client_error("transact_write_items", **_cancelled("ValidationError"))
    table = DynamoTable(_client(stubber), "table", pause=lambda _: pytest.fail("it must not retry"))
    with pytest.raises(Unavailable, match="TransactWriteItems: TransactionCanceledException"):
        table.write([Change(ADDRESS, None, {"n": 1})])


@pytest.mark.parametrize(
    "code",
    [
        "ProvisionedThroughputExceededException",
        "InternalServerError",
        "AccessDeniedException",
        "ResourceNotFoundException",
    ],
)
def test_a_rejected_request_is_unavailable_with_its_error_code(stubber: Stubber, code: str) -> None:
    registry = Registry(DynamoTable(_client(stubber), "table"))
    for operation, called in [("get_item", registry.get_key), ("query", registry.list_versions)]:
        stubber.add_client_error(operation, code, "AKIAEXAMPLE may not")
        with pytest.raises(Unavailable, match=rf"^AWS rejected (GetItem|Query): {code}\.$") as raised:
            called("key1")
        assert isinstance(raised.value.__cause__, ClientError)


def test_a_refused_connection_is_unavailable() -> None:
    # Port 1 of the loopback interface: nothing listens there.
    registry = Registry(DynamoTable(Emulator("http://127.0.0.1:1").dynamodb, "table"))
    with pytest.raises(Unavailable, match=r"^AWS did not respond to GetItem: EndpointConnectionError\.$"):
        registry.get_job("job1")


def test_reads_are_consistent(stubber: Stubber) -> None:
    key = {"pk": {"S": "JOB#job1"}, "sk": {"S": "JOB"}}
    stubber.add_response("get_item", {}, {"TableName": "table", "Key": key, "ConsistentRead": True})
    with pytest.raises(JobNotFound):
        Registry(DynamoTable(_client(stubber), "table")).get_job("job1")


@pytest.mark.parametrize("job_id", ["j" * 2049, "é" * 1025])
def test_an_id_too_long_for_a_key_is_not_requested(stubber: Stubber, job_id: str) -> None:
    with pytest.raises(JobNotFound):  # the stubber rejects every call
        Registry(DynamoTable(_client(stubber), "table")).get_job(job_id)
