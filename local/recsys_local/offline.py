"""Training and recommending without a service: from files to files."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TextIO

from recsys.errors import InvalidRequest
from recsys.model.recommender import Recommendations
from recsys.registry.records import Progress
from recsys.settings import Settings

FILE_VERSION = "local.1"


def train_folder(
    source: Path, folder: Path, settings: Settings, on_progress: Callable[[Progress], None]
) -> dict[str, Any]:
    """Train on a CSV and write the artifact into `folder`; returns the metrics.

    Raises
    ------
    InvalidData
        The CSV cannot be trained on; nothing was written.
    """
    from recsys_train.build import build_version  # noqa: PLC0415  # TensorFlow takes seconds: only who trains pays

    return build_version(lambda: source.open("rb"), folder, FILE_VERSION, settings, on_progress).metrics


def read_users(path: Path) -> list[str]:
    """The users that a CSV names; see `read_user_ids`. A byte order mark is no part of it."""
    with path.open(encoding="utf-8-sig", newline="") as stream:
        return read_user_ids(stream)


def read_user_ids(stream: TextIO) -> list[str]:
    """The `user_id` column of a CSV, in its order.

    Raises
    ------
    InvalidRequest
        There is no such column.
    """
    try:
        rows = list(csv.reader(stream))
    except UnicodeDecodeError as error:
        raise InvalidRequest("The file of users is not UTF-8 text.", hint="Save it as CSV in UTF-8.") from error
    header = [name.strip().casefold() for name in (rows[0] if rows else [])]
    if "user_id" not in header:
        raise InvalidRequest(
            f"The first line names no column user_id. Received: {', '.join(header) or 'nothing'}.",
            code="missing-column",
            hint="Give a CSV whose first line is user_id and which has one user a line.",
        )
    place = header.index("user_id")
    return [row[place] for row in rows[1:] if len(row) > place and row[place]]


def write_recommendations(path: Path, answers: Iterator[Recommendations]) -> int:
    """Write `user_id,item_id,rank,score` to `path`; returns the number of rows below the header."""
    n_rows = 0
    with path.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        writer.writerow(["user_id", "item_id", "rank", "score"])
        for answer in answers:
            for item in answer.items:
                writer.writerow([answer.user_id, item.item_id, item.rank, f"{item.score:.6g}"])
                n_rows += 1
    return n_rows
