"""Write the log of the local service as JSON lines, with the same fields as on AWS."""

from __future__ import annotations

import logging
import sys
from typing import TextIO

from aws_lambda_powertools.logging.formatter import LambdaPowertoolsFormatter


def log_as_json(stream: TextIO | None = None) -> logging.Handler:
    """Write the log of the service to a stream as JSON lines. The log contains one line per request.

    If `stream` is None, the log is written to standard error.

    Returns
    -------
    logging.Handler
        The handler that was added. Tests remove it.
    """
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(LambdaPowertoolsFormatter(service="local"))
    logger = logging.getLogger("recsys")
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    logger.propagate = False
    return handler
