"""The directory's stand-in for S3 events: which objects ask for training, found by looking.

Looking is level-triggered: after a crash the same look finds the same files, and the registry knows which are done.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, field

from recsys.clock import Clock, after, utc_now
from recsys.objects import layout
from recsys.objects.layout import Upload
from recsys.objects.store import ObjectInfo, ObjectStore
from recsys_train.events import ObjectCreated

logger = logging.getLogger("recsys.watcher")

SETTLED_S = 2.0
"""How long nobody may have written to a dropped file: a copy over a network pauses."""


@dataclass(slots=True)
class ObjectWatcher:
    """Finds objects under `uploads/` and `inbox/` that nobody called done yet.

    A file counts once it looks the same in two looks, and a drop once it is `SETTLED_S` old, so that a copy under way
    is left to end.
    """

    store: ObjectStore
    clock: Clock = utc_now
    _done: set[tuple[str, str]] = field(default_factory=set)
    _last_look: set[tuple[str, str]] = field(default_factory=set)
    _warned_of: set[str] = field(default_factory=set)

    def look(self) -> list[ObjectCreated]:
        """New objects, in the order in which they arrived.

        Raises
        ------
        Unavailable
        """
        found = [
            info
            for prefix in (layout.UPLOADS, layout.INBOX)
            for info in self.store.list(prefix)
            if (info.name, info.version) not in self._done
        ]
        settled = [info for info in found if self._is_settled(info)]
        self._last_look = {(info.name, info.version) for info in found}
        for info in settled:
            self._warn_if_ignored(info.name)
        asking = [info for info in settled if layout.parse_source(info.name) is not None]
        return [_event(info) for info in sorted(asking, key=lambda info: (info.arrived_at, info.name))]

    def done(self, event: ObjectCreated) -> None:
        """Pass the object over from now on."""
        self._done.add((event.name, event.version))

    def _is_settled(self, info: ObjectInfo) -> bool:
        if (info.name, info.version) not in self._last_look:
            return False
        if isinstance(layout.parse_source(info.name), Upload):
            return True  # the service puts it there whole
        # Not `modified_at`: every write sets both, but a copy can keep a time of its own, even one to come.
        return info.arrived_at <= after(self.clock(), -SETTLED_S)

    def _warn_if_ignored(self, name: str) -> None:
        """Say once of a file in the inbox that no training comes of it; hidden ones are other programs' affair."""
        is_hidden = any(part.startswith(".") for part in name.split("/"))
        if not name.startswith(layout.INBOX) or is_hidden or name in self._warned_of:
            return
        if layout.parse_source(name) is None:
            self._warned_of.add(name)
            logger.warning(
                "%r is left alone. Expected inbox/NAME.csv or inbox/KEY_ID/NAME.csv (or .csv.gz): "
                "move or rename the file to train on it.",
                name,
            )


def _event(info: ObjectInfo) -> ObjectCreated:
    # A dropped file's own time says nothing: `cp -p` and `mv` keep the old one.
    return ObjectCreated(info.name, info.version, data_timestamp=f"{info.arrived_at}#{info.name}")
