"""Log the errors of failed queue messages, because Powertools logs only the ids of such messages."""

from __future__ import annotations

import logging
import traceback
from typing import Final

from aws_lambda_powertools.utilities.data_classes.sqs_event import SQSRecord

from recsys.errors import RecsysError
from recsys.http.telemetry import LambdaTelemetry
from recsys.redaction import redacted

_logger: Final = logging.getLogger("recsys.messages")


def log_failed_message(telemetry: LambdaTelemetry, record: SQSRecord, error: Exception) -> None:
    """Log the error of a failed message without secrets, and count the message in the metric `MessagesFailed`.

    The caller must report the failure to the queue, so that the queue delivers the message again.
    """
    telemetry.count("MessagesFailed")
    message = {"message_id": record.message_id, "delivery": record.attributes.approximate_receive_count}
    if isinstance(error, RecsysError):
        _logger.warning("Message will be retried: %s", redacted(error.detail), extra=message)
    else:
        _logger.error("Message failed\n%s", redacted("".join(traceback.format_exception(error))), extra=message)
