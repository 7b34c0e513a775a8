"""Adapt an ASGI app to the events that API Gateway sends to a Lambda function."""

from __future__ import annotations

from typing import Final

from fastapi import FastAPI
from mangum import Mangum

from recsys.http.problems import MEDIA_TYPE
from recsys.http.telemetry import LambdaHandler, LambdaTelemetry

# Mangum encodes any other media type in base64, which takes a third more of the 6 MB that a Lambda response may have.
_TEXT_TYPES: Final = ["text/", "application/json", MEDIA_TYPE]


def lambda_handler(app: FastAPI, telemetry: LambdaTelemetry) -> LambdaHandler:
    """Wrap `app` as the handler of a Lambda function behind an HTTP API (payload format 2.0)."""
    # The lifespan is off because Mangum would run it with every invocation.
    return telemetry.watch(Mangum(app, lifespan="off", text_mime_types=_TEXT_TYPES))
