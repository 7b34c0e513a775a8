"""The commands of the documentation run, and print what the documentation shows.

A shell block has a mark, an HTML comment on the line directly above it:

- `<!-- test: live -->`: the commands run against a service that was started as `make run` starts it and has trained on
  the bundled sample. `http://127.0.0.1:8000` is replaced by the service's address. `$RECSYS_API_KEY` is the sample's
  key; an `api_key`, `claim_token` or `job_id` that a command prints replaces `$RECSYS_API_KEY`, `$CLAIM_TOKEN` or
  `$JOB_ID`.
- `<!-- test: cli -->`: the commands run in a folder with `.venv` and the `orders.csv` of *Getting started*.
- `<!-- not run: REASON -->`: the commands are not run.

A block with `<!-- output: COMMAND -->` shows what the command prints; numbers, keys and ids may differ.

Blocks run page by page, in the order in which a page has them. A failing command is repeated for a while, because a
reader also waits for a training job to finish.
"""

from __future__ import annotations

import gzip
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.docs.pages import BLOCKS, DOCS, README, ROOT, Block
from tests.integration.live_service import LiveService, clean_environment, eventually, running_service

RESULT_TIMEOUT_S = 120.0
SAMPLE_TIMEOUT_S = 400.0
PAGE_ORDER = [
    *(README, DOCS / "getting-started.md", DOCS / "operations/monitor.md"),
    *(DOCS / "operations/keys.md", DOCS / "operations/operators-day.md"),
]
"""Pages with live commands, in the order in which they run: the last two rotate a key, and the last one revokes it."""
VARIABLES = {"api_key": "RECSYS_API_KEY", "claim_token": "CLAIM_TOKEN", "job_id": "JOB_ID"}
SAMPLE = ROOT / "local/recsys_local/sample/online_retail.csv.gz"

pytestmark = [
    pytest.mark.slow,
    pytest.mark.xdist_group("docs"),
    pytest.mark.timeout(600),
    pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed"),
]


def blocks_of(kind: str) -> list[Any]:
    pages = PAGE_ORDER + sorted({block.page for block in BLOCKS} - set(PAGE_ORDER))
    found = [block for page in pages for block in BLOCKS if block.page == page and block.kind == kind]
    return [pytest.param(block, id=block.where) for block in found]


def outputs_of(command: str) -> list[Any]:
    return [pytest.param(block, id=block.where) for block in BLOCKS if block.output_of == command]


@dataclass
class Reader:
    """Runs the documentation's commands in a folder, as a reader at a shell does."""

    folder: Path
    environment: dict[str, str]
    service: LiveService | None = None
    printed: list[str] = field(default_factory=list)

    def run(self, block: Block) -> None:
        """Run each command of a block until it succeeds."""
        for command in block.commands():
            where = f"{block.where}: {command}"
            typed = command.replace("http://127.0.0.1:8000", self.service.base_url) if self.service else command
            output = self._output(typed, where)
            self.printed.append(output)
            self._remember(output, where)

    def _output(self, command: str, where: str) -> str:
        outcome = ""

        def attempt() -> str | None:
            nonlocal outcome
            ended = subprocess.run(
                ["bash", "-euo", "pipefail", "-c", command],
                cwd=self.folder,
                env=self.environment,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=RESULT_TIMEOUT_S,
                check=False,
            )
            outcome = f"status {ended.returncode}\n{ended.stdout[-2000:]}\n{ended.stderr[-2000:]}"
            return ended.stdout if ended.returncode == 0 else None

        try:
            return eventually(attempt, where, timeout_s=RESULT_TIMEOUT_S, every_s=0.5)
        except pytest.fail.Exception:
            pytest.fail(f"{where}\nfails: {outcome}", pytrace=False)

    def _remember(self, output: str, where: str) -> None:
        try:
            response = json.loads(output)
        except ValueError:
            return
        if isinstance(response, dict):
            assert not str(response.get("type", "")).startswith("urn:recsys:problem:"), f"{where}\nreturns: {output}"
            for member, variable in VARIABLES.items():
                if response.get(member):
                    self.environment[variable] = response[member]


def reader_environment() -> dict[str, str]:
    return {**clean_environment(), "no_proxy": "127.0.0.1"}


