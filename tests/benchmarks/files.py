"""Send the bad and the odd but valid files of `tests/data_files` through every channel, and print what went wrong.

python -m tests.benchmarks.files [--channels http drop cli] [--name NAME]

A service is started, as by `recsys serve`. Each file is sent to `POST /v1/train`, dropped into the inbox with its
options as a sidecar file, and given to `recsys train`. A bad file must be answered within two seconds with its code,
line and column and what to do, without a traceback, and must leave nothing behind. A valid one is trained on, and its
users must get the other items' ids byte for byte. Commands run in this process, because each would import TensorFlow
otherwise.
"""

from __future__ import annotations

import argparse
import csv
import itertools
import json
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from typer.testing import CliRunner

from recsys_local.cli import app
from tests.benchmarks.tables import Table
from tests.data_files.bad_files import BAD_FILES, BadFile
from tests.data_files.expected import ALL_USERS, arguments, assert_described, assert_explained, query, unseen_items
from tests.data_files.valid_files import VALID_FILES, ValidFile
from tests.integration.live_service import LiveService, eventually, multipart, running_service, with_key

MAX_S = 2.0
ENVIRONMENT = {"RECSYS_ANONYMOUS_TRAININGS_PER_HOUR": "0"}

File = BadFile | ValidFile


@dataclass
class Outcomes:
    """Results of one channel and one kind of file."""

    channel: str
    kind: str
    seconds: dict[str, float] = field(default_factory=dict)
    failures: list[str] = field(default_factory=list)

    @contextmanager
    def checking(self, file: File) -> Iterator[None]:
        """Record the duration, and a failed assertion instead of raising it."""
        started = time.perf_counter()
        try:
            yield
        except AssertionError as error:
            self.failures.append(f"{self.channel}, {file.name}: {error}")
        self.seconds[file.name] = time.perf_counter() - started

    def row(self) -> list[object]:
        """Return the row of the table."""
        n_files = len(self.seconds)
        return [self.channel, self.kind, n_files, n_files - len(self.failures), max(self.seconds.values(), default=0.0)]


def assert_recommends(service: LiveService, key: str) -> None:
    """Assert that each user gets the items without a history of that user, byte for byte."""
    for user_id in ALL_USERS:
        response = service.recommend(key, user_id, n=10)
        assert response.status_code == 200, response.text
        assert response.json()["strategy"] == "personal"
        assert {item["item_id"] for item in response.json()["items"]} == unseen_items(user_id)


def assert_nothing_left(service: LiveService, key_id: str) -> None:
    """Assert that a failed job left neither files of a model nor temporary ones."""
    assert service.files(f"models/{key_id}") == []
    assert service.files(".tmp") == []
    assert not list((service.data_dir / ".scratch").glob("recsys-train-*"))


# -- HTTP


def post(service: LiveService, file: File) -> Any:
    """Send a file as `curl` does, and wait for the end of the job."""
    return service.client.post(
        "/v1/train",
        params=query(file.options),
        files=multipart(file.content),
        headers={"Prefer": "wait=60"},
        timeout=90,
    )


def post_bad(service: LiveService, file: BadFile) -> None:
    """Check the response to a bad file."""
    started = time.perf_counter()
    response = post(service, file)
    assert time.perf_counter() - started < MAX_S, "too slow"
    assert response.status_code == 422, response.text
    assert response.headers["content-type"] == "application/problem+json"
    assert_explained(response.json(), file)
    assert_nothing_left(service, response.json()["key_id"])


def post_valid(service: LiveService, file: ValidFile) -> None:
    """Check the response to a valid file, and its recommendations."""
    response = post(service, file)
    assert response.status_code == 201, response.text
    assert_described(response.json()["report"], file.format)
    assert_recommends(service, response.json()["api_key"])


def send_all(service: LiveService, bad: list[BadFile], valid: list[ValidFile]) -> list[Outcomes]:
    """Send each file as a request."""
    return [
        _each("http", "bad", bad, lambda file: post_bad(service, file)),
        _each("http", "valid", valid, lambda file: post_valid(service, file)),
    ]


# -- drops


def drop_all(service: LiveService, bad: list[BadFile], valid: list[ValidFile]) -> list[Outcomes]:
    """Drop all files, wait for all receipts, and check them. The seconds are the times between receipts."""
    inbox = service.data_dir / "inbox"
    receipts = {}
    for kind, files in (("bad", bad), ("valid", valid)):
        for file in files:
            name = f"{kind}-{file.name}"
            receipts[name] = service.data_dir / "receipts" / f"{name}.json"
            if file.options:
                (inbox / f"{name}.csv.json").write_text(json.dumps(file.options))
            (inbox / f"{name}.csv").write_bytes(file.content)
    eventually(lambda: all(path.exists() for path in receipts.values()), "receipts are missing", timeout_s=400)
    times = sorted(path.stat().st_mtime for path in receipts.values())
    slowest_s = max((later - earlier for earlier, later in itertools.pairwise(times)), default=0.0)
    outcomes = []
    for kind, files, check in (("bad", bad, _check_bad_receipt), ("valid", valid, _check_valid_receipt)):
        found = _each("drop", kind, files, lambda file, kind=kind, check=check: check(  # type: ignore[misc]  # the two checks take different files
            service, json.loads(receipts[f"{kind}-{file.name}"].read_text()), file
        ))  # fmt: skip
        found.seconds = dict.fromkeys(found.seconds, slowest_s)
        outcomes.append(found)
    if slowest_s > MAX_S:
        outcomes[0].failures.append(f"drop: {slowest_s:.1f} s passed between two receipts")
    return outcomes


