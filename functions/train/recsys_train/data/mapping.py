"""Find the columns of a file that contain the user, item, time and score.

A column is named by an option, is known from the system that exported the file, or has a common name.
"""

from __future__ import annotations

import importlib.resources
import json
import re
from collections import Counter
from dataclasses import dataclass
from functools import cache
from typing import Any, Final

from recsys.errors import InvalidData
from recsys.file_options import FileOptions

DOCUMENTED: Final = {"user": "user_id", "item": "item_id", "time": "timestamp", "score": "interaction_score"}
"""The documented column name of each role. It takes precedence over other common names."""
NO_COLUMN: Final = "-"
"""Value of an option which states that no column has the role, as in `score=-`."""
_REQUIRED: Final = ("user", "item")
_EVENT: Final = "event"


@dataclass(frozen=True, slots=True)
class Mapping:
    """Assignment of the roles user, item, time, score and event to columns of a file.

    Parameters
    ----------
    positions
        Index of the column of each role. The roles `time` and `score` can be missing. The role `event`, the kind of an
        interaction such as a purchase, is present if the option `events` is set.
    names
        Name of the column of each role, as in the file.
    source
        Source of the mapping: `options`, the name of a system in `known_columns.json`, or `names`.
    guests
        User ids that the system writes for customers without an account.
    unused_event
        Name of a column that is not used, although its name indicates kinds of events. None if there is none.
    """

    positions: dict[str, int]
    names: dict[str, str]
    source: str
    guests: frozenset[bytes] = frozenset()
    unused_event: str | None = None


def map_columns(header: list[str], options: FileOptions) -> Mapping:
    """Find the columns of a header that have the roles user, item, time, score and event.

    The options of the file take precedence over known column names.

    Raises
    ------
    InvalidData
        No column matches a required role or an option, several columns match the same role, or two roles match the same
        column.

    Examples
    --------
    >>> map_columns(["userId", "movieId", "rating", "timestamp"], FileOptions()).source
    'movielens'
    >>> map_columns(["Customer ID", "SKU", "Price"], FileOptions()).names
    {'user': 'Customer ID', 'item': 'SKU'}
    """
    system = _recognise(header)
    known = _known()["systems"].get(system, {})
    positions = {}
    for role in DOCUMENTED:
        option = getattr(options, role)
        found = _by_option(header, role, option) if option else _by_name(header, role, known)
        if found is not None:
            positions[role] = found
    if options.events:
        positions[_EVENT] = _event_column(header, options.event, positions)
    missing = [role for role in _REQUIRED if role not in positions]
    if missing:
        raise _missing(header, missing)
    if positions["user"] == positions["item"]:
        raise InvalidData(
            f"The column {header[positions['user']]!r} is used for both the user and the item.",
            code="duplicate-column",
            hint="Pass the names of two different columns: user=COLUMN and item=COLUMN.",
        )
    is_known_user = _plain(header[positions["user"]]) in {_plain(name) for name in known.get("user", ())}
    guests = known.get("guests", ()) if is_known_user else ()
    has_options = any(getattr(options, role) for role in DOCUMENTED)
    return Mapping(
        positions,
        {role: header[position].strip() for role, position in positions.items()},
        "options" if has_options else system or "names",
        frozenset(guest.encode() for guest in guests),
        next((header[index].strip() for index in _event_columns(header) if index not in positions.values()), None),
    )


def fits(header: list[str], options: FileOptions) -> bool:
    """Return whether the header has at least one column for each required role. Ambiguous columns count."""
    try:
        map_columns(header, options)
    except InvalidData as error:
        return error.problem_code in ("ambiguous-column", "duplicate-column")
    return True


@cache
def _known() -> dict[str, Any]:
    return dict(json.loads((importlib.resources.files("recsys_train.data") / "known_columns.json").read_bytes()))


def _plain(name: str) -> str:
    """Return the name in lower case without spaces and punctuation, so that `User ID` and `userId` become equal."""
    return re.sub(r"[\W_]+", "", name.casefold())


