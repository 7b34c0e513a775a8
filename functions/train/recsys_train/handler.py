"""Lambda handler of the function `train`, which processes S3 events from an SQS queue."""

from __future__ import annotations

import json
import logging
from functools import partial
from typing import Any, Final

from aws_lambda_powertools.utilities.batch import BatchProcessor, EventType, process_partial_response
from aws_lambda_powertools.utilities.data_classes.sqs_event import SQSRecord
from aws_lambda_powertools.utilities.typing import LambdaContext

from recsys import aws
from recsys.clock import to_datetime
from recsys.errors import Unavailable
from recsys.http.failed_messages import log_failed_message
from recsys.http.telemetry import LambdaTelemetry
from recsys.objects.created import ObjectCreated, object_created, records_of
from recsys.objects.s3 import S3ObjectStore
from recsys.registry.dynamodb import DynamoTable
from recsys.registry.registry import Registry
from recsys.registry.turns import FileTurn, Turns
from recsys.settings import Settings
from recsys_train.events import process
from recsys_train.job import Trainer

MAX_RETRY_DELAY_S: Final = 3600
HIDDEN_LEASES: Final = 2
"""Number of lease durations for which a message is hidden. The lease of a killed worker has expired when the message
becomes visible again.
"""
MAX_KILLS: Final = 2
MAX_KILL_AGE_S: Final = 300.0
"""Age in seconds above which a killed attempt is not repeated. With this limit and `MAX_KILLS`, a job whose attempts
are killed fails after at most 17 minutes. In this time, the job has either two attempts of five minutes or one attempt
of fifteen minutes, and two delays.
"""

_logger: Final = logging.getLogger("recsys.train")
settings: Final = Settings.from_environment(backend="aws")
telemetry: Final = LambdaTelemetry("train", detailed_metrics=settings.detailed_metrics)
store: Final = S3ObjectStore(aws.s3_client(), settings.bucket)
table: Final = DynamoTable(aws.dynamodb_client(), settings.table)
registry: Final = Registry(table, audit_days=settings.audit_days)
queue: Final = aws.sqs_client()
processor: Final = BatchProcessor(EventType.SQS, raise_on_entire_batch_failure=False)


def _handle(event: dict[str, Any], context: LambdaContext) -> dict[str, Any]:
    """Run the jobs of the objects in each message, and return the messages to retry in `batchItemFailures`."""

    def handle_record(record: SQSRecord) -> None:
        trainer = Trainer(
            store,
            registry,
            settings,
            owner=context.aws_request_id,
            time_left_s=lambda: context.get_remaining_time_in_millis() / 1000,
            on_renewal=partial(_hide, record, HIDDEN_LEASES * settings.lease_s),
            max_kills=MAX_KILLS,
            max_kill_age_s=MAX_KILL_AGE_S,
        )
        trainer.on_renewal()
        try:
            body = json.loads(record.body)
            for created in records_of(body, settings.bucket):
                _train(object_created(created), trainer)
            _end_turn(body, record.queue_url)
        except Exception as error:
            log_failed_message(telemetry, record, error)
            _retry_soon(record)
            raise

    return dict(process_partial_response(event, handle_record, processor, context))


handle: Final = telemetry.watch(_handle)


def _train(created: ObjectCreated, trainer: Trainer) -> None:
    job = process(created, trainer)
    if job is None:
        return
    outcome = {"job_id": job.job_id, "key_id": job.key_id, "state": job.state.value, "attempt": job.fence}
    _logger.info("Job ended", extra=outcome)
    telemetry.count(f"Jobs{job.state.value.capitalize()}")
    if job.started_at is not None:
        duration = to_datetime(job.updated_at) - to_datetime(job.started_at)
        telemetry.record_detail("JobDuration", duration.total_seconds())


def _end_turn(body: dict[str, Any], queue_url: str) -> None:
    """End the turn of the file that was processed, so that the next waiting file is sent to the queue.

    A turn is the right of a file to be in the queue of trainings (`recsys.registry.turns`). A message contains no turn
    if S3 sent the message directly to this queue, as in stacks of earlier releases.
    """
    if "turn" in body:
        Turns(table, aws.message_sender(queue_url)).end(FileTurn(**body["turn"]))


def _retry_soon(record: SQSRecord) -> None:
    """Make a failed message visible again after the lease has expired, with exponential back-off."""
    delivery = int(record.attributes.approximate_receive_count or 1)
    _hide(record, min(MAX_RETRY_DELAY_S, HIDDEN_LEASES * settings.lease_s * 2 ** (delivery - 1)))


def _hide(record: SQSRecord, delay_s: int) -> None:
    """Set the visibility timeout of the message to `delay_s` seconds from now.

    The handler calls this function regularly during a job, so that the message of a killed worker is delivered again
    soon. The queue itself cannot have a short visibility timeout, because Lambda requires a timeout that covers the
    longest job.
    """
    try:
        with aws.translating_errors("ChangeMessageVisibility"):
            queue.change_message_visibility(
                QueueUrl=record.queue_url, ReceiptHandle=record.receipt_handle, VisibilityTimeout=delay_s
            )
    except Unavailable as error:
        _logger.warning("Message could not be hidden for %s s: %s", delay_s, error.detail)
