"""Lambda: SQS messages that carry S3 events, one message a call, failures reported per message."""

from __future__ import annotations

import json
from datetime import datetime
from typing import Any
from urllib.parse import unquote_plus

from aws_lambda_powertools import Logger, Metrics
from aws_lambda_powertools.metrics import MetricUnit
from aws_lambda_powertools.utilities.batch import BatchProcessor, EventType, process_partial_response
from aws_lambda_powertools.utilities.data_classes.sqs_event import SQSRecord
from aws_lambda_powertools.utilities.typing import LambdaContext

from recsys import aws
from recsys.clock import from_datetime
from recsys.objects.s3 import S3ObjectStore
from recsys.registry.dynamodb import DynamoRegistry
from recsys.settings import Settings
from recsys_train.events import ObjectCreated, process
from recsys_train.pipeline import Trainer

logger = Logger()
metrics = Metrics()
settings = Settings.from_environment(backend="aws")
store = S3ObjectStore(aws.s3_client(), settings.bucket)
registry = DynamoRegistry(aws.dynamodb_client(), settings.table)
processor = BatchProcessor(EventType.SQS, raise_on_entire_batch_failure=False)


@logger.inject_lambda_context
@metrics.log_metrics
def handle(event: dict[str, Any], context: LambdaContext) -> dict[str, Any]:
    """Work on each message; those that must come back are named in `batchItemFailures`."""
    trainer = Trainer(store, registry, settings, owner=context.aws_request_id)

    def handle_record(record: SQSRecord) -> None:
        for created in object_events(json.loads(record.body)):
            _train(created, trainer)

    return dict(process_partial_response(event, handle_record, processor, context))


def object_events(body: dict[str, Any]) -> list[ObjectCreated]:
    """The created objects in an S3 notification; none in `s3:TestEvent` and in other events."""
    return [
        _object_created(record)
        for record in body.get("Records", [])
        if record.get("eventName", "").startswith("ObjectCreated:")
    ]


def _object_created(record: dict[str, Any]) -> ObjectCreated:
    created = record["s3"]["object"]
    moment = from_datetime(datetime.fromisoformat(record["eventTime"]))
    return ObjectCreated(
        name=unquote_plus(created["key"]),
        version=created.get("versionId") or created["eTag"],
        order=f"{moment}#{created.get('sequencer', '')}",
    )


def _train(created: ObjectCreated, trainer: Trainer) -> None:
    job = process(created, trainer)
    if job is None:
        logger.info("Object ignored", object_name=created.name)
        return
    logger.info("Job ended", job_id=job.job_id, key_id=job.key_id, state=job.state, attempt=job.fence)
    metrics.add_metric(name=f"Jobs{job.state.value.capitalize()}", unit=MetricUnit.Count, value=1)
