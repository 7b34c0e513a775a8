"""Lambda entry point of the function `gc`, which deletes data that the retention policy no longer keeps.

A schedule starts the function. It is deployed with the package of `api`, which contains all modules that it needs. The
bucket's lifecycle rules delete old uploads and receipts, and DynamoDB deletes expired records.
"""

from __future__ import annotations

import logging
from typing import Any, Final

from recsys import aws
from recsys.errors import Unavailable
from recsys.http.telemetry import LambdaHandler, LambdaTelemetry
from recsys.objects.s3 import S3ObjectStore
from recsys.registry.dynamodb import DynamoTable
from recsys.retention.collector import Collector
from recsys.retention.plan import RetentionPolicy
from recsys.settings import Settings

_logger: Final = logging.getLogger("recsys.gc")


def build_handler(collector: Collector) -> LambdaHandler:
    """Return a Lambda handler that calls `collector.run` once per invocation.

    The handler logs one line per deletion and one line for the whole run. If a deletion failed, the handler raises
    `Unavailable`, which triggers the alarm on the function's errors. The next run retries failed deletions.
    """

    def collect(_event: dict[str, Any], _context: object) -> dict[str, Any]:
        collection = collector.run()
        for deletion in collection.deletions:
            _logger.info(
                "Retired" if deletion.is_mark else "Deleted",
                extra={"what": deletion.what, "reason": deletion.reason.value, "size_bytes": deletion.size_bytes},
            )
        outcome = {
            "retired": sum(deletion.is_mark for deletion in collection.deletions),
            "deleted": sum(not deletion.is_mark for deletion in collection.deletions),
            "freed_bytes": collection.freed_bytes,
            "failed": collection.n_failed,
        }
        _logger.info("Collection ended", extra=outcome)
        if collection.n_failed:
            raise Unavailable(f"{collection.n_failed} deletions failed. The next run retries them.")
        return outcome

    return LambdaTelemetry("gc").watch(collect)


_settings: Final = Settings.from_environment(backend="aws")
handle: Final = build_handler(
    Collector(
        DynamoTable(aws.dynamodb_client(), _settings.table),
        S3ObjectStore(aws.s3_client(), _settings.bucket),
        RetentionPolicy.of(
            versions_kept=_settings.versions_kept,
            key_cache_s=_settings.key_cache_s,
            upload_days=None,
            audit_days=_settings.audit_days,
        ),
    )
)
