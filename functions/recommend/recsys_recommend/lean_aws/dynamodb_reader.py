"""The registry's keys in a DynamoDB table, read without boto3; see also `recsys.registry.dynamodb`."""

from __future__ import annotations

import json
from typing import Any, Final

from recsys.clock import Clock, utc_now
from recsys.errors import Unavailable
from recsys.registry.dynamodb_items import fits, to_key, to_row
from recsys.registry.records import KeyRecord
from recsys.registry.registry import read_key
from recsys.registry.table import Address, Row
from recsys.settings import AwsConfig
from recsys_recommend.lean_aws.signed_requests import SignedService

_READ_TIMEOUT_S: Final = 10.0
_HEADERS: Final = {"content-type": "application/x-amz-json-1.0", "x-amz-target": "DynamoDB_20120810.GetItem"}


class DynamoKeyReader:
    """A `KeyReader` of a table."""

    def __init__(self, access: AwsConfig, table: str, clock: Clock = utc_now) -> None:
        base_url = access.endpoint_url("dynamodb") or f"https://dynamodb.{access.region}.{access.domain}"
        self._service = SignedService("dynamodb", base_url, access, read_timeout_s=_READ_TIMEOUT_S)
        self._table = table
        self._clock = clock

    def close(self) -> None:
        """Close the connections that are kept."""
        self._service.close()

    def get_key(self, key_id: str) -> KeyRecord:
        """See `KeyReader.get_key`."""
        return read_key(self, key_id, self._clock())[1]

    def get(self, address: Address) -> Row:
        """See `Table.get`."""
        if not fits(address):
            return Row(address)
        query = {"TableName": self._table, "Key": to_key(address), "ConsistentRead": True}
        answer = self._service.send("POST", "/", headers=_HEADERS, body=json.dumps(query).encode())
        document = _parsed(answer.body)
        if answer.status != 200:
            code = str(document.get("__type", answer.status)).rpartition("#")[2]
            raise Unavailable(f"AWS refused GetItem: {code}.")
        item = document.get("Item")
        return to_row(item) if item else Row(address)


def _parsed(body: bytes) -> dict[str, Any]:
    try:
        document: dict[str, Any] = json.loads(body)
    except ValueError as error:
        raise Unavailable("AWS answered GetItem with what is no JSON.") from error
    return document
