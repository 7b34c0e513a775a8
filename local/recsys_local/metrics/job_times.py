"""Read the times of jobs and publications from the registry, without loading reports and metrics."""

from __future__ import annotations

import json
from typing import Final, NamedTuple

from recsys.clock import Timestamp
from recsys.registry.sqlite import SqliteRegistry

# SQLite extracts the fields, because a document contains a report of several kilobytes, which Python need not parse.
_JOBS: Final = """
    SELECT json_extract(document, '$.job_id', '$.state', '$.created_at', '$.updated_at', '$.started_at')
    FROM registry WHERE sort = 'JOB'
"""
_NEWEST_VERSION: Final = """
    SELECT max(json_extract(document, '$.created_at')) FROM registry WHERE sort > 'VERSION#' AND sort < 'VERSION$'
"""


class JobTimes(NamedTuple):
    """The state and times of a job.

    `state` is text, because a newer release may have written a state that this release does not know.
    """

    job_id: str
    state: str
    created_at: Timestamp
    updated_at: Timestamp
    started_at: Timestamp | None


def list_job_times(registry: SqliteRegistry) -> list[JobTimes]:
    """Return the state and times of every job.

    Raises
    ------
    Unavailable
        The registry cannot be read.
    """
    return [JobTimes(*json.loads(text)) for (text,) in registry.query(_JOBS)]


def newest_version_at(registry: SqliteRegistry) -> Timestamp | None:
    """Return the time at which the newest version of any key was published, or None if no key has a version.

    Raises
    ------
    Unavailable
        The registry cannot be read.
    """
    ((newest,),) = registry.query(_NEWEST_VERSION)
    return None if newest is None else Timestamp(newest)
