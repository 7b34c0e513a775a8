"""Lambda entry point of the function `api`, with DynamoDB as the registry and S3 as the object store."""

from __future__ import annotations

from typing import Final

from recsys import aws
from recsys.http.lambda_app import lambda_handler
from recsys.http.telemetry import LambdaHandler, LambdaTelemetry
from recsys.objects.s3 import S3ObjectStore
from recsys.objects.store import ObjectStore
from recsys.registry.dynamodb import DynamoTable
from recsys.registry.registry import Registry
from recsys.settings import Settings
from recsys_api.app import create_app


def build_handler(registry: Registry, store: ObjectStore, settings: Settings) -> LambdaHandler:
    """Return the Lambda handler for the given registry and object store."""
    telemetry = LambdaTelemetry("api", per_route_metrics=settings.per_route_metrics)
    app = create_app(registry, store, settings, on_request_end=telemetry.record_request)
    return lambda_handler(app, telemetry)


_settings: Final = Settings.from_environment(backend="aws")
handle: Final = build_handler(
    Registry(DynamoTable(aws.dynamodb_client(), _settings.table), audit_days=_settings.audit_days),
    S3ObjectStore(aws.s3_client(), _settings.bucket),
    _settings,
)
