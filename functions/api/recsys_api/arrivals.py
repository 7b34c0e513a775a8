"""Let each file that arrives in the bucket wait for the turn of its key."""

from __future__ import annotations

import logging
from typing import Any, Final

from recsys.errors import InvalidRequest, JobNotFound, KeyNotFound, Unavailable
from recsys.file_options import Mode
from recsys.objects.created import ObjectCreated, object_created
from recsys.objects.names import checked_name
from recsys.objects.sources import Drop, parse_source
from recsys.registry import rules
from recsys.registry.records import JobPurpose
from recsys.registry.registry import Registry
from recsys.registry.turns import ANONYMOUS, FileTurn, Turns

_logger: Final = logging.getLogger("recsys.dispatch")


class Arrivals:
    """Assigns files to the groups that take turns at training.

    Each known key is a group. All other keys together are one group, because every request without a key creates a key,
    so that the number of these keys is not limited. Validations and catalogues of a key have turns of their own,
    because they take seconds.

    Parameters
    ----------
    registry
        Registry of the keys and jobs.
    turns
        The turns of the groups.
    """

    def __init__(self, registry: Registry, turns: Turns) -> None:
        self._registry = registry
        self._turns = turns

    def add(self, record: dict[str, Any]) -> bool:
        """Let the object of a notification's record wait for its turn.

        Returns
        -------
        bool
            False if the object does not start a job. The reason is logged.

        Raises
        ------
        Unavailable
            The registry or the queue did not respond. Retry later; a repeated call changes nothing.
        """
        created = object_created(record)
        try:
            group, replaces = self._group_of(created)
        except (InvalidRequest, JobNotFound) as error:
            _logger.info("Object ignored: %s", error.detail, extra={"object_name": created.name})
            return False
        turn = FileTurn.of(group, data_timestamp=created.data_timestamp, name=created.name, version=created.version)
        _logger.info("File waits for its turn", extra={"group": group, "object_name": created.name})
        self._turns.wait(turn, {"Records": [record]}, replaces=replaces)
        return True

    def resume(self) -> None:
        """Give each expired turn to the next file of its group. A turn expires if its message was lost or not sent."""
        try:
            self._turns.resume()
        except Unavailable:
            _logger.warning("Turns could not be resumed; the next invocation tries again.", exc_info=True)

    def _group_of(self, created: ObjectCreated) -> tuple[str, bool]:
        """Return the group of a file, and whether it makes older files of the group obsolete."""
        source = parse_source(checked_name(created.name))
        if source is None:
            raise InvalidRequest("Its name is not that of a source.")
        if isinstance(source, Drop):
            # Whether a drop is added to its key may be written in another object, so drops are trained in their order.
            return (source.key_id if source.key_id and self._is_known(source.key_id) else ANONYMOUS), False
        job = self._registry.get_job(source.job_id)
        if job.object_name != created.name:
            raise InvalidRequest("Its job has another object name.")
        if not self._is_known(job.key_id):
            return ANONYMOUS, False
        if job.purpose is not JobPurpose.TRAIN:
            return f"{job.key_id}/{job.purpose}", False
        return job.key_id, job.mode is Mode.REPLACE

    def _is_known(self, key_id: str) -> bool:
        try:
            return rules.is_known(self._registry.get_key(key_id))
        except KeyNotFound:
            return False