@pytest.fixture(scope="module")
def live_reader(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Reader]:
    folder = tmp_path_factory.mktemp("docs-live")
    (folder / "local").symlink_to(ROOT / "local")
    (folder / ".venv").symlink_to(Path(sys.executable).parent.parent)
    with running_service(Path("recsys-data"), folder / "log", "--sample") as service:
        key = eventually(
            lambda: re.search(r"rk_\w+", service.output()),
            "the sample's key is not printed",
            timeout_s=SAMPLE_TIMEOUT_S,
        )[0]
        eventually(
            lambda: f"X-API-Key: {key}" in service.output(),
            "the sample's recommendations are not printed",
            timeout_s=SAMPLE_TIMEOUT_S,
        )
        yield Reader(folder, {**reader_environment(), "RECSYS_API_KEY": key}, service)


@pytest.fixture(scope="module")
def cli_reader(tmp_path_factory: pytest.TempPathFactory) -> Reader:
    folder = tmp_path_factory.mktemp("docs-cli")
    lines = gzip.decompress(SAMPLE.read_bytes()).splitlines(keepends=True)
    (folder / "orders.csv").write_bytes(b"".join(lines[:20_000]))
    (folder / ".venv").symlink_to(Path(sys.executable).parent.parent)
    return Reader(folder, reader_environment())


def test_live_and_cli_blocks_exist() -> None:
    assert blocks_of("live")
    assert blocks_of("cli")
    assert outputs_of("serve --sample")
    assert outputs_of("train")


@pytest.mark.parametrize("block", blocks_of("live"))
def test_commands_run_after_make_run(live_reader: Reader, block: Block) -> None:
    live_reader.run(block)


@pytest.mark.parametrize("block", blocks_of("cli"))
def test_commands_run_without_a_service(cli_reader: Reader, block: Block) -> None:
    cli_reader.run(block)


@pytest.mark.parametrize("block", outputs_of("serve --sample"))
def test_make_run_prints_the_documented_output(live_reader: Reader, block: Block) -> None:
    assert live_reader.service is not None
    assert lines_not_printed(block.text, live_reader.service.output()) == []


@pytest.mark.parametrize("block", outputs_of("train"))
def test_train_prints_the_documented_output(cli_reader: Reader, block: Block) -> None:
    assert lines_not_printed(block.text, "\n".join(cli_reader.printed)) == []


def test_the_sample_answers_for_the_ids_of_the_examples(live_reader: Reader) -> None:
    """The items and users in the examples are those of the sample: nothing in them falls back to popularity."""
    assert live_reader.service is not None
    log = live_reader.service.output()
    key = re.search(r"rk_\w+", log)
    assert key is not None
    with httpx.Client(base_url=live_reader.service.base_url, headers={"X-API-Key": key[0]}, trust_env=False) as client:
        known = client.post("/v1/recommendations", json={"user_id": "17850"}).json()
        basket = client.post("/v1/recommendations", json={"recent_items": ["85123A", "22423"]}).json()
        similar = client.get("/v1/items/85123A/similar")
    assert (known["strategy"], basket["strategy"], similar.status_code) == ("personal", "session", 200)


def lines_not_printed(shown: str, printed: str) -> list[str]:
    """Return the lines of `shown` that `printed` has not, whatever their numbers, keys and ids are.

    The rows of a table are left out, because the last digits of scores depend on the machine.
    """
    available = {_without_values(line) for line in printed.splitlines()}
    wanted = [line for line in shown.splitlines() if line.strip() and line[0] not in "│┡└┏"]
    return [line for line in wanted if _without_values(line) not in available]


def _without_values(line: str) -> str:
    for pattern, name in (
        (r"rk_\w+", "KEY"),
        (r"ct_[\w-]+", "TOKEN"),
        (r"job \w+…", "JOB"),
        (r"\d[\d.,]*", "N"),
        (r"\s+", " "),
        ("─+", "─"),
    ):
        line = re.sub(pattern, name, line)
    return line.strip()


def test_a_line_that_is_not_printed_is_noticed() -> None:
    printed = "is running on http://127.0.0.1:41234 now\njob abC123…: Fitting, epoch 2 of 3"
    assert (
        lines_not_printed("is running on http://127.0.0.1:8000 now\njob XyZ…: Fitting, epoch 1 of 3\n│ x │", printed)
        == []
    )
    assert lines_not_printed("is running at http://127.0.0.1:8000 now", printed) == [
        "is running at http://127.0.0.1:8000 now"
    ]
