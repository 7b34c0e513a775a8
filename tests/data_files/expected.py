"""What every channel must return for the files in the tables: HTTP, drops and the command line."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from tests.data_files.bad_files import BadFile
from tests.data_files.made_files import ITEMS, PAIRS, USERS


def assert_explained(problem: Mapping[str, Any], file: BadFile) -> None:
    """Assert that a problem, of a response, a job or a receipt, has the code and the position, and says what to do."""
    code = problem.get("code") or problem["type"].removeprefix("urn:recsys:problem:")
    assert code == file.code, problem
    assert problem["title"]
    assert problem["detail"]
    assert problem["hint"]
    assert file.says in f"{problem['detail']} {problem['hint']}", problem
    assert "Traceback" not in str(problem)
    if file.line is not None:
        error = problem["errors"][0]
        assert (error["line"], error.get("column") or file.column) == (file.line, file.column), error
        assert error["detail"]


def assert_described(report: Mapping[str, Any], format_of_file: Mapping[str, Any]) -> None:
    """Assert that the data report of a valid file has all pairs, the columns and the format."""
    assert report["interactions"] == len(PAIRS)
    assert report["bad_lines"] == 0
    assert set(report["mapping"]) >= {"user", "item"}
    assert report["format"] | format_of_file == report["format"]


def unseen_items(user_id: str) -> set[str]:
    """Return the items that a model of the pairs in `made_files` recommends to a user, byte for byte."""
    return set(ITEMS) - {item for user, item in PAIRS if user == user_id}


def query(options: Mapping[str, Any]) -> dict[str, str]:
    """Return the options of a file as query parameters."""
    return {name: ",".join(value) if isinstance(value, list) else str(value) for name, value in options.items()}


def arguments(options: Mapping[str, Any]) -> Iterable[str]:
    """Return the options of a file as arguments of the command line."""
    for name, text in query(options).items():
        yield from (
            ("--user", text)
            if name == "user"
            else ("--item", text)
            if name == "item"
            else ("--option", f"{name}={text}")
        )


ALL_USERS = sorted(set(USERS))
