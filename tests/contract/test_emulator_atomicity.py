"""Atomicity of MiniStack itself. Without it, the race tests of the adapters would prove nothing.

The races do not run on moto's server, because its threads interleave within a conditional write, so that two can win.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
from botocore.exceptions import ClientError

from tests.emulators import MINISTACK, Emulator
from tests.racing import race

pytestmark = list(MINISTACK)

ROUNDS = 40
CONTENDERS = 8


@pytest.fixture(scope="module")
def table(ministack: Emulator) -> str:
    return ministack.new_table()


def _key(number: int) -> dict[str, Any]:
    return {"pk": {"S": f"round-{number}"}, "sk": {"S": "x"}}


def _count_winners(contenders: list[Callable[[], Any]], losing_code: str) -> int:
    outcomes = race(*contenders)
    losers = [outcome for outcome in outcomes if isinstance(outcome, ClientError)]
    assert {loser.response["Error"]["Code"] for loser in losers} <= {losing_code}
    return sum(isinstance(outcome, dict) for outcome in outcomes)


def test_exactly_one_conditional_update_wins(ministack: Emulator, table: str) -> None:
    def update(number: int, contender: int) -> Any:
        return ministack.dynamodb.update_item(
            TableName=table,
            Key=_key(number),
            UpdateExpression="SET winner = :contender",
            ConditionExpression="attribute_not_exists(winner)",
            ExpressionAttributeValues={":contender": {"N": str(contender)}},
        )

    for number in range(ROUNDS):
        contenders: list[Callable[[], Any]] = [partial(update, number, contender) for contender in range(CONTENDERS)]
        assert _count_winners(contenders, "ConditionalCheckFailedException") == 1


def test_exactly_one_transaction_wins_and_the_losers_write_nothing(ministack: Emulator, table: str) -> None:
    def transact(number: int, contender: int) -> Any:
        own = {"pk": {"S": f"transaction-{number}"}, "sk": {"S": f"by-{contender}"}}
        shared = {"pk": {"S": f"transaction-{number}"}, "sk": {"S": "shared"}}
        absent = "attribute_not_exists(pk)"
        return ministack.dynamodb.transact_write_items(
            TransactItems=[
                {"Put": {"TableName": table, "Item": own}},
                {"Put": {"TableName": table, "Item": shared, "ConditionExpression": absent}},
            ]
        )

    for number in range(ROUNDS):
        contenders: list[Callable[[], Any]] = [partial(transact, number, contender) for contender in range(CONTENDERS)]
        assert _count_winners(contenders, "TransactionCanceledException") == 1
        reply = ministack.dynamodb.query(
            TableName=table,
            KeyConditionExpression="pk = :pk",
            ExpressionAttributeValues={":pk": {"S": f"transaction-{number}"}},
            ConsistentRead=True,
        )
        assert reply["Count"] == 2  # the shared row and the winner's own


def test_exactly_one_create_only_put_wins(ministack: Emulator) -> None:
    bucket = ministack.new_bucket()

    def put(number: int, contender: int) -> Any:
        return ministack.s3.put_object(Bucket=bucket, Key=f"round-{number}", Body=b"%d" % contender, IfNoneMatch="*")

    for number in range(ROUNDS):
        contenders: list[Callable[[], Any]] = [partial(put, number, contender) for contender in range(CONTENDERS)]
        assert _count_winners(contenders, "PreconditionFailed") == 1
