"""The registry in a DynamoDB table.

The primary key of the table consists of the strings `pk` and `sk`, and the attribute `ttl` holds the time to live.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Final, cast

from botocore.exceptions import ClientError

from recsys.aws import error_code, translating_errors
from recsys.backoff import backoff_s
from recsys.errors import Unavailable
from recsys.registry.dynamodb_items import fits, to_item, to_key, to_row
from recsys.registry.table import LAST_CHARACTER, Address, Change, Row

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient
    from mypy_boto3_dynamodb.type_defs import DeleteTypeDef, PutTypeDef, TransactWriteItemTypeDef

_WRITE_ATTEMPTS: Final = 6
_BACKOFF_BASE_S: Final = 0.02  # not tuned: a few round trips within a region
_RETRYABLE: Final = frozenset(
    {"None", "TransactionConflict", "ThrottlingError", "ProvisionedThroughputExceeded", "RequestLimitExceeded"}
)


class DynamoTable:
    """A `Table` in DynamoDB. An item stores a document, and the members of the document are attributes of the item.

    Parameters
    ----------
    client
        A DynamoDB client, as returned by `recsys.aws.dynamodb_client`.
    table
        Name of the table.
    pause
        Function that sleeps for the given number of seconds before a retry.
    """

    def __init__(self, client: DynamoDBClient, table: str, *, pause: Callable[[float], None] = time.sleep) -> None:
        self._client = client
        self._table = table
        self._pause = pause

    def get(self, address: Address) -> Row:
        """Return the row at `address`, with a consistent read."""
        if not fits(address):
            return Row(address)
        with translating_errors("GetItem"):
            reply = self._client.get_item(TableName=self._table, Key=to_key(address), ConsistentRead=True)
        item = reply.get("Item")
        return to_row(item) if item else Row(address)

    def list(self, partition: str, sort_prefix: str) -> list[Row]:
        """Return the rows of a partition whose `sort` starts with a prefix, with a consistent read."""
        pages = self._client.get_paginator("query").paginate(
            TableName=self._table,
            KeyConditionExpression="pk = :partition AND begins_with(sk, :prefix)",
            ExpressionAttributeValues={":partition": {"S": partition}, ":prefix": {"S": sort_prefix}},
            ConsistentRead=True,
        )
        with translating_errors("Query"):
            return [to_row(item) for page in pages for item in page["Items"]]

    def list_latest(self, partition: str, sort_prefix: str, *, before: str | None, limit: int) -> Sequence[Row]:
        """Return at most `limit` rows whose `sort` starts with a prefix and is less than `before`, greatest first."""
        # BETWEEN includes its ends, and a key condition has only one range. The row at `before` is therefore dropped.
        with translating_errors("Query"):
            reply = self._client.query(
                TableName=self._table,
                KeyConditionExpression="pk = :partition AND sk BETWEEN :first AND :last",
                ExpressionAttributeValues={
                    ":partition": {"S": partition},
                    ":first": {"S": sort_prefix},
                    ":last": {"S": sort_prefix + LAST_CHARACTER if before is None else before},
                },
                ConsistentRead=True,
                ScanIndexForward=False,
                Limit=limit + 1,
            )
        rows = [to_row(item) for item in reply["Items"]]
        return [row for row in rows if row.address.sort != before][:limit]

    def write(self, changes: Sequence[Change]) -> bool:
        """Apply all changes in one transaction, or none of them. Return whether they were applied.

        A single change is also sent as a transaction, because boto3 adds a token to every transaction. If a response is
        lost and boto3 repeats the request, DynamoDB detects the repetition by the token and reports success. Without
        the token, the condition of the change would fail.
        """
        actions = [_to_action(self._table, change) for change in changes]
        for attempt in range(_WRITE_ATTEMPTS):
            if attempt:
                self._pause(backoff_s(attempt, base_s=_BACKOFF_BASE_S))
            with translating_errors("TransactWriteItems"):
                try:
                    self._client.transact_write_items(TransactItems=actions)
                    return True
                except ClientError as error:
                    reasons = _cancellation_reasons(error)
                    if "ConditionalCheckFailed" in reasons:
                        return False
                    if not reasons or not reasons <= _RETRYABLE:
                        raise
        raise Unavailable(f"DynamoDB cancelled a transaction {_WRITE_ATTEMPTS} times: {', '.join(sorted(reasons))}.")


def _to_action(table: str, change: Change) -> TransactWriteItemTypeDef:
    action: dict[str, Any] = {"TableName": table, "ConditionExpression": "attribute_not_exists(pk)"}
    if change.etag is not None:
        action["ConditionExpression"] = "etag = :etag"
        action["ExpressionAttributeValues"] = {":etag": {"S": change.etag}}
    if change.document is None:
        return {"Delete": cast("DeleteTypeDef", {**action, "Key": to_key(change.address)})}
    return {"Put": cast("PutTypeDef", {**action, "Item": to_item(change.address, change.document)})}


def _cancellation_reasons(error: ClientError) -> set[str]:
    """Return the set of codes that state why DynamoDB cancelled a transaction.

    An item that did not cause the cancellation has the code `None`, as text. The set is empty for any other error.
    """
    if error_code(error) != "TransactionCanceledException":
        return set()
    response: Any = error.response  # the type stubs of botocore declare only the members that all errors have
    reasons: list[dict[str, Any]] = response.get("CancellationReasons", [])
    return {str(reason.get("Code")) for reason in reasons}
