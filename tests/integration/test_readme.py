"""README.md says what is true: its commands run, and every route, setting, command, target and error code is in it.

A ```bash block has a mark, an HTML comment on the line directly above it:

- `<!-- test: live -->`: its commands run against a live service, in a folder with `orders.csv` and the service's
  `recsys-data/`. `http://127.0.0.1:8000` becomes the service's address, `$RECSYS_API_KEY` is a key with a model. What a
  command prints as `api_key` or `claim_token` is `$RECSYS_API_KEY` or `$CLAIM_TOKEN` from there on.
- `<!-- test: cli -->`: they run in a folder with `orders.csv`, `users.csv` and `.venv`.
- `<!-- not run: REASON -->`: they are not run, and why.

Blocks run in the README's order. A command that fails is tried again for a while: a reader waits for a training too.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import pytest

import recsys
from recsys import errors
from recsys.settings import Settings
from recsys_local.cli import app
from tests.integration.live_service import clean_environment, eventually, orders, running_service

pytestmark = [pytest.mark.xdist_group("readme")]

ROOT = Path(__file__).parent.parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
RESULT_TIMEOUT_S = 120.0
VARIABLES = {"api_key": "RECSYS_API_KEY", "claim_token": "CLAIM_TOKEN"}
"""Members of what a command prints, and the variables in which the README's next commands use them."""


# -- reading the README


@dataclass(frozen=True)
class Block:
    """One ```bash block: the line of its first command, what it holds, the mark above it."""

    line: int
    text: str
    mark: str

    @property
    def kind(self) -> str:
        """live, cli or "not run"; empty for what is none of them."""
        test = re.fullmatch(r"test: (live|cli)", self.mark)
        if test:
            return test[1]
        return "not run" if re.fullmatch(r"not run: .{5,}", self.mark) else ""

    def commands(self) -> list[str]:
        """Its commands, continued lines joined; comments left out."""
        lines = self.text.replace("\\\n", " ").splitlines()
        return [line.strip() for line in lines if line.strip() and not line.lstrip().startswith("#")]


def bash_blocks(markdown: str) -> list[Block]:
    """Every fenced bash block, in order."""
    found = []
    lines = markdown.splitlines()
    fences = [number for number, line in enumerate(lines) if line.lstrip().startswith("```")]
    for start, end in zip(fences[::2], fences[1::2], strict=True):
        if lines[start].strip().removeprefix("```") in ("bash", "sh", "shell", "console"):
            mark = re.fullmatch(r"\s*<!--\s*(.*?)\s*-->\s*", lines[start - 1] if start else "")
            found.append(Block(start + 2, "\n".join(lines[start + 1 : end]), mark[1] if mark else ""))
    return found


BLOCKS = bash_blocks(README)


def blocks_of(kind: str) -> list[Any]:
    return [pytest.param(block, id=f"line {block.line}") for block in BLOCKS if block.kind == kind]


def test_blocks_are_found_with_their_marks_and_commands() -> None:
    markdown = (
        "# x\n<!-- test: live -->\n```bash\n# first\ncurl a \\\n  -d b\n\ncat c\n```\n"
        "```json\n{}\n```\n\n```bash\nmake\n```\n<!-- not run: needs an AWS account -->\n```bash\nsam deploy\n```\n"
    )
    live, unmarked, not_run = bash_blocks(markdown)
    assert (live.line, live.kind, live.commands()) == (4, "live", ["curl a    -d b", "cat c"])
    assert (unmarked.kind, unmarked.commands()) == ("", ["make"])
    assert not_run.kind == "not run"


@pytest.mark.parametrize("mark", ["", "not run:", "not run: ", "test:", "test: lvie", "a remark"])
def test_a_mark_that_says_nothing_is_none(mark: str) -> None:
    assert Block(1, "make", mark).kind == ""


# -- running its commands


def test_every_block_says_how_it_is_tested_or_why_not() -> None:
    unmarked = [f"README.md:{block.line}: {block.text.splitlines()[0]}" for block in BLOCKS if not block.kind]
    assert not unmarked, (
        "put <!-- test: live -->, <!-- test: cli --> or <!-- not run: REASON --> on the line above:\n"
        + "\n".join(unmarked)
    )


def test_there_is_something_to_run() -> None:
    assert blocks_of("live")
    assert blocks_of("cli")


@dataclass
class Reader:
    """Somebody at a shell who types the README's commands."""

    folder: Path
    environment: dict[str, str]
    base_url: str = ""
    said: list[str] = field(default_factory=list)

    def run(self, block: Block) -> None:
        for command in block.commands():
            where = f"README.md:{block.line}: {command}"
            typed = command.replace("http://127.0.0.1:8000", self.base_url) if self.base_url else command
            output = self._result(typed, where)
            self._remember(output, where)

    def _result(self, command: str, where: str) -> str:
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
            answer = json.loads(output)
        except ValueError:
            return
        if isinstance(answer, dict):
            assert not str(answer.get("type", "")).startswith("urn:recsys:problem:"), f"{where}\nanswers: {output}"
            for member, variable in VARIABLES.items():
                if answer.get(member):
                    self.environment[variable] = answer[member]


