"""The entry point on AWS Lambda: API Gateway's events to the app, with the AWS adapters."""

from __future__ import annotations

from mangum import Mangum

from recsys import aws
from recsys.objects.port import ObjectStore
from recsys.objects.s3 import S3ObjectStore
from recsys.problem import MEDIA_TYPE
from recsys.registry.dynamodb import DynamoRegistry
from recsys.registry.port import Registry
from recsys.settings import Settings
from recsys.telemetry import LambdaHandler, LambdaTelemetry
from recsys_recommend.app import create_app

# Anything else is sent in base64, which costs a third more of the 6 MB that Lambda takes.
TEXT_TYPES = ["text/", "application/json", MEDIA_TYPE]


def build_handler(registry: Registry, store: ObjectStore, settings: Settings) -> LambdaHandler:
    """The handler over these stores."""
    telemetry = LambdaTelemetry("recommend")
    app = create_app(registry, store, settings, observe=telemetry.observe, count=telemetry.count)
    # Lifespan off: Mangum would run it with every call.
    return telemetry.watch(Mangum(app, lifespan="off", text_mime_types=TEXT_TYPES))


_settings = Settings.from_environment(backend="aws")
handle = build_handler(
    DynamoRegistry(aws.dynamodb_client(), _settings.table),
    S3ObjectStore(aws.s3_client(), _settings.bucket),
    _settings,
)
