"""Write rate-limit rows to the registry's DynamoDB table without boto3. See also `recsys.registry.dynamodb`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from recsys.registry.dynamodb_items import to_item
from recsys.registry.table import Change
from recsys_recommend.lean_aws.dynamodb_reader import DynamoKeyReader, rejected

_CONDITION_FAILED: Final = "ConditionalCheckFailedException"


class DynamoLimitTable(DynamoKeyReader):
    """A `DynamoKeyReader` that can also write single rows.

    The IAM role of the function `recommend` permits writes only to rate-limit rows.
    """

    def write(self, changes: Sequence[Change]) -> bool:
        """Write one row unless another process has changed it. Return whether the row was written.

        `changes` must contain exactly one change, which must not be a deletion. If the response is lost, the request is
        sent again. DynamoDB rejects the second request because the row has changed. The method then returns False
        although the row was written, and the caller counts the same requests a second time. A client can therefore
        reach its rate limit a few requests too early.

        Raises
        ------
        Unavailable
            DynamoDB did not respond or rejected the request.
        """
        (change,) = changes
        assert change.document is not None
        request: dict[str, Any] = {
            "TableName": self._table,
            "Item": to_item(change.address, change.document),
            "ConditionExpression": "attribute_not_exists(pk)",
        }
        if change.etag is not None:
            request |= {
                "ConditionExpression": "etag = :etag",
                "ExpressionAttributeValues": {":etag": {"S": change.etag}},
            }
        status, document = self._send("PutItem", request)
        if status == 200:
            return True
        if str(document.get("__type")).endswith(_CONDITION_FAILED):
            return False
        raise rejected("PutItem", status, document)