def readers_orders() -> bytes:
    """Orders of customers 17850, 17851 …, as the README's examples name them."""
    return re.sub(rb"(?m)^u(\d+)", lambda match: b"%d" % (17850 + int(match[1])), orders())


def environment() -> dict[str, str]:
    return {**clean_environment(), "no_proxy": "127.0.0.1"}


@pytest.fixture(scope="module")
def live_reader(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Reader]:
    folder = tmp_path_factory.mktemp("readme-live")
    (folder / "orders.csv").write_bytes(readers_orders())
    with running_service(folder / "recsys-data", folder / "log") as service:
        key = service.trained(readers_orders())["api_key"]
        yield Reader(folder, {**environment(), "RECSYS_API_KEY": key}, service.base_url)


@pytest.fixture(scope="module")
def cli_reader(tmp_path_factory: pytest.TempPathFactory) -> Reader:
    folder = tmp_path_factory.mktemp("readme-cli")
    (folder / "orders.csv").write_bytes(readers_orders())
    (folder / "users.csv").write_text("user_id\n17850\n17851\nsomebody new\n")
    (folder / ".venv").symlink_to(Path(sys.executable).parent.parent)
    return Reader(folder, environment())


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
@pytest.mark.parametrize("block", blocks_of("live"))
def test_its_commands_run_against_a_live_service(live_reader: Reader, block: Block) -> None:
    live_reader.run(block)


@pytest.mark.slow
@pytest.mark.parametrize("block", blocks_of("cli"))
def test_its_commands_run_without_a_service(cli_reader: Reader, block: Block) -> None:
    cli_reader.run(block)


# -- what it must name


def assert_all_in_readme(wanted: list[str], what: str) -> None:
    missing = [name for name in wanted if not re.search(rf"(?<![\w-]){re.escape(name)}(?![\w-])", README)]
    assert wanted, f"no {what} was found to look for"
    assert not missing, f"README.md does not name the {what} {', '.join(missing)}"


def routes() -> list[str]:
    document = json.loads((Path(recsys.__file__).parent / "openapi.json").read_text(encoding="utf-8"))
    return [f"{method.upper()} {path}" for path, operations in document["paths"].items() for method in operations]


def test_it_names_every_route() -> None:
    missing = [route for route in routes() if f"`{route}`" not in README]
    assert not missing, f"README.md does not name the routes {', '.join(missing)}"


def test_every_route_that_it_names_is_there() -> None:
    named = set(re.findall(r"`((?:GET|POST|PUT|PATCH|DELETE) /[^\s`]*)`", README))
    assert named - set(routes()) == set()


def test_it_names_every_setting() -> None:
    assert_all_in_readme([f"RECSYS_{setting.name.upper()}" for setting in fields(Settings)], "settings")


def test_every_setting_that_it_names_is_there() -> None:
    named = set(re.findall(r"\bRECSYS_[A-Z_]+\b", README)) - set(VARIABLES.values())
    assert named - {f"RECSYS_{setting.name.upper()}" for setting in fields(Settings)} == set()


def test_it_names_every_command() -> None:
    names = [command.name or command.callback.__name__ for command in app.registered_commands if command.callback]
    assert_all_in_readme([f"recsys {name}" for name in names], "commands")


def make_targets() -> list[str]:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    return [target for line in re.findall(r"(?m)^\.PHONY:(.*)$", makefile) for target in line.split()]


def test_it_names_every_make_target() -> None:
    assert_all_in_readme([f"make {target}" for target in make_targets()], "make targets")


def test_every_make_target_that_it_names_is_there() -> None:
    named = set(re.findall(r"`make ([a-z-]+)", README))
    named |= {target for block in BLOCKS for target in re.findall(r"(?m)^make ([a-z-]+)", block.text)}
    assert named - set(make_targets()) == set()


def test_it_names_every_error_code() -> None:
    """Those of the classes, and those that a place in the source gives an error instead."""
    sources = [path for room in ("functions", "layers", "infra") for path in (ROOT / room).rglob("*.py")]
    codes = {
        code
        for path in sources
        for code in re.findall(r'\bcode(?:: ClassVar\[str\])? ?= ?"([a-z0-9-]+)"', path.read_text("utf-8"))
    }
    assert {error.code for error in (errors.RecsysError, errors.Gone, errors.ModelNotReady)} <= codes
    assert_all_in_readme(sorted(codes), "error codes")
