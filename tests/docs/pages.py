"""The documentation's pages, and the code blocks, links and tables in them."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
README = ROOT / "README.md"
DOCS = ROOT / "docs"
REFERENCE = DOCS / "reference"
PAGES = [
    README,
    *(ROOT / name for name in ("CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md")),
    *sorted(DOCS.rglob("*.md")),
]
SHELLS = ("bash", "sh", "shell", "console")


def name_of(page: Path) -> str:
    """Return the page's path in the repository."""
    return page.relative_to(ROOT).as_posix()


@dataclass(frozen=True)
class Block:
    """A fenced code block: its page, the line of its first content line, its language, and the mark above it."""

    page: Path
    line: int
    language: str
    text: str
    mark: str

    @property
    def where(self) -> str:
        """Page and line."""
        return f"{name_of(self.page)}:{self.line}"

    @property
    def kind(self) -> str:
        """What the mark says: `live`, `cli` or `not run`; empty for an invalid or missing mark."""
        test = re.fullmatch(r"test: (live|cli)", self.mark)
        if test:
            return test[1]
        return "not run" if re.fullmatch(r"not run: .{5,}", self.mark) else ""

    @property
    def output_of(self) -> str:
        """The command whose output the block shows; empty if it shows none."""
        output = re.fullmatch(r"output: (.+)", self.mark)
        return output[1] if output else ""

    def commands(self) -> list[str]:
        """Return the commands, with continued lines joined and comments left out."""
        lines = self.text.replace("\\\n", " ").splitlines()
        return [line.strip() for line in lines if line.strip() and not line.lstrip().startswith("#")]


def code_blocks(page: Path, markdown: str) -> list[Block]:
    """Return every fenced block of a page, in order."""
    lines = markdown.splitlines()
    fences = [number for number, line in enumerate(lines) if line.lstrip().startswith("```")]
    blocks = []
    for start, end in zip(fences[::2], fences[1::2], strict=True):
        mark = re.fullmatch(r"\s*<!--\s*(.*?)\s*-->\s*", lines[start - 1] if start else "")
        language = lines[start].strip().removeprefix("```").strip()
        blocks.append(Block(page, start + 2, language, "\n".join(lines[start + 1 : end]), mark[1] if mark else ""))
    return blocks


BLOCKS = [block for page in PAGES for block in code_blocks(page, page.read_text("utf-8"))]
SHELL_BLOCKS = [block for block in BLOCKS if block.language in SHELLS]


def prose(page: Path) -> str:
    """Return a page without its fenced blocks."""
    return re.sub(r"(?ms)^\s*```.*?^\s*```\s*$", "", page.read_text("utf-8"))


def code_spans(text: str) -> list[str]:
    """Return everything between single backticks."""
    return re.findall(r"`([^`\n]+)`", text)


def table_rows(page: Path, heading: str = "") -> list[list[str]]:
    """Return the cells of all table rows below a heading (of any level), or of the whole page, without header rows."""
    text = prose(page)
    if heading:
        match = re.search(rf"(?ms)^#+ {re.escape(heading)}\n(.*?)(?=^#|\Z)", text)
        assert match is not None, f"{name_of(page)} has no heading {heading!r}"
        text = match[1]
    rows: list[list[str]] = []
    for line in text.splitlines():
        if re.fullmatch(r"\|[\s:|-]+\|", line):
            rows.pop()  # the line above the rule is the header
        elif line.startswith("|"):
            rows.append([cell.strip() for cell in line.strip("|").split(" |")])
    return rows


def slugs(page: Path) -> set[str]:
    """Return the anchors of a page's headings, as Python-Markdown generates them."""
    headings = re.findall(r"(?m)^#+ (.+)$", prose(page))
    plain = [re.sub(r"[`*]|\[([^]]*)\]\([^)]*\)", r"\1", heading) for heading in headings]
    return {re.sub(r"[-\s]+", "-", re.sub(r"[^\w\s-]", "", heading.lower()).strip()) for heading in plain}
