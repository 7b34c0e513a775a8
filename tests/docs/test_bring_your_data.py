"""The recipes of "Bring your data" run on their files and print what the page shows; the same data train a model."""

from __future__ import annotations

import csv
import json
import re
import shlex
from pathlib import Path

import pytest
from typer.testing import CliRunner

from recsys.model import artifact
from recsys_local.cli import app
from tests.docs.pages import DOCS
from tests.markers import TENSORFLOW

PAGE = (DOCS / "bring-your-data.md").read_text("utf-8")
RECIPE = re.compile(
    r'^## (?P<title>[^\n]+)\n.*?```csv title="(?P<name>[^"]+)"\n(?P<file>.*?)```\n.*?'
    r"```bash\n(?P<commands>recsys validate .*?)```\n\n```text\n(?P<output>.*?)```",
    re.MULTILINE | re.DOTALL,
)
RECIPES = list(RECIPE.finditer(PAGE))
DAILY = "Add data day by day"


def test_every_section_is_a_recipe() -> None:
    assert [*(recipe["title"] for recipe in RECIPES), DAILY] == re.findall(r"(?m)^## (.+)$", PAGE)


recipes = pytest.mark.parametrize("recipe", RECIPES, ids=lambda recipe: recipe["title"])


@recipes
def test_a_recipe_prints_what_the_page_shows(
    recipe: re.Match[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / recipe["name"]).write_text(recipe["file"], encoding="utf-8")
    result = CliRunner().invoke(app, commands_of(recipe)[0])
    assert result.exit_code == 0, result.stderr
    assert result.stdout == recipe["output"]


def commands_of(recipe: re.Match[str]) -> list[list[str]]:
    """Return the arguments of each command of a recipe."""
    return [shlex.split(command)[1:] for command in recipe["commands"].splitlines()]


def trains(test: object) -> object:
    """Mark a test as loading TensorFlow."""
    for mark in TENSORFLOW:
        test = mark(test)
    return test


@trains
@recipes
def test_a_recipe_ends_with_recommendations(
    recipe: re.Match[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / recipe["name"]).write_text(recipe["file"], encoding="utf-8")
    for command in commands_of(recipe):
        result = CliRunner().invoke(app, command)
        assert result.exit_code == 0, result.stderr
    model = artifact.read_folder(tmp_path / "model")
    assert f"users          {len(model.users)}" in recipe["output"]
    with (tmp_path / "recommendations.csv").open(encoding="utf-8", newline="") as file:
        rows = [(row["user_id"], row["item_id"]) for row in csv.DictReader(file)]
    unseen = {
        (user_id, item_id)
        for row, user_id in enumerate(model.users)
        for item_id in set(model.items) - set(model.items.at(model.seen(row)))
    }
    assert len(rows) == len(unseen)
    assert set(rows) == unseen


@trains
def test_the_daily_files_give_the_data_of_all_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    section = PAGE.split(f"## {DAILY}\n")[1]
    monkeypatch.chdir(tmp_path)
    for name, content in re.findall(r'```csv title="([^"]+)"\n(.*?)```', section, re.DOTALL):
        (tmp_path / name).write_text(content, encoding="utf-8")
    commands = re.findall(r"(?m)^recsys (train .+)$", section)
    for command in [*commands, commands[-1]]:  # the day is sent twice
        result = CliRunner().invoke(app, shlex.split(command))
        assert result.exit_code == 0, result.stderr
    data = json.loads((tmp_path / "model" / "metrics.json").read_text())["data"]
    assert (data["users"], data["items"], data["interactions"], data["kept_interactions"]) == (3, 2, 5, 5)
    assert list(artifact.read_folder(tmp_path / "model").users) == ["ada", "ben", "cleo"]
