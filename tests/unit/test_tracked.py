"""Progress of `recsys recommend` without a terminal."""

from __future__ import annotations

import pytest

from recsys_local.progress import tracked


def test_items_pass_through_and_each_tenth_prints_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert list(tracked(range(25), "Working", total=25)) == list(range(25))
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 10
    assert lines[0] == "Working: 3 of 25"
    assert lines[-1] == "Working: 25 of 25"


def test_no_items_print_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    assert list(tracked([], "Working", total=0)) == []
    assert capsys.readouterr().err == ""
