"""Let the files of a group take turns on AWS, so that no group occupies more than one training slot.

A key is known if it has a model or was created by the operator. The training files of a known key form a group. Its
validations and its item catalogues form two further groups. All files of all other keys together form one group.

A turn is the right of a file to be in the queue of trainings. In each group, one file at a time has the turn, and the
other files wait in the registry. When the job of the file with the turn is final, the next file of the group gets the
turn and is queued behind the files of all other groups (docs/decisions/0065-turns-on-aws.md).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any, Final

from recsys.clock import DAY_S, Clock, Timestamp, after, utc_now
from recsys.registry.documents import Document
from recsys.registry.reading import unexpired
from recsys.registry.table import Address, Change, Row, Table
from recsys.registry.transactions import commit_with_retry

ANONYMOUS: Final = "anonymous"
"""Name of the group of all keys that are not known (see `recsys.registry.rules.is_known`). No key has this id, because
key ids have another length."""
SENDING_S: Final = 60
"""Seconds after which a turn expires if the message of its file has not been sent. A message stays unsent if the
process was killed."""
TURN_VALID_S: Final = 6 * 3600
"""Seconds after which a turn expires if the message of its file has been sent. A turn takes so long only if the message
is in the dead-letter queue."""
WAITING_VALID_S: Final = 30 * DAY_S
"""Seconds for which a file may wait. The bucket deletes uploads after the same time, 30 days."""

_FILE: Final = "FILE#"
"""Start of the `sort` of every waiting file."""
_TURNS: Final = "TURNS"
_GROUP: Final = "GROUP#"
"""Start of the `sort` of every turn. All turns are in the partition `TURNS`."""


@dataclass(frozen=True, slots=True)
class FileTurn:
    """A turn, which is the right of a file to be in the queue of trainings.

    One file of each group has the turn at a time. The message that starts the training of the file contains the turn,
    so that the turn can be ended when the job is final.

    Parameters
    ----------
    group
        The group of the file. It is the id of a known key, `<key_id>/<purpose>` for a validation or an item catalogue
        of a known key, or `ANONYMOUS` for the files of all other keys.
    file
        Text that identifies the file within the group. A file with a greater text arrived later.
    """

    group: str
    file: str

    @classmethod
    def of(cls, group: str, *, data_timestamp: str, name: str, version: str) -> FileTurn:
        """Return the `FileTurn` of an uploaded or dropped file. Repeated notifications of a file yield equal values."""
        digest = hashlib.sha256(f"{name}\n{version}".encode()).hexdigest()[:16]
        return cls(group, f"{data_timestamp}#{digest}")


class Turns:
    """The store of the files that wait for training, which sends the message of one file per group at a time.

    The file whose message is sent has the turn of its group. When the job of this file is final, `end` gives the turn
    to the next file. A process can be killed at any point. If a call was interrupted and is repeated, for example
    because a queue delivers a message again, the result is the same as without the interruption. At worst, a message is
    sent twice. The job of the second message has then already ended.

    Parameters
    ----------
    table
        The table of the registry.
    send
        Function that sends a message to the queue of trainings.
    clock
        Function that returns the current time.
    """

    def __init__(self, table: Table, send: Callable[[str], None], clock: Clock = utc_now) -> None:
        self._table = table
        self._send = send
        self._clock = clock

    def wait(self, turn: FileTurn, body: dict[str, Any], *, replaces: bool) -> None:
        """Store a file that waits for training, and send the message of the next file of its group.

        No message is sent while another file of the group has the turn, because that file is queued or in training.

        Parameters
        ----------
        turn
            The turn for which the file waits.
        body
            Content of the message that starts the training. The turn is added to the message.
        replaces
            Whether the file makes the earlier files of the group obsolete. The newest of such files gets the next turn.
            The jobs of the obsolete files end as superseded in later turns, without training.
        """
        message = json.dumps({**body, "turn": asdict(turn)}, separators=(",", ":"))
        expires_at = after(self._clock(), WAITING_VALID_S)
        document: Document = {"message": message, "replaces": int(replaces), "expires_at": expires_at}
        # A failed condition means that the file waits already, because its notification was repeated.
        self._table.write([Change(_waiting_address(turn), None, document)])
        self._advance(turn.group)

    def end(self, turn: FileTurn) -> None:
        """Remove a file whose job is final, end its turn, and send the message of the next file of its group."""

        def decide(_now: Timestamp) -> tuple[None, list[Change]]:
            waiting, held = self._table.get(_waiting_address(turn)), self._table.get(_turn_address(turn.group))
            is_held = held.document is not None and held.document["file"] == turn.file
            ended = [*([waiting] if waiting.document is not None else []), *([held] if is_held else [])]
            return None, [row.changed_to(None) for row in ended]

        # Both rows are deleted in one transaction, so that no other process gives the turn to this file again.
        commit_with_retry(self._table, self._clock, decide)
        self._advance(turn.group)

    def resume(self) -> None:
        """Give each expired turn to the next file of its group, and send the message of this file.

        A turn is the right of a file to be in the queue of trainings. The turn expires if the message of the file was
        lost or not sent.
        """
        now = self._clock()
        for row in self._table.list(_TURNS, _GROUP):
            if not _is_held(row, now):
                self._advance(row.address.sort.removeprefix(_GROUP))

    def _advance(self, group: str) -> None:
        """Give the turn of a group to its next file, and send the message of this file.

        Nothing happens if a file has the turn, which is the right to be in the queue of trainings.
        """

        def decide(now: Timestamp) -> tuple[Row | None, list[Change]]:
            held = self._table.get(_turn_address(group))
            if _is_held(held, now):
                return None, []
            rows = [row for row in self._table.list(f"WAITING#{group}", _FILE) if unexpired(row, now) is not None]
            lost = [row for row in rows if _was_sent(held, row)]
            first = _next([row for row in rows if row not in lost])
            changes = [row.changed_to(None) for row in lost]
            if first is not None:
                changes.append(held.changed_to(_turn_document(_file_of(first), valid_until=after(now, SENDING_S))))
            return first, changes

        first = commit_with_retry(self._table, self._clock, decide)
        if first is not None and first.document is not None:
            self._send(str(first.document["message"]))
            self._keep(group, _file_of(first))

    def _keep(self, group: str, file: str) -> None:
        """Extend the turn of a file after its message was sent, unless the turn has already ended."""
        held = self._table.get(_turn_address(group))
        if held.document is not None and held.document["file"] == file:
            valid_until = after(self._clock(), TURN_VALID_S)
            self._table.write([held.changed_to(_turn_document(file, is_sent=True, valid_until=valid_until))])


def _turn_document(file: str, *, is_sent: bool = False, valid_until: Timestamp) -> Document:
    # The member is not named `expires_at`, because the database would then delete the row, and `resume` would not find
    # it.
    return {"file": file, "is_sent": int(is_sent), "valid_until": valid_until}


def _is_held(held: Row, now: Timestamp) -> bool:
    """Return whether the row of a group's turn names a file, and the turn of this file has not expired."""
    return held.document is not None and str(held.document["valid_until"]) > now


def _was_sent(held: Row, row: Row) -> bool:
    """Return whether the turn belongs to the file of `row` and the message of the file was sent.

    If such a turn has expired, the message is in the dead-letter queue. If the operator moves the message back, the
    file is trained although it no longer waits.
    """
    return held.document is not None and held.document["file"] == _file_of(row) and bool(held.document["is_sent"])


def _next(rows: list[Row]) -> Row | None:
    """Return the row of the file that gets the next turn, or None if no file waits.

    The newest file that makes other files obsolete gets the next turn. Without such a file, the oldest file gets it.
    """
    ordered = sorted(rows, key=lambda row: row.address.sort)
    replacing = [row for row in ordered if row.document is not None and row.document["replaces"]]
    return replacing[-1] if replacing else next(iter(ordered), None)


def _file_of(row: Row) -> str:
    return row.address.sort.removeprefix(_FILE)


def _waiting_address(turn: FileTurn) -> Address:
    return Address(f"WAITING#{turn.group}", _FILE + turn.file)


def _turn_address(group: str) -> Address:
    return Address(_TURNS, _GROUP + group)
