"""The directory's stand-in for S3 events: which objects ask for training, found by looking.

Looking is level-triggered: after a crash the same look finds the same files, and the registry knows which are done.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from recsys import object_names
from recsys.clock import Clock, utc_now
from recsys.object_names import Drop
from recsys.objects.port import ObjectInfo, ObjectStore
from recsys_train.events import ObjectCreated


@dataclass(slots=True)
class ObjectWatcher:
    """Finds objects under `uploads/` and `inbox/` that nobody called done yet.

    A file counts once it looks the same in two looks, so that a copy under way is left to end.
    """

    store: ObjectStore
    clock: Clock = utc_now
    _done: set[tuple[str, str]] = field(default_factory=set)
    _last_look: set[tuple[str, str]] = field(default_factory=set)

    def look(self) -> list[ObjectCreated]:
        """New objects, oldest first."""
        found = [
            info
            for prefix in (object_names.UPLOADS, object_names.INBOX)
            for info in self.store.list(prefix)
            if object_names.parse_source(info.name) is not None and (info.name, info.version) not in self._done
        ]
        present = {(info.name, info.version) for info in found}
        settled = [info for info in found if (info.name, info.version) in self._last_look]
        self._last_look = present
        return [self._event(info) for info in sorted(settled, key=lambda info: info.modified_at)]

    def done(self, event: ObjectCreated) -> None:
        """Pass the object over from now on."""
        self._done.add((event.name, event.version))

    def _event(self, info: ObjectInfo) -> ObjectCreated:
        # A dropped file's own time says nothing: `cp -p` and `mv` keep the old one. When it was found counts.
        is_drop = isinstance(object_names.parse_source(info.name), Drop)
        moment = self.clock() if is_drop else info.modified_at
        return ObjectCreated(info.name, info.version, order=f"{moment}#{info.name}")
