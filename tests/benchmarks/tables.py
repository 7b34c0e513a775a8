"""Format tables: aligned for a terminal, or as Markdown."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(slots=True)
class Table:
    """A table whose numbers are formatted by column; None is shown as a dash.

    `columns` maps each heading to the format of its values, such as `.4f`.
    """

    title: str
    columns: dict[str, str]
    rows: list[list[object]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def text(self) -> str:
        """Return aligned text: the first column to the left, the others to the right."""
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
        """Return Markdown, with the title as a heading."""
        heading, *rows = ["| " + " | ".join(row) + " |" for row in self._cells()]
        rule = "|---|" + "---:|" * (len(self.columns) - 1)
        notes = [f"- {note}" for note in self.notes]
        return "\n".join([f"## {self.title}", "", heading, rule, *rows, "", *notes, ""])

    def _cells(self) -> list[list[str]]:
        formats = list(self.columns.values())
        rows = [[_format(value, spec) for value, spec in zip(row, formats, strict=True)] for row in self.rows]
        return [list(self.columns), *rows]


def _format(value: object, format_spec: str) -> str:
    if value is None:
        return "–"
    return value if isinstance(value, str) else format(value, format_spec)
