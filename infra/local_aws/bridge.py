"""Take messages of the training queue to a function outside of the emulator, as an event source mapping does."""

from __future__ import annotations

import json
import logging
import threading
from typing import Any, Final, Self

from botocore.exceptions import BotoCoreError, ClientError

_POLL_S: Final = 2
_PAUSE_S: Final = 1.0

logger: Final = logging.getLogger("local_aws")


class QueueBridge:
    """Invokes a function with each message of a queue, one at a time, from a thread, within a `with` block.

    A message that the function reports in `batchItemFailures`, or whose invocation fails, stays in the queue and comes
    back after its visibility timeout.

    Parameters
    ----------
    sqs, lambda_client
        boto3 clients, the second at the address of `sam local start-lambda`.
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
        """Deliver one message; return whether there was one that is done."""
        reply = self._sqs.receive_message(
            QueueUrl=self._queue_url, MaxNumberOfMessages=1, WaitTimeSeconds=_POLL_S, AttributeNames=["All"]
        )
        for message in reply.get("Messages", []):
            answer = self._lambda.invoke(
                FunctionName=self._function_name, Payload=json.dumps({"Records": [self._record(message)]})
            )
            result = json.loads(answer["Payload"].read() or b"null")
            if "FunctionError" in answer or not isinstance(result, dict):
                logger.error("%s failed: %s", self._function_name, result)
            elif not result.get("batchItemFailures"):
                self._sqs.delete_message(QueueUrl=self._queue_url, ReceiptHandle=message["ReceiptHandle"])
                return True
        return False

    def _record(self, message: dict[str, Any]) -> dict[str, Any]:
        """The message in the form in which Lambda hands it over."""
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
                logger.warning("A message could not be delivered: %s", error)
                self._ended.wait(_PAUSE_S)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_exc_info: object) -> None:
        self._ended.set()
        self._thread.join(timeout=2 * _POLL_S)
