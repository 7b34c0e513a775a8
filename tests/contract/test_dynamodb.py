"""What only the DynamoDB adapter meets: conflicts of transactions, refusals, items that DynamoDB removes."""

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
    """A client that answers what it is told to."""
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


def test_items_carry_flat_attributes_and_a_time_to_live(moto: Emulator) -> None:
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
        # date -u -d 2026-03-01T13:00:00Z +%s is 1772370000; DynamoDB may remove it a second later.
        "ttl": {"N": "1772370001"},
    }


def test_what_does_not_expire_has_no_time_to_live(moto: Emulator) -> None:
    table = moto.new_table()
    Registry(DynamoTable(moto.dynamodb, table), FixedClock()).create_job(a_job())
    item = moto.dynamodb.get_item(TableName=table, Key={"pk": {"S": "JOB#job1"}, "sk": {"S": "JOB"}})["Item"]
    assert "ttl" not in item
    assert item["state"] == {"S": "queued"}


def test_an_item_that_dynamodb_removed_is_absent(moto: Emulator) -> None:
    table = moto.new_table()
    registry = Registry(DynamoTable(moto.dynamodb, table), FixedClock())
    registry.create_key(a_key(expires_at=HOUR_LATER))
    moto.dynamodb.delete_item(TableName=table, Key={"pk": {"S": "KEY#key1"}, "sk": {"S": "KEY"}})
    with pytest.raises(KeyNotFound):
        registry.get_key("key1")
    registry.create_key(a_key())
    assert registry.get_key("key1") == a_key()


@pytest.mark.parametrize("emulator", ["moto", pytest.param("ministack", marks=MINISTACK)])
def test_changes_are_made_all_or_none(request: pytest.FixtureRequest, emulator: str) -> None:
    aws: Emulator = request.getfixturevalue(emulator)
    rows = DynamoTable(aws.dynamodb, aws.new_table())
    a, b = Address("p", "a"), Address("p", "b")
    assert rows.write([Change(b, None, {"n": 1})])
    assert not rows.write([Change(a, None, {"n": 1}), Change(b, None, {"n": 2})])
    assert not rows.write([Change(a, None, {"n": 1}), Change(b, "another etag", {"n": 2})])
    assert not rows.write([Change(a, None, {"n": 1}), Change(b, "another etag", None)])
    assert rows.get(a).document is None
    assert rows.get(b).document == {"n": 1}


def test_an_answer_that_got_lost_is_no_change_by_somebody_else(ministack_rows: tuple[Emulator, DynamoTable]) -> None:
    """boto3 sends a transaction again with the token of the first time."""
    emulator, rows = ministack_rows
    sent: list[Any] = []

    def lose_the_first_answer(response: Any, **_: Any) -> Any:
        sent.append(response)
        return 0 if len(sent) == 1 else None  # 0: send it again, at once

    events: Any = emulator.dynamodb.meta.events
    events.register_first("needs-retry.dynamodb.TransactWriteItems", lose_the_first_answer)
    try:
        assert rows.write([Change(ADDRESS, None, {"n": 1})]) is True
    finally:
        events.unregister("needs-retry.dynamodb.TransactWriteItems", lose_the_first_answer)
    assert len(sent) == 2
    assert rows.get(ADDRESS).document == {"n": 1}


@pytest.fixture(params=[pytest.param("ministack", marks=MINISTACK)])
def ministack_rows(request: pytest.FixtureRequest) -> tuple[Emulator, DynamoTable]:
    emulator: Emulator = request.getfixturevalue(request.param)
    return emulator, DynamoTable(emulator.dynamodb, emulator.new_table())


def test_a_conflict_of_transactions_is_tried_again_after_growing_pauses(stubber: Stubber) -> None:
    pauses: list[float] = []
    stubber.add_client_error("transact_write_items", **_cancelled("TransactionConflict", "None"))
    stubber.add_client_error("transact_write_items", **_cancelled("None", "ThrottlingError"))
    stubber.add_response("transact_write_items", {})
    rows = DynamoTable(_client(stubber), "table", pause=pauses.append)
    assert rows.write([Change(ADDRESS, None, {"n": 1})]) is True
    assert len(pauses) == 2
    assert 0.02 <= pauses[0] <= 0.04 <= pauses[1] <= 0.08


def test_a_conflict_that_stays_is_unavailable(stubber: Stubber) -> None:
    for _ in range(6):
        stubber.add_client_error("transact_write_items", **_cancelled("TransactionConflict"))
    rows = DynamoTable(_client(stubber), "table", pause=lambda _: None)
    with pytest.raises(Unavailable, match="6 times: TransactionConflict"):
        rows.write([Change(ADDRESS, None, {"n": 1})])
    stubber.assert_no_pending_responses()


def test_a_failed_condition_counts_before_a_conflict(stubber: Stubber) -> None:
    stubber.add_client_error("transact_write_items", **_cancelled("TransactionConflict", "ConditionalCheckFailed"))
    rows = DynamoTable(_client(stubber), "table", pause=lambda _: pytest.fail("it must not try again"))
    assert rows.write([Change(ADDRESS, None, {"n": 1})]) is False


def test_a_transaction_that_is_not_valid_is_not_tried_again(stubber: Stubber) -> None:
    stubber.add_client_error("transact_write_items", **_cancelled("ValidationError"))
    rows = DynamoTable(_client(stubber), "table", pause=lambda _: pytest.fail("it must not try again"))
    with pytest.raises(Unavailable, match="TransactWriteItems: TransactionCanceledException"):
        rows.write([Change(ADDRESS, None, {"n": 1})])


@pytest.mark.parametrize(
    "code",
    [
        "ProvisionedThroughputExceededException",
        "InternalServerError",
        "AccessDeniedException",
        "ResourceNotFoundException",
    ],
)
def test_what_aws_refuses_is_unavailable_and_named(stubber: Stubber, code: str) -> None:
    registry = Registry(DynamoTable(_client(stubber), "table"))
    for operation, called in [("get_item", registry.get_key), ("query", registry.list_versions)]:
        stubber.add_client_error(operation, code, "AKIAEXAMPLE may not")
        with pytest.raises(Unavailable, match=rf"^AWS refused (GetItem|Query): {code}\.$") as raised:
            called("key1")
        assert isinstance(raised.value.__cause__, ClientError)


def test_an_aws_that_does_not_answer_is_unavailable() -> None:
    # Port 1 of the loopback interface: nothing listens there.
    registry = Registry(DynamoTable(Emulator("http://127.0.0.1:1").dynamodb, "table"))
    with pytest.raises(Unavailable, match=r"^AWS did not answer GetItem: EndpointConnectionError\.$"):
        registry.get_job("job1")


def test_reads_are_consistent(stubber: Stubber) -> None:
    key = {"pk": {"S": "JOB#job1"}, "sk": {"S": "JOB"}}
    stubber.add_response("get_item", {}, {"TableName": "table", "Key": key, "ConsistentRead": True})
    with pytest.raises(JobNotFound):
        Registry(DynamoTable(_client(stubber), "table")).get_job("job1")


@pytest.mark.parametrize("job_id", ["j" * 2049, "é" * 1025])
def test_an_id_too_long_for_a_key_is_not_even_asked_for(stubber: Stubber, job_id: str) -> None:
    with pytest.raises(JobNotFound):  # the stubber would refuse any call
        Registry(DynamoTable(_client(stubber), "table")).get_job(job_id)
