"""The entry point on AWS Lambda: API Gateway's events to the app, with the AWS adapters."""

from __future__ import annotations

from mangum import Mangum

from recsys import aws
from recsys.http.problems import MEDIA_TYPE
from recsys.http.telemetry import LambdaHandler, LambdaTelemetry
from recsys.objects.s3 import S3ObjectStore
from recsys.objects.store import ObjectStore
from recsys.registry.dynamodb import DynamoTable
from recsys.registry.registry import Registry
from recsys.settings import Settings
from recsys_api.app import create_app

# Anything else is sent in base64, which costs a third more of the 6 MB that Lambda takes.
TEXT_TYPES = ["text/", "application/json", MEDIA_TYPE]


def build_handler(registry: Registry, store: ObjectStore, settings: Settings) -> LambdaHandler:
    """The handler over these stores."""
    telemetry = LambdaTelemetry("api")
    app = create_app(registry, store, settings, on_request_end=telemetry.observe)
    # Lifespan off: Mangum would run it with every call.
    return telemetry.watch(Mangum(app, lifespan="off", text_mime_types=TEXT_TYPES))


_settings = Settings.from_environment(backend="aws")
handle = build_handler(
    Registry(DynamoTable(aws.dynamodb_client(), _settings.table)),
    S3ObjectStore(aws.s3_client(), _settings.bucket),
    _settings,
)
