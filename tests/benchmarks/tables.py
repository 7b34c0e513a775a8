"""Tables for people: aligned on a terminal, Markdown in a file."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(slots=True)
class Table:
    """Rows are as long as `columns`; a number is shown with the digits its column wants, None as a dash."""

    title: str
    columns: dict[str, str]
    """Heading to format of its values, such as `.4f`."""
    rows: list[list[object]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def text(self) -> str:
        """Aligned: the first column to the left, the others to the right."""
        cells = self._cells()
        widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
        lines = [
            "  ".join(
                [row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))]
            )
            for row in cells
        ]
        return "\n".join([self.title, *(line.rstrip() for line in lines), *self.notes])

    def markdown(self) -> str:
        """With the title as a heading."""
        heading, *rows = ["| " + " | ".join(row) + " |" for row in self._cells()]
        rule = "|---|" + "---:|" * (len(self.columns) - 1)
        notes = [f"- {note}" for note in self.notes]
        return "\n".join([f"## {self.title}", "", heading, rule, *rows, "", *notes, ""])

    def _cells(self) -> list[list[str]]:
        formats = list(self.columns.values())
        shown = [[_show(value, form) for value, form in zip(row, formats, strict=True)] for row in self.rows]
        return [list(self.columns), *shown]


def _show(value: object, form: str) -> str:
    if value is None:
        return "–"
    return value if isinstance(value, str) else format(value, form)
