"""The entry point on AWS Lambda: API Gateway's events to the app, with the AWS adapters that need no boto3."""

from __future__ import annotations

from recsys_recommend import cold_start  # isort: split

from typing import Final

from mangum import Mangum

from recsys.http.problems import MEDIA_TYPE
from recsys.http.telemetry import LambdaHandler, LambdaTelemetry
from recsys.objects.store import ObjectReader
from recsys.registry.registry import KeyReader
from recsys.settings import AwsConfig, Settings
from recsys_recommend.app import create_app
from recsys_recommend.lean_aws.dynamodb_reader import DynamoKeyReader
from recsys_recommend.lean_aws.s3_reader import S3Reader

# Anything else is sent in base64, which costs a third more of the 6 MB that Lambda takes.
TEXT_TYPES = ["text/", "application/json", MEDIA_TYPE]
_PATIENCE_S: Final = 2.0
"""Lambda freezes the loading of a new version between two requests: after so long a request waits for it to end."""


def build_handler(registry: KeyReader, store: ObjectReader, settings: Settings) -> LambdaHandler:
    """The handler over these stores."""
    telemetry = LambdaTelemetry("recommend")
    app = create_app(
        registry,
        store,
        settings,
        on_request_end=telemetry.observe,
        count=telemetry.count,
        patience_s=_PATIENCE_S,
    )
    # Lifespan off: Mangum would run it with every call.
    return telemetry.watch(Mangum(app, lifespan="off", text_mime_types=TEXT_TYPES))


_settings = Settings.from_environment(backend="aws")
_access = AwsConfig.from_environment()
handle = build_handler(DynamoKeyReader(_access, _settings.table), S3Reader(_access, _settings.bucket), _settings)
cold_start.finish()
