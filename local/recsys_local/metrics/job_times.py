"""Times of jobs and publications, read from the registry without their reports and metrics."""

from __future__ import annotations

import json
from typing import Final, NamedTuple

from recsys.clock import Timestamp
from recsys.registry.sqlite import SqliteRegistry

# Extracted by SQLite, because a document has kilobytes of report that would be parsed for nothing.
_JOBS: Final = """
    SELECT json_extract(document, '$.job_id', '$.state', '$.created_at', '$.updated_at', '$.started_at')
    FROM registry WHERE sort = 'JOB'
"""
_NEWEST_VERSION: Final = """
    SELECT max(json_extract(document, '$.created_at')) FROM registry WHERE sort > 'VERSION#' AND sort < 'VERSION$'
"""


class JobTimes(NamedTuple):
    """State and times of a job; `state` is text, because a newer release may have written it."""

    job_id: str
    state: str
    created_at: Timestamp
    updated_at: Timestamp
    started_at: Timestamp | None


def list_job_times(registry: SqliteRegistry) -> list[JobTimes]:
    """Return state and times of every job; raise `Unavailable` if the registry cannot be read."""
    return [JobTimes(*json.loads(text)) for (text,) in registry.query(_JOBS)]


def newest_version_at(registry: SqliteRegistry) -> Timestamp | None:
    """Return the time of the newest publication of any key, or None; raise `Unavailable` as above."""
    ((newest,),) = registry.query(_NEWEST_VERSION)
    return None if newest is None else Timestamp(newest)