def _recognise(header: list[str]) -> str | None:
    names = {_plain(name) for name in header}
    systems = _known()["systems"].items()
    return next((name for name, known in systems if {_plain(column) for column in known["signature"]} <= names), None)


def _by_option(header: list[str], role: str, option: str) -> int | None:
    if option == NO_COLUMN and role not in _REQUIRED:
        return None
    for same in (str, str.strip, str.casefold, _plain):
        found = [index for index, name in enumerate(header) if same(name) == same(option)]
        if len(found) == 1:
            return found[0]
        if found:
            raise _duplicate(header, option)
    raise InvalidData(
        f"The option {role} names the column {option[:80]!r}, which the header does not have. "
        f"Received: {_received(header)}.",
        code="missing-column",
        hint="Copy the column's name from the header.",
    )


def _by_name(header: list[str], role: str, known: dict[str, list[str]]) -> int | None:
    documented_name = DOCUMENTED.get(role, role)
    documented = [index for index, name in enumerate(header) if name.strip().casefold() == documented_name]
    if len(documented) > 1:
        raise _duplicate(header, documented_name)
    if documented and role not in known:
        return documented[0]
    wanted = {_plain(name) for name in known.get(role) or _known()["generic"][role]}
    found = [index for index, name in enumerate(header) if _plain(name) in wanted]
    if not found:
        return documented[0] if documented else None
    if len(found) > 1:
        names = " and ".join(repr(header[index].strip()[:80]) for index in found[:4])
        alternative = "" if role in _REQUIRED else f", or {role}={NO_COLUMN} to use none"
        raise InvalidData(
            f"Expected one column for the {role}. Received {len(found)} that fit: {names}.",
            code="ambiguous-column",
            hint=f"Choose one with the option {role}, for example {role}={header[found[0]].strip()}{alternative}.",
        )
    return found[0]


def _event_column(header: list[str], option: str | None, others: dict[str, int]) -> int:
    """Return the index of the column with the kind of event, which the option `events` needs."""
    found = _by_option(header, _EVENT, option) if option else _by_name(header, _EVENT, {})
    if found is not None and found in others.values():
        raise InvalidData(
            f"The column {header[found]!r} is used for the event and for another role.",
            code="duplicate-column",
            hint="Pass the name of another column: event=COLUMN.",
        )
    if found is None:
        raise InvalidData(
            f"The option events needs a column with the kind of event. Received: {_received(header)}.",
            code="missing-column",
            hint="Pass the column's name as event=COLUMN, or remove the option events.",
        )
    return found


def _event_columns(header: list[str]) -> list[int]:
    known = {_plain(name) for name in _known()["generic"][_EVENT]}
    return [index for index, name in enumerate(header) if _plain(name) in known]


def _missing(header: list[str], roles: list[str]) -> InvalidData:
    names = " and ".join(DOCUMENTED[role] for role in roles)
    example = " and ".join(f"{role}=…" for role in roles)
    if len(roles) == 1:
        missing = f"Column {names} is missing, and no column has another known name for it"
        fix = f"Rename the column, or pass its name with the option {example}."
    else:
        missing = f"Columns {names} are missing, and no columns have other known names for them"
        fix = f"Rename the columns, or pass their names with the options {example}."
    return InvalidData(
        f"{missing}. Received: {_received(header)}.",
        code="missing-column",
        hint=f"{fix} The first line of the file must be the header.",
    )


def _duplicate(header: list[str], name: str) -> InvalidData:
    count = Counter(column.strip().casefold() for column in header)[name.strip().casefold()]
    return InvalidData(
        f"The header has the column {name} {'more than once' if count < 2 else f'{count} times'}. "
        f"Received: {_received(header)}.",
        code="duplicate-column",
        hint="Remove or rename all of these columns except one.",
    )


def _received(header: list[str]) -> str:
    return ", ".join(repr(name.strip()[:40]) for name in header[:20])
