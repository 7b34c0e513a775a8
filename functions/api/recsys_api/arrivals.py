"""Add each file that arrives in the bucket to the waiting files of its key.

A key with many files must not delay the files of other keys. Therefore, at most one training file per key is in the
queue of trainings at a time, and the other training files of the key wait in the registry.
"""

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
    """An assignment of each file to a group. The files of a group are processed one after the other.

    A key is known if it has a model or was created by the operator. The training files of a known key form a group. Its
    files that are only validated, and its files that update the item catalogue, form two further groups, because their
    jobs take only seconds and need not wait for trainings. The files of all other keys form one group together, because
    every request without a key creates a key, and the number of these keys is not limited.

    Parameters
    ----------
    registry
        Registry of the keys and jobs.
    turns
        Store of the waiting files, which sends the message of a file as soon as no other file of the group is in
        process.
    """

    def __init__(self, registry: Registry, turns: Turns) -> None:
        self._registry = registry
        self._turns = turns

    def add(self, record: dict[str, Any]) -> bool:
        """Add the object in a record of an S3 notification to the waiting files of its group.

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
        """Send the next message of each group whose current file has exceeded its time limit.

        A file exceeds its time limit if its message was never sent or could not be processed.
        """
        try:
            self._turns.resume()
        except Unavailable:
            _logger.warning("Turns could not be resumed; the next invocation tries again.", exc_info=True)

    def _group_of(self, created: ObjectCreated) -> tuple[str, bool]:
        """Return the group of a file, and whether the file makes older files of the group obsolete."""
        source = parse_source(checked_name(created.name))
        if source is None:
            raise InvalidRequest("The object is neither an upload nor a file in the inbox.")
        if isinstance(source, Drop):
            # A drop never makes older drops obsolete, because the mode of a drop can be in a sidecar file, and sidecar
            # files are not read here.
            return (source.key_id if source.key_id and self._is_known(source.key_id) else ANONYMOUS), False
        job = self._registry.get_job(source.job_id)
        if job.object_name != created.name:
            raise InvalidRequest(f"The job {job.job_id} expects the object {job.object_name!r}.")
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
