"""The recipes of "Bring your data" run on their files and print what the page shows; the same data train a model."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
from typer.testing import CliRunner

from recsys_local.cli import app
from tests.docs.pages import DOCS

PAGE = (DOCS / "bring-your-data.md").read_text("utf-8")
RECIPE = re.compile(
    r'^## (?P<title>[^\n]+)\n.*?```csv title="(?P<name>[^"]+)"\n(?P<file>.*?)```\n.*?'
    r"```bash\n(?P<command>recsys validate [^\n]+)\n```\n\n```text\n(?P<output>.*?)```",
    re.MULTILINE | re.DOTALL,
)
RECIPES = list(RECIPE.finditer(PAGE))


def test_every_section_is_a_recipe() -> None:
    assert [recipe["title"] for recipe in RECIPES] == re.findall(r"(?m)^## (.+)$", PAGE)


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda recipe: recipe["title"])
def test_a_recipe_prints_what_the_page_shows(
    recipe: re.Match[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / recipe["name"]).write_text(recipe["file"], encoding="utf-8")
    result = CliRunner().invoke(app, shlex.split(recipe["command"])[1:])
    assert result.exit_code == 0, result.stderr
    assert result.stdout == recipe["output"]