def _check_bad_receipt(service: LiveService, receipt: dict[str, Any], file: BadFile) -> None:
    assert receipt["status"] == "failed", receipt
    assert "claim_token" not in receipt
    assert_explained(receipt["problem"], file)
    assert_nothing_left(service, receipt["key_id"])


def _check_valid_receipt(service: LiveService, receipt: dict[str, Any], file: ValidFile) -> None:
    assert receipt["status"] == "succeeded", receipt
    claimed = service.client.post("/v1/key/claim", json={"claim_token": receipt["claim_token"]})
    assert claimed.status_code in (200, 201), claimed.text
    key = claimed.json()["api_key"]
    job = service.client.get(f"/v1/jobs/{receipt['job_id']}", headers=with_key(key)).json()
    assert_described(job["report"], file.format)
    assert_recommends(service, key)


# -- the command line


def run_all(bad: list[BadFile], valid: list[ValidFile]) -> list[Outcomes]:
    """Run `recsys train` on each file, and `recsys recommend` on the models."""
    with tempfile.TemporaryDirectory() as folder:
        import recsys_train.build  # noqa: F401, PLC0415  # imports TensorFlow, which must not count as the first file's time

        return [
            _each("cli", "bad", bad, lambda file: _train_bad(Path(folder), file)),
            _each("cli", "valid", valid, lambda file: _train_valid(Path(folder), file)),
        ]


def _train(folder: Path, file: File) -> Any:
    source = folder / "orders"
    source.write_bytes(file.content)
    return CliRunner().invoke(
        app, ["train", str(source), "--json", "--out", str(folder / file.name), *arguments(file.options)]
    )


def _train_bad(folder: Path, file: BadFile) -> None:
    started = time.perf_counter()
    result = _train(folder, file)
    assert time.perf_counter() - started < MAX_S, "too slow"
    assert result.exit_code == 1, result.output
    assert "→" in result.stderr
    assert file.says in result.stderr
    assert "Traceback" not in result.output
    assert file.line is None or f"{file.line}" in result.stderr
    assert file.column is None or file.column in result.stderr
    assert not (folder / file.name).exists(), "a folder was left behind"


def _train_valid(folder: Path, file: ValidFile) -> None:
    result = _train(folder, file)
    assert result.exit_code == 0, result.output
    assert_described(json.loads(result.stdout)["data"], file.format)
    out = folder / "recommendations.csv"
    done = CliRunner().invoke(app, ["recommend", str(folder / file.name), "--out", str(out), "--n", "10"])
    assert done.exit_code == 0, done.output
    with out.open(encoding="utf-8", newline="") as lines:
        rows = list(csv.DictReader(lines))
    for user_id in ALL_USERS:
        assert {row["item_id"] for row in rows if row["user_id"] == user_id} == unseen_items(user_id)


def _each(channel: str, kind: str, files: list[Any], check: Callable[[Any], None]) -> Outcomes:
    outcomes = Outcomes(channel, kind)
    for file in files:
        with outcomes.checking(file):
            check(file)
    return outcomes


def main() -> None:
    """Send the files, and print a table and the failures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--channels", nargs="+", choices=("http", "drop", "cli"), default=["http", "drop", "cli"])
    parser.add_argument("--name", help="Send only the files whose name contains this.", default="")
    chosen = parser.parse_args()
    bad = [file for file in BAD_FILES if chosen.name in file.name]
    valid = [file for file in VALID_FILES if chosen.name in file.name]
    outcomes: list[Outcomes] = []
    with tempfile.TemporaryDirectory() as folder:
        data_dir, log = Path(folder, "data"), Path(folder, "log")
        if {"http", "drop"} & set(chosen.channels):
            with running_service(data_dir, log, environment=ENVIRONMENT) as service:
                service.trained(VALID_FILES[0].content)  # the worker imports TensorFlow
                for channel, send in (("http", send_all), ("drop", drop_all)):
                    outcomes += send(service, bad, valid) if channel in chosen.channels else []
                if "Traceback" in service.output():
                    outcomes[0].failures.append("The output of the service has a traceback.")
    outcomes += run_all(bad, valid) if "cli" in chosen.channels else []
    columns = {"channel": "", "files": "", "sent": "d", "as expected": "d", "slowest, s": ".2f"}
    print(Table("Files", columns, [each.row() for each in outcomes]).text())
    failures = [failure for each in outcomes for failure in each.failures]
    print("\n".join(failures))
    sys.exit(1 if failures else 0)


if __name__ == "__main__":
    main()
