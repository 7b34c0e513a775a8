"""Every bad file gets an exact answer, and every odd but valid one is read byte for byte: by the reader and the CLI."""

from __future__ import annotations

import io
import json
import time
from pathlib import Path

import pytest
from typer.testing import CliRunner

from recsys.errors import InvalidData
from recsys.file_options import FileOptions
from recsys_local.cli import app
from recsys_train.data.interactions import Interactions
from recsys_train.data.reader import read_interactions
from recsys_train.data.report import DataReport
from tests.data_files.bad_files import BAD_FILES, BadFile
from tests.data_files.exports import EXPORTS, Export
from tests.data_files.made_files import PAIRS
from tests.data_files.valid_files import VALID_FILES, ValidFile

MAX_S = 2.0
MAX_UNPACKED_BYTES = 10**9

valid_files = pytest.mark.parametrize("file", VALID_FILES, ids=lambda file: file.name)
bad_files = pytest.mark.parametrize("file", BAD_FILES, ids=lambda file: file.name)


def read(file: ValidFile | BadFile) -> tuple[Interactions, DataReport]:
    options = FileOptions.of(file.options)
    return read_interactions(io.BytesIO(file.content), max_unpacked_bytes=MAX_UNPACKED_BYTES, options=options)


def test_the_tables_have_sixty_files_each_with_unique_names() -> None:
    for files in (BAD_FILES, VALID_FILES):
        assert len(files) >= 60
        assert len({file.name for file in files}) == len(files)


@valid_files
def test_an_odd_but_valid_file_is_read_byte_for_byte(file: ValidFile) -> None:
    interactions, report = read(file)
    read_pairs = {
        (interactions.user_ids[user], interactions.item_ids[item])
        for user, item in zip(interactions.users, interactions.items, strict=True)
    }
    assert read_pairs == set(PAIRS)
    assert report.bad_lines == 0
    assert report.format | file.format == report.format


@bad_files
def test_a_bad_file_is_rejected_with_code_position_and_advice(file: BadFile) -> None:
    started = time.process_time()
    with pytest.raises(InvalidData) as caught:
        read(file)
    assert time.process_time() - started < MAX_S
    error = caught.value
    assert error.problem_code == file.code
    assert error.hint
    assert file.says in f"{error.detail} {error.hint}"
    if file.line is not None:
        assert (error.errors[0].line, error.errors[0].column or file.column) == (file.line, file.column)


def arguments(file: ValidFile | BadFile, path: Path) -> list[str]:
    given = [str(path)]
    for name, value in file.options.items():
        text = ",".join(value) if isinstance(value, list) else str(value)
        given += [f"--{name}", text] if name in ("user", "item") else ["--option", f"{name}={text}"]
    return given


@valid_files
def test_the_command_line_validates_an_odd_but_valid_file(file: ValidFile, tmp_path: Path) -> None:
    path = tmp_path / "orders"
    path.write_bytes(file.content)
    result = CliRunner().invoke(app, ["validate", "--json", *arguments(file, path)])
    assert result.exit_code == 0, result.stderr
    report = json.loads(result.stdout)
    assert report["interactions"] == len(PAIRS)
    assert set(report["mapping"]) >= {"user", "item"}


@bad_files
def test_the_command_line_explains_a_bad_file_without_a_traceback(file: BadFile, tmp_path: Path) -> None:
    path = tmp_path / "orders"
    path.write_bytes(file.content)
    result = CliRunner().invoke(app, ["validate", *arguments(file, path)])
    assert result.exit_code == 1
    assert "→" in result.stderr
    assert "Traceback" not in result.output
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("export", EXPORTS, ids=lambda export: export.name)
def test_an_export_with_all_its_columns_is_read_with_at_most_one_option(export: Export) -> None:
    options = FileOptions(user=export.user)
    interactions, report = read_interactions(io.BytesIO(export.content), max_unpacked_bytes=10**6, options=options)
    document = report.to_json()
    assert document["mapping"] == export.mapping
    assert {rule: skipped["count"] for rule, skipped in document["skipped"].items()} == export.skipped
    assert (list(interactions.user_ids), len(interactions.item_ids), len(interactions)) == (["a", "b"], 2, 3)
    assert (document["bad_lines"], document["mapping_source"]) == (0, "options" if export.user else export.name)
