"""The language of the project: words and phrases that `words.txt` replaces do not occur in any tracked text."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parents[2]
WORDS = Path(__file__).with_name("words.txt")
SUFFIXES = {".py", ".md", ".yaml", ".yml", ".toml", ".json", ".sh", ".ts", ".tsx", ".html", ".css", ""}
EXEMPT = (
    "locks/",
    "local/recsys_local/sample/",
    "tests/architecture/words.txt",
    "tests/architecture/test_language.py",
    "LICENSE",
)


class Rule(NamedTuple):
    """A phrase that must not occur, and what to write instead."""

    pattern: re.Pattern[str]
    instead: str


def read_rules() -> list[Rule]:
    """Return the rules of the word list."""
    lines = [line for line in WORDS.read_text("utf-8").splitlines() if line and not line.startswith("#")]
    return [
        Rule(re.compile(pattern, re.IGNORECASE), instead) for pattern, instead in (line.split("\t") for line in lines)
    ]


RULES = read_rules()


def findings(text: str) -> list[str]:
    """Return one line per phrase of the word list that occurs in `text`."""
    return [
        f"{number}: {line.strip()[:100]!r} has {match[0]!r}; write: {rule.instead}"
        for number, line in enumerate(text.splitlines(), start=1)
        for rule in RULES
        if (match := rule.pattern.search(line.replace("_", " ")))
    ]


def checked_files() -> list[str]:
    """Return the text files of the repository that the rules apply to, new files included."""
    names = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split("\n")
    return [
        name
        for name in names
        if name and Path(name).suffix in SUFFIXES and not name.startswith(EXEMPT) and (ROOT / name).is_file()
    ]


@pytest.mark.parametrize("name", checked_files())
def test_a_file_uses_the_words_of_the_style_guide(name: str) -> None:
    found = findings((ROOT / name).read_text("utf-8"))
    assert not found, "\n".join(f"{name}:{each}" for each in found)


@pytest.mark.parametrize("phrase", ["how to mend it", "whoever calls this", "test_the_version_before_answers"])
def test_a_phrase_of_the_word_list_is_found(phrase: str) -> None:
    assert len(findings(f"x = 1  # {phrase}")) == 1
