"""Update item catalogues in a thread of the worker, so that no update waits for a training."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Final

from recsys.errors import JobBusy, LeaseLost, Unavailable
from recsys.objects import layout
from recsys.objects.created import ObjectCreated
from recsys.registry.records import JobState
from recsys_local.watcher import to_event
from recsys_train.events import process
from recsys_train.job import Trainer

_logger: Final = logging.getLogger("recsys.worker")
LOOK_EVERY_S: Final = 0.5


@dataclass(slots=True)
class CatalogueWorker:
    """A thread that runs the catalogue jobs of a data directory in order of arrival.

    Parameters
    ----------
    trainer
        Trainer that runs the jobs. Its lease owner must differ from the lease owner of the trainer that trains models.
    suppressing_faults
        Function that returns a context manager, which suppresses and logs `Unavailable` errors.
    """

    trainer: Trainer
    suppressing_faults: Callable[[], AbstractContextManager[None]]

    def start(self) -> None:
        """Start a thread that looks for jobs until the process ends."""
        threading.Thread(target=self._run, name="catalogues", daemon=True).start()

    def _run(self) -> None:
        while True:
            with self.suppressing_faults():
                self.look()
            time.sleep(LOOK_EVERY_S)

    def look(self) -> None:
        """Run the job of every uploaded file of items, and delete each file when its job is in a final state.

        Stop at the first job that must be retried.

        Raises
        ------
        Unavailable
            The data directory or the registry cannot be used.
        """
        found = list(self.trainer.store.list(layout.ITEM_UPLOADS))
        for info in sorted(found, key=lambda info: (info.arrived_at, info.name)):
            if not self._work(to_event(info)):
                return  # later updates must not overtake this one

    def _work(self, event: ObjectCreated) -> bool:
        """Run the job of one file. Return False if the job must be retried."""
        try:
            job = process(event, self.trainer)
        except (JobBusy, LeaseLost) as error:
            _logger.warning("%s: %s Retrying.", event.name, error.detail)
            return False
        except Unavailable:
            raise
        except Exception:  # retried a limited number of times, because the attempts of a job are counted
            _logger.exception("%s: the update of the catalogue failed. Retrying.", event.name)
            return False
        if job is not None and job.state is JobState.SUCCEEDED:
            items = (job.report or {}).get("items", 0)
            _logger.info("The catalogue of key %s has %s items", job.key_id, f"{items:,}")
        elif job is not None and job.problem is not None:
            _logger.info("%s: %s: %s", event.name, job.state, job.problem.detail)
        self.trainer.store.delete(event.name)
        return True
