"""Deliver messages of a queue to a function outside the emulator, as an event source mapping would."""

from __future__ import annotations

import json
import logging
import threading
from typing import Any, Final, Self

from botocore.exceptions import BotoCoreError, ClientError

_POLL_S: Final = 2  # Duration of a long poll; not tuned.
_PAUSE_S: Final = 1.0  # Delay after an error; not tuned.

_logger: Final = logging.getLogger("local_aws")


class QueueBridge:
    """Context manager that invokes a function with each message of a queue, one at a time, from a background thread.

    A message stays in the queue if its invocation fails or if the function reports it in `batchItemFailures`. It is
    delivered again after its visibility timeout.

    Parameters
    ----------
    sqs
        boto3 client of SQS.
    queue_url
        URL of the queue.
    lambda_client
        boto3 client of Lambda, at the address of `sam local start-lambda`.
    function_name
        Name of the function to invoke.
    """

    def __init__(self, sqs: Any, queue_url: str, lambda_client: Any, function_name: str) -> None:
        self._sqs = sqs
        self._queue_url = queue_url
        attributes = sqs.get_queue_attributes(QueueUrl=queue_url, AttributeNames=["QueueArn"])["Attributes"]
        self._queue_arn: str = attributes["QueueArn"]
        self._lambda = lambda_client
        self._function_name = function_name
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="queue-bridge", daemon=True)

    def deliver_next(self) -> bool:
        """Deliver the next message. Return whether there was one and the function processed it."""
        received = self._sqs.receive_message(
            QueueUrl=self._queue_url, MaxNumberOfMessages=1, WaitTimeSeconds=_POLL_S, AttributeNames=["All"]
        )
        for message in received.get("Messages", []):
            response = self._lambda.invoke(
                FunctionName=self._function_name, Payload=json.dumps({"Records": [self._record(message)]})
            )
            result = json.loads(response["Payload"].read() or b"null")
            if "FunctionError" in response or not isinstance(result, dict):
                _logger.error("%s failed: %s", self._function_name, result)
            elif not result.get("batchItemFailures"):
                self._sqs.delete_message(QueueUrl=self._queue_url, ReceiptHandle=message["ReceiptHandle"])
                return True
        return False

    def _record(self, message: dict[str, Any]) -> dict[str, Any]:
        """Return the message as a record of a Lambda event."""
        return {
            "messageId": message["MessageId"],
            "receiptHandle": message["ReceiptHandle"],
            "body": message["Body"],
            "attributes": message["Attributes"],
            "messageAttributes": {},
            "md5OfBody": message["MD5OfBody"],
            "eventSource": "aws:sqs",
            "eventSourceARN": self._queue_arn,
            "awsRegion": self._queue_arn.split(":")[3],
        }

    def _run(self) -> None:
        while not self._ended.is_set():
            try:
                self.deliver_next()
            except (BotoCoreError, ClientError) as error:
                _logger.warning("Could not deliver a message, retrying: %s", error)
                self._ended.wait(_PAUSE_S)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_exc_info: object) -> None:
        self._ended.set()
        self._thread.join(timeout=2 * _POLL_S)
