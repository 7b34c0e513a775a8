"""The data report: counts of the lines that were read, and the bad ones by kind and line number."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any, Final

from recsys.errors import FieldError

MAX_LISTED_LINES: Final = 100
MAX_BAD_SHARE: Final = 0.01
"""Share of bad lines above which a file is rejected: more is a mistake in the export rather than noise. Not tuned."""


@dataclass(slots=True)
class DataReport:
    """The data report of a CSV, filled while it is read.

    Parameters
    ----------
    lines
        Lines below the header, blank ones not counted.
    bad_lines, bad_by_code
        Lines that cannot be used, in total and by problem code.
    listed
        The first 100 bad lines with their problems.
    lines_inside_quotes
        Line breaks inside quoted fields.
    not_positive
        Lines that are ignored because their score is 0 or less.
    users, items, interactions
        What remains: distinct users, items and pairs.
    has_scores, has_timestamps
        Whether the file has these columns.
    ignored_columns
        Columns with an unknown name.
    """

    lines: int = 0
    bad_lines: int = 0
    bad_by_code: Counter[str] = field(default_factory=Counter)
    listed: list[FieldError] = field(default_factory=list)
    lines_inside_quotes: int = 0
    not_positive: int = 0
    users: int = 0
    items: int = 0
    interactions: int = 0
    has_scores: bool = False
    has_timestamps: bool = False
    ignored_columns: list[str] = field(default_factory=list)

    def add_bad_line(self, line: int, code: str, detail: str, *, spans: int = 1) -> None:
        """Count a bad record that extends over `spans` lines, and list it if fewer than 100 are listed."""
        self.bad_lines += spans
        self.bad_by_code[code] += spans
        if len(self.listed) < MAX_LISTED_LINES:
            self.listed.append(FieldError(code, detail, line=line))

    @property
    def has_too_many_bad_lines(self) -> bool:
        """Whether more than `MAX_BAD_SHARE` of the lines are bad."""
        return self.bad_lines > MAX_BAD_SHARE * self.lines

    def bad_lines_text(self) -> str:
        """Return a summary such as `12 of 340 lines are bad (10 ragged-line, 2 blank-user-id)`."""
        kinds = ", ".join(f"{count:,} {code}" for code, count in self.bad_by_code.most_common())
        return f"{self.bad_lines:,} of {self.lines:,} lines are bad ({kinds})"

    def warnings(self) -> list[str]:
        """Return one sentence for each finding that did not prevent training but that the tenant should check."""
        warnings = []
        if self.bad_lines:
            warnings.append(f"{self.bad_lines_text()}; they were ignored.")
        if self.not_positive:
            warnings.append(f"{self.not_positive:,} lines have an interaction_score of 0 or less; they were ignored.")
        if self.lines_inside_quotes:
            warnings.append(
                f"{self.lines_inside_quotes:,} line breaks are inside quotes, and from there on line numbers count "
                "records. If that is not intended, look for a quote that is not closed."
            )
        return warnings

    def to_json(self) -> dict[str, Any]:
        """Return the report as it appears in `metrics.json` and in the job."""
        return {
            "lines": self.lines,
            "bad_lines": self.bad_lines,
            "bad_by_code": dict(self.bad_by_code),
            "errors": [error.to_json() for error in self.listed],
            "users": self.users,
            "items": self.items,
            "interactions": self.interactions,
            "has_scores": self.has_scores,
            "has_timestamps": self.has_timestamps,
            "ignored_columns": self.ignored_columns,
            "warnings": self.warnings(),
        }
