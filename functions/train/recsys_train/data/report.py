"""The data report: what was read, what was wrong with it, counted by kind and by line."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any, Final

from recsys.errors import FieldError

MAX_LISTED_LINES: Final = 100
MAX_BAD_SHARE: Final = 0.01


@dataclass(slots=True)
class DataReport:
    """Filled while a CSV is read. `lines` counts records below the header, blank ones left out."""

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
        """Count a bad record; the first 100 are listed. `spans` is how many lines it swallowed."""
        self.bad_lines += spans
        self.bad_by_code[code] += spans
        if len(self.listed) < MAX_LISTED_LINES:
            self.listed.append(FieldError(code, detail, line=line))

    @property
    def has_too_many_bad_lines(self) -> bool:
        """Whether more than 1% of the lines are bad."""
        return self.bad_lines > MAX_BAD_SHARE * self.lines

    def bad_lines_text(self) -> str:
        """`12 of 340 lines are bad (10 ragged-line, 2 blank-user-id)`."""
        kinds = ", ".join(f"{count:,} {code}" for code, count in self.bad_by_code.most_common())
        return f"{self.bad_lines:,} of {self.lines:,} lines are bad ({kinds})"

    def warnings(self) -> list[str]:
        """What the owner of the data should look at though it did not stop the training."""
        found = []
        if self.bad_lines:
            found.append(f"{self.bad_lines_text()}; they were left out.")
        if self.not_positive:
            found.append(f"{self.not_positive:,} lines have an interaction_score of 0 or less; they were left out.")
        if self.lines_inside_quotes:
            found.append(
                f"{self.lines_inside_quotes:,} line breaks stand inside quotes; line numbers count records from there "
                "on. If that is not meant, look for a quote that is never closed."
            )
        return found

    def to_json(self) -> dict[str, Any]:
        """The report as it stands in `metrics.json` and with the job."""
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
