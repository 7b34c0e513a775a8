"""Read API keys from the registry's DynamoDB table without boto3. See also `recsys.registry.dynamodb`."""

from __future__ import annotations

import json
from typing import Any, Final

from recsys.clock import Clock, utc_now
from recsys.errors import Unavailable
from recsys.registry.dynamodb_items import fits, to_key, to_row
from recsys.registry.key_record import KeyRecord
from recsys.registry.reading import read_key
from recsys.registry.table import Address, Row
from recsys_recommend.lean_aws.config import AwsConfig
from recsys_recommend.lean_aws.credentials import CredentialProvider
from recsys_recommend.lean_aws.signed_requests import SignedService

_READ_TIMEOUT_S: Final = 10.0  # as in recsys.aws
_CONTENT_TYPE: Final = "application/x-amz-json-1.0"
_TARGET: Final = "DynamoDB_20120810"


class DynamoKeyReader:
    """A `KeyReader` that reads API keys from a DynamoDB table.

    Parameters
    ----------
    config
        Region and endpoints.
    credentials
        Source of the credentials of each request.
    table
        Name of the table.
    clock
        Function that returns the current time.
    """

    def __init__(self, config: AwsConfig, credentials: CredentialProvider, table: str, clock: Clock = utc_now) -> None:
        base_url = config.endpoint_url("dynamodb") or f"https://dynamodb.{config.region}.{config.domain}"
        self._service = SignedService(
            "dynamodb", base_url, region=config.region, credentials=credentials, read_timeout_s=_READ_TIMEOUT_S
        )
        self._table = table
        self._clock = clock

    def close(self) -> None:
        """Close the idle connections."""
        self._service.close()

    def get_key(self, key_id: str) -> KeyRecord:
        """Return a key, even if it is revoked. The read is strongly consistent.

        Raises
        ------
        KeyNotFound
            The key does not exist or has expired.
        Unavailable
            DynamoDB did not respond or rejected the request.
        """
        return read_key(self, key_id, self._clock())[1]

    def get(self, address: Address) -> Row:
        """Return the row at `address`, or an empty row if there is none. The read is strongly consistent.

        Raises
        ------
        Unavailable
            DynamoDB did not respond or rejected the request.
        """
        if not fits(address):
            return Row(address)
        request = {"TableName": self._table, "Key": to_key(address), "ConsistentRead": True}
        status, document = self._send("GetItem", request)
        if status != 200:
            raise rejected("GetItem", status, document)
        item = document.get("Item")
        return to_row(item) if item else Row(address)

    def _send(self, operation: str, request: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        """Send a request, and return the status and the document of the response."""
        headers = {"content-type": _CONTENT_TYPE, "x-amz-target": f"{_TARGET}.{operation}"}
        response = self._service.send("POST", "/", headers=headers, body=json.dumps(request).encode())
        try:
            document: dict[str, Any] = json.loads(response.body)
        except ValueError as error:
            raise Unavailable(f"AWS responded to {operation} with invalid JSON.") from error
        return response.status, document


def rejected(operation: str, status: int, document: dict[str, Any]) -> Unavailable:
    """Return the error for a DynamoDB response whose status is not 200."""
    return Unavailable(f"AWS rejected {operation}: {str(document.get('__type', status)).rpartition('#')[2]}.")
