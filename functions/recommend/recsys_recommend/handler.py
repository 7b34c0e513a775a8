"""Lambda entry point of the function `recommend`, with AWS adapters that do not need boto3."""

from __future__ import annotations

from recsys_recommend import cold_start  # isort: split

from typing import TYPE_CHECKING, Final

from recsys.http.lambda_app import lambda_handler
from recsys.http.telemetry import LambdaHandler, LambdaTelemetry
from recsys.registry.rate_limits import Buckets, ChunkedBuckets, TableBuckets
from recsys.registry.reading import KeyReader
from recsys.settings import Settings, process_environment
from recsys_recommend.app import create_app
from recsys_recommend.lean_aws.config import AwsConfig
from recsys_recommend.lean_aws.credentials import CredentialProvider
from recsys_recommend.lean_aws.dynamodb_limits import DynamoLimitTable
from recsys_recommend.lean_aws.s3_reader import S3Reader

if TYPE_CHECKING:  # the import would take 1.5 ms of a cold start
    from recsys.objects.store import ObjectReader

_STALE_WHILE_LOADING_S: Final = 2.0
"""Time after which requests wait for the current version of a model, instead of using the previous version.

A limit is needed because Lambda freezes the process between two requests. A load in the background therefore makes
progress only during requests.
"""


def build_handler(
    registry: KeyReader, store: ObjectReader, settings: Settings, buckets: Buckets | None = None
) -> LambdaHandler:
    """Return the Lambda handler for a registry and an object store.

    `buckets` are the rate-limit buckets in which the requests of each key are counted. By default, they are in memory.
    """
    telemetry = LambdaTelemetry(
        "recommend", per_route_metrics=settings.per_route_metrics, detailed_metrics=settings.detailed_metrics
    )
    app = create_app(
        registry,
        store,
        settings,
        on_request_end=telemetry.record_request,
        count_metric=telemetry.count,
        record_detail=telemetry.record_detail,
        stale_while_loading_s=_STALE_WHILE_LOADING_S,
        buckets=buckets,
    )
    return lambda_handler(app, telemetry)


_environment: Final = process_environment()
_settings: Final = Settings.from_environment(backend="aws")
_config: Final = AwsConfig.from_environment(_environment)
_credentials: Final = CredentialProvider(_environment)
_registry: Final = DynamoLimitTable(_config, _credentials, _settings.table)
handle: Final = build_handler(
    _registry,
    S3Reader(_config, _credentials, _settings.bucket),
    _settings,
    ChunkedBuckets(TableBuckets(_registry)),
)
cold_start.finish()
