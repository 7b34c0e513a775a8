"""Lambda entry point of the function `dispatch`, which receives the notifications of S3 about new files.

The function forwards the files to the queue of trainings in such an order that a key with many files does not delay
other keys. It is deployed with the package of `api`, which contains all modules that it needs.
"""

from __future__ import annotations

import json
from typing import Any, Final

from aws_lambda_powertools.utilities.batch import BatchProcessor, EventType, process_partial_response
from aws_lambda_powertools.utilities.data_classes.sqs_event import SQSRecord
from aws_lambda_powertools.utilities.typing import LambdaContext

from recsys import aws
from recsys.http.failed_messages import log_failed_message
from recsys.http.telemetry import LambdaHandler, LambdaTelemetry
from recsys.objects.created import records_of
from recsys.registry.dynamodb import DynamoTable
from recsys.registry.registry import Registry
from recsys.registry.turns import Turns
from recsys.settings import Settings
from recsys_api.arrivals import Arrivals


def build_handler(arrivals: Arrivals, bucket: str) -> LambdaHandler:
    """Return the Lambda handler that adds the objects in each message to the waiting files.

    The handler returns the ids of the messages that SQS must deliver again. Each invocation also calls
    `Arrivals.resume`. Objects in buckets other than `bucket` are ignored.
    """
    telemetry = LambdaTelemetry("dispatch")
    processor = BatchProcessor(EventType.SQS, raise_on_entire_batch_failure=False)

    def handle_record(record: SQSRecord) -> None:
        try:
            for created in records_of(json.loads(record.body), bucket):
                arrivals.add(created)
        except Exception as error:
            log_failed_message(telemetry, record, error)
            raise

    def dispatch(event: dict[str, Any], context: LambdaContext) -> dict[str, Any]:
        reply = dict(process_partial_response(event, handle_record, processor, context))
        arrivals.resume()
        return reply

    return telemetry.watch(dispatch)


_settings: Final = Settings.from_environment(backend="aws")
_table: Final = DynamoTable(aws.dynamodb_client(), _settings.table)
handle: Final = build_handler(
    Arrivals(Registry(_table, audit_days=_settings.audit_days), Turns(_table, aws.message_sender(_settings.queue_url))),
    _settings.bucket,
)
