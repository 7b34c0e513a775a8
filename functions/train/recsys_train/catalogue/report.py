"""The report of a catalogue job, with counts of the records in the file and of the changes to the catalogue."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any, Final

from recsys.errors import FieldError, InvalidData
from recsys_train.data.report import MAX_LISTED_LINES, fix_lines_hint

MAX_BAD_SHARE: Final = 0.01
"""Share of bad lines above which a file is rejected, as for interactions."""


class UnusableItems(InvalidData):
    """Raised when a file of items was read but cannot be used. `report` lists the bad lines."""

    def __init__(self, detail: str, *, code: str, hint: str, report: CatalogueReport) -> None:
        super().__init__(detail, code=code, hint=hint, errors=report.listed)
        self.report = report


@dataclass(slots=True)
class CatalogueReport:
    """Counts for a file of items, which are updated while the file is read and merged.

    Parameters
    ----------
    format
        `csv`, `jsonl`, `json` or `parquet`.
    lines, bad_lines, bad_by_code, listed
        Number of records in the file, number of bad records, number of bad records by error code, and the first 100 bad
        records. A bad record cannot be used.
    repeated_items
        Number of records whose item already occurred in the file. The last record of an item is used.
    added, updated, items
        Number of items that were added, number of items that the catalogue already contained and that were updated, and
        number of all items in the result.
    columns
        Kind of each column of the result, by name.
    """

    format: str = ""
    lines: int = 0
    bad_lines: int = 0
    bad_by_code: Counter[str] = field(default_factory=Counter)
    listed: list[FieldError] = field(default_factory=list)
    repeated_items: int = 0
    added: int = 0
    updated: int = 0
    items: int = 0
    columns: dict[str, str] = field(default_factory=dict)

    def add_bad_line(self, line: int, code: str, detail: str, column: str | None = None) -> None:
        """Count a record that cannot be used, and list it under `listed` if it is among the first 100."""
        self.lines += 1
        self.bad_lines += 1
        self.bad_by_code[code] += 1
        if len(self.listed) < MAX_LISTED_LINES:
            self.listed.append(FieldError(code, f"Line {line}: {detail}.", line=line, column=column))

    def check(self) -> None:
        """Raise `UnusableItems` if the file has no records, or too many bad records."""
        if self.lines == 0:
            raise UnusableItems("The file has no items.", code="no-rows", hint="Send one record per item.", report=self)
        if self.bad_lines > MAX_BAD_SHARE * self.lines:
            raise UnusableItems(
                f"{self.bad_lines:,} of {self.lines:,} lines cannot be used; at most {MAX_BAD_SHARE:.0%} may be bad.",
                code="too-many-bad-lines",
                hint=fix_lines_hint(self.listed),
                report=self,
            )

    def to_json(self) -> dict[str, Any]:
        """Return the report as a JSON object."""
        return {
            "format": self.format,
            "lines": self.lines,
            "bad_lines": self.bad_lines,
            "bad_lines_by_code": dict(self.bad_by_code),
            "errors": [error.to_json() for error in self.listed],
            "repeated_items": self.repeated_items,
            "added": self.added,
            "updated": self.updated,
            "items": self.items,
            "columns": self.columns,
        }
