"""The data report, which contains the format of a file, counts of its lines by outcome, and suggested improvements."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from recsys.errors import FieldError
from recsys_train.data.expectation import Remark, expected_quality
from recsys_train.data.interactions import Interactions

MAX_LISTED_LINES: Final = 100
MAX_BAD_SHARE: Final = 0.01
"""Share of bad lines above which a file is rejected, because the export is then probably wrong. Not tuned."""
MAX_LISTED_COLUMNS: Final = 100
MAX_NAME: Final = 60
MAX_DETAIL: Final = 160
"""Longest name of a column and longest detail of a bad line in a report, in characters. DynamoDB limits a row to
400 KB, and the row of a job contains the bad lines twice: in the report and in the problem.
"""
SKIP_RULES: Final = {
    "guest": "without a user (guest checkouts)",
    "other-event": "with a kind of event that is not among events",
    "not-positive-score": "with an interaction_score of 0 or less",
    "below-min-score": "with a score below min_score",
    "excluded-item": "with an item of exclude_items",
    "erased-user": "of users who were erased after the file arrived",
}
"""Rules by which valid lines are skipped, with the text that follows `n lines` or `1 line`."""
_MANY_GUESTS: Final = 0.5
_MANY_SINGLE_USERS: Final = 0.5


def fix_lines_hint(listed: Sequence[FieldError]) -> str:
    """Return the hint for a file with too many bad lines, of which at most the first `MAX_LISTED_LINES` are listed."""
    which = "them" if len(listed) < MAX_LISTED_LINES else f"the first {len(listed)} of them"
    return f"Fix the bad lines and send the file again. `errors` lists {which}."


@dataclass(slots=True)
class SkippedLines:
    """Number of lines that one rule skipped, and line numbers of the first 100 of them."""

    count: int = 0
    lines: list[int] = field(default_factory=list)


@dataclass(slots=True)
class DataReport:
    """The data report of a file, which is filled while the file is read.

    Parameters
    ----------
    mapping, mapping_source
        Name of the column for each role, and the source of the mapping: `options`, `names` or a system such as
        `shopify`.
    format
        Type, compression, charset, delimiter, number of the header line, time format and decimal separator.
    ignored_columns
        Names of the columns that are not used.
    lines
        Number of lines below the header, without blank lines.
    bad_lines, bad_by_code
        Number of lines that cannot be used, in total and by problem code.
    listed
        The first 100 bad lines with their problems.
    lines_inside_quotes
        Number of line breaks inside quoted fields.
    skipped
        Lines that were skipped, by rule. The rules are the keys of `SKIP_RULES`.
    rows_used
        Number of lines that are used.
    padded_ids
        Number of ids in used lines that begin or end with white space. Such white space is part of the id.
    users, items, interactions
        Number of distinct users, items and pairs.
    users_with_one_interaction
        Number of users with a single interaction, for whom quality cannot be measured.
    first_time, last_time
        First and last time, in microseconds since 1970 (UTC). None if no line has a time.
    needs_min_score
        Whether the scores look like ratings and no `min_score` was set.
    unused_event
        Name of an unused column that seems to contain kinds of events. None if there is none.
    added_warnings
        Warnings that the training added.
    appended_to, kept_interactions
        Version to whose interactions the file was added, and number of these interactions. None and 0 if the file was
        not added to a version.
    """

    mapping: dict[str, str] = field(default_factory=dict)
    mapping_source: str = ""
    format: dict[str, Any] = field(default_factory=dict)
    ignored_columns: list[str] = field(default_factory=list)
    lines: int = 0
    bad_lines: int = 0
    bad_by_code: Counter[str] = field(default_factory=Counter)
    listed: list[FieldError] = field(default_factory=list)
    lines_inside_quotes: int = 0
    skipped: dict[str, SkippedLines] = field(default_factory=dict)
    rows_used: int = 0
    padded_ids: int = 0
    users: int = 0
    items: int = 0
    interactions: int = 0
    users_with_one_interaction: int = 0
    first_time: int | None = None
    last_time: int | None = None
    needs_min_score: bool = False
    unused_event: str | None = None
    added_warnings: list[Remark] = field(default_factory=list)
    appended_to: str | None = None
    kept_interactions: int = 0

    @property
    def has_scores(self) -> bool:
        """Whether a column has the role `score`."""
        return "score" in self.mapping

    @property
    def has_timestamps(self) -> bool:
        """Whether a column has the role `time`."""
        return "time" in self.mapping

    def describe_mapping(self, names: dict[str, str], source: str) -> None:
        """Store the name of the column of each role, and the source of this mapping."""
        self.mapping, self.mapping_source = dict(names), source

    def describe_columns(self, header: list[str], used: set[int]) -> None:
        """Store the names of the ignored columns. `used` contains the indices of all other columns of the header."""
        self.ignored_columns = [name.strip() for index, name in enumerate(header) if index not in used]

    def describe_interactions(self, interactions: Interactions) -> None:
        """Store the numbers of users, items and pairs."""
        self.users, self.items = interactions.n_users, interactions.n_items
        self.interactions = len(interactions)
        per_user = np.bincount(interactions.users, minlength=interactions.n_users)
        self.users_with_one_interaction = int((per_user == 1).sum())

    def add_bad_line(self, line: int, code: str, detail: str, *, spans: int = 1, column: str | None = None) -> None:
        """Count a bad record that extends over `spans` lines. The first 100 bad records are also listed."""
        self.bad_lines += spans
        self.bad_by_code[code] += spans
        if len(self.listed) < MAX_LISTED_LINES:
            column = _shortened(column) if column is not None else None
            self.listed.append(FieldError(code, _shortened(detail, MAX_DETAIL), line=line, column=column))

    def skip(self, rule: str, lines: NDArray[np.int64]) -> None:
        """Count lines that a rule skipped, and store the first 100 line numbers of each rule."""
        if len(lines):
            skipped = self.skipped.setdefault(rule, SkippedLines())
            skipped.count += len(lines)
            skipped.lines += lines[: MAX_LISTED_LINES - len(skipped.lines)].tolist()

    def add_times(self, first: int, last: int) -> None:
        """Extend the range from `first_time` to `last_time` to include two times, in microseconds since 1970 (UTC)."""
        self.first_time = first if self.first_time is None else min(self.first_time, first)
        self.last_time = last if self.last_time is None else max(self.last_time, last)

    @property
    def has_too_many_bad_lines(self) -> bool:
        """Whether more than `MAX_BAD_SHARE` of the lines are bad."""
        return self.bad_lines > MAX_BAD_SHARE * self.lines

    def bad_lines_text(self) -> str:
        """Return a summary such as `12 of 340 lines are bad (10 ragged-line, 2 blank-item-id)`."""
        kinds = ", ".join(f"{count:,} {code}" for code, count in self.bad_by_code.most_common())
        return f"{self.bad_lines:,} of {self.lines:,} lines are bad ({kinds})"

    def skipped_text(self) -> str:
        """Return a summary such as `12 lines without a user (guest checkouts)`."""
        return ", ".join(self._skipped_lines(rule) for rule in self.skipped)

    def _skipped_lines(self, rule: str) -> str:
        count = self.skipped[rule].count
        return f"{count:,} {'line' if count == 1 else 'lines'} {SKIP_RULES[rule]}"

    def add_warning(self, code: str, text: str) -> None:
        """Add a warning about the trained model. `warnings` returns such warnings after the warnings about the file."""
        self.added_warnings.append(Remark(code, text))

    def warnings(self) -> list[Remark]:
        """Return remarks on problems that do not prevent a training, but that the tenant should check."""
        warnings = []
        if self.bad_lines:
            warnings.append(Remark("bad-lines", f"{self.bad_lines_text()}; they were ignored."))
        warnings += [Remark(f"skipped-{rule}", f"Ignored {self._skipped_lines(rule)}.") for rule in self.skipped]
        if self.padded_ids:
            text = (
                f"{self.padded_ids:,} ids begin or end with white space, which is part of the id. Send the same "
                "white space when you request recommendations, or remove the white space from the file."
            )
            warnings.append(Remark("padded-ids", text))
        if self.needs_min_score:
            text = (
                f"The scores in {_shortened(self.mapping['score'])} look like ratings, and every rating counts as "
                "interest. Set min_score, for example min_score=4, if low ratings mean dislike."
            )
            warnings.append(Remark("no-min-score", text))
        if self.unused_event is not None:
            text = (
                f"The column {_shortened(self.unused_event)} is not used, so that every kind of event counts as the "
                "same interest. If some kinds, such as views, do not show interest, select the others, for example "
                "with events=add_to_cart,purchase."
            )
            warnings.append(Remark("unused-event", text))
        if self.lines_inside_quotes:
            text = (
                f"{self.lines_inside_quotes:,} line breaks are inside quotes. After the first of them, line numbers in "
                "this report count records instead of lines. If the line breaks are not intended, look for a quote "
                "that is not closed."
            )
            warnings.append(Remark("lines-inside-quotes", text))
        return warnings + self.added_warnings

    def advice(self) -> list[Remark]:
        """Return remarks about the expected quality, and about ways to improve the quality."""
        if self.interactions == 0:
            return []
        n_measured = self.users - self.users_with_one_interaction
        advice = expected_quality(n_measured, self.interactions / self.users)
        if not self.has_timestamps:
            advice.append(Remark("add-times", "Add a column with the time, so that recent items can weigh more."))
        if self.users_with_one_interaction > _MANY_SINGLE_USERS * self.users:
            text = (
                "Most users have a single item, so that the model learns little about them. Send data of a longer "
                "period."
            )
            advice.append(Remark("single-items", text))
        if self.lines and self.skipped.get("guest", SkippedLines()).count > _MANY_GUESTS * self.lines:
            text = "Most lines have no user. Another column, such as the email address, may identify customers."
            advice.append(Remark("identify-guests", text))
        return advice

    def to_json(self) -> dict[str, Any]:
        """Return the report as it appears in `metrics.json` and in the job."""
        cells = self.users * self.items
        return {
            "mapping": {role: _shortened(name) for role, name in self.mapping.items()},
            "mapping_source": self.mapping_source,
            "format": self.format,
            "ignored_columns": [_shortened(name) for name in self.ignored_columns[:MAX_LISTED_COLUMNS]],
            "lines": self.lines,
            "rows_used": self.rows_used,
            "bad_lines": self.bad_lines,
            "bad_by_code": dict(self.bad_by_code),
            "errors": [error.to_json() for error in self.listed],
            "skipped": {rule: {"count": lines.count, "lines": lines.lines} for rule, lines in self.skipped.items()},
            "users": self.users,
            "items": self.items,
            "interactions": self.interactions,
            "duplicates": max(0, self.kept_interactions + self.rows_used - self.interactions),
            "users_with_one_interaction": self.users_with_one_interaction,
            "density": round(self.interactions / cells, 6) if cells else None,
            "first_time": _iso(self.first_time),
            "last_time": _iso(self.last_time),
            "has_scores": self.has_scores,
            "has_timestamps": self.has_timestamps,
            "appended_to": self.appended_to,
            "kept_interactions": self.kept_interactions,
            "warnings": [remark.to_json() for remark in self.warnings()],
            "advice": [remark.to_json() for remark in self.advice()],
        }


def _iso(microseconds: int | None) -> str | None:
    """Return a time as ISO 8601, or None if the time is missing or outside of the years 1 to 9999."""
    if microseconds is None:
        return None
    try:
        return (datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=microseconds)).isoformat()
    except OverflowError:
        return None


def _shortened(text: str, length: int = MAX_NAME) -> str:
    return text if len(text) <= length else f"{text[: length - 1]}…"
