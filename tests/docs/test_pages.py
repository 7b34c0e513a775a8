"""The pages are consistent: links, paths, navigation, figures, length."""

from __future__ import annotations

import re
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import pytest
import yaml

from recsys.registry.records import JobState
from tests.architecture.sources import PACKAGES
from tests.docs.pages import (
    BLOCKS,
    DOCS,
    PAGES,
    README,
    ROOT,
    SHELL_BLOCKS,
    Block,
    code_blocks,
    code_spans,
    name_of,
    prose,
    slugs,
    table_rows,
)

MAX_README_LINES = 120
FOLDERS = ("docs", "functions", "infra", "layers", "local", "locks", "tests", ".github")
every_page = pytest.mark.parametrize("page", PAGES, ids=name_of)


def links(page: Path) -> list[str]:
    return [target for target in re.findall(r"\]\(([^)\s]+)\)", prose(page)) if "://" not in target]


@every_page
def test_every_internal_link_resolves(page: Path) -> None:
    broken = []
    for target in links(page):
        path, _, anchor = target.partition("#")
        linked = (page.parent / path).resolve() if path else page
        if not linked.exists() or (anchor and anchor not in slugs(linked)):
            broken.append(target)
    assert broken == []


@pytest.mark.parametrize("page", sorted(DOCS.rglob("*.md")), ids=name_of)
def test_the_site_links_only_to_its_own_pages(page: Path) -> None:
    outside = [
        target
        for target in links(page)
        if target.partition("#")[0] and DOCS not in (page.parent / target.partition("#")[0]).resolve().parents
    ]
    assert outside == []


@every_page
def test_every_path_that_is_named_exists(page: Path) -> None:
    """A code span such as `recsys_train/fitting/fit.py`, `tests/docs/` or `infra/names.yaml` names an existing file."""
    named = [span for span in code_spans(prose(page)) if re.fullmatch(r"[\w./-]+", span) and "/" in span]
    missing = []
    for path in named:
        first, _, rest = path.partition("/")
        if "NNNN" in path:
            continue
        if first in PACKAGES and not (PACKAGES[first] / rest).exists():
            missing.append(path)
        if first in FOLDERS and not (ROOT / path).exists():
            missing.append(path)
    assert missing == []


@every_page
def test_every_test_that_is_named_exists(page: Path) -> None:
    named = re.findall(r"tests/[\w/.-]+\.py::\w+", page.read_text("utf-8"))
    missing = [
        test
        for test in named
        if not re.search(
            rf"^def {test.partition('::')[2]}\(", (ROOT / test.partition("::")[0]).read_text("utf-8"), re.M
        )
    ]
    assert missing == []


def test_every_page_that_the_code_names_exists() -> None:
    files = [
        path for folder in ("functions", "layers", "local", "infra", "tests") for path in (ROOT / folder).rglob("*.py")
    ]
    files += [ROOT / name for name in ("Makefile", "serverless.yml", "template.yaml", "infra/names.yaml")]
    named = {(path, page) for path in files for page in re.findall(r"\bdocs/[\w./-]+\.md\b", path.read_text("utf-8"))}
    assert {f"{name_of(path)}: {page}" for path, page in named if not (ROOT / page).exists()} == set()


@every_page
def test_every_module_that_is_named_exists(page: Path) -> None:
    named = re.findall(r"`((?:recsys|recsys_\w+|tests)(?:\.[a-z_0-9]+)+)`", prose(page))
    assert [module for module in named if not module.endswith(".example.com") and not _exists(module)] == []


def _exists(module: str) -> bool:
    first, *parts = module.split(".")
    path = PACKAGES.get(first, ROOT / first) / "/".join(parts)
    return path.is_dir() or path.with_suffix(".py").exists()


def test_a_module_that_does_not_exist_is_noticed() -> None:
    assert _exists("recsys.settings")
    assert _exists("recsys.registry")
    assert not _exists("recsys.no_such_module")
    assert find_spec("recsys.settings") is not None


@pytest.mark.parametrize(
    "page", [page for page in PAGES if page.name != "CHANGELOG.md" and page.parent.name != "decisions"], ids=name_of
)
def test_every_identifier_that_is_named_exists(page: Path) -> None:
    """A code span such as `NeuMF._loss`, `Ranks.quality` or `test_overrides_win` occurs in the code.

    Changelog and decisions may also name what was removed, and what a library has.
    """
    spans = [span for span in code_spans(prose(page)) if re.fullmatch(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*", span)]
    named = {
        part for span in spans if re.search(r"_|[a-z][A-Z]|^[A-Z][a-z]+$|^[A-Z]{4,}$", span) for part in span.split(".")
    }
    assert sorted(named - words_of_the_code()) == []


@cache
def words_of_the_code() -> set[str]:
    files = [
        path for folder in ("functions", "layers", "local", "infra", "tests") for path in (ROOT / folder).rglob("*")
    ]
    files += [ROOT / name for name in ("Makefile", "serverless.yml", "template.yaml", "pyproject.toml", "mkdocs.yml")]
    texts = [
        path.read_text("utf-8")
        for path in files
        if path.suffix in {".py", ".yaml", ".yml", ".toml", ".json", ""} and path.is_file()
    ]
    outcomes = {f"Jobs{state.value.capitalize()}" for state in JobState}  # as recsys_train.handler names them
    return set(re.findall(r"\w+", "\n".join(texts))) | {path.stem for path in files} | outcomes


def nav_entries(entry: object) -> list[str]:
    if isinstance(entry, str):
        return [entry]
    values = entry.values() if isinstance(entry, dict) else entry
    assert isinstance(values, list) or not isinstance(values, str)
    return [page for value in values for page in nav_entries(value)]  # type: ignore[attr-defined]  # dict views and lists


def site_config() -> dict[str, object]:
    """`mkdocs.yml`; it has no YAML tags, so that a plain loader reads it."""
    config = yaml.safe_load((ROOT / "mkdocs.yml").read_text("utf-8"))
    assert isinstance(config, dict)
    return config


def test_the_navigation_lists_every_page_once() -> None:
    entries = nav_entries(site_config()["nav"])
    assert sorted(entries) == sorted(page.relative_to(DOCS).as_posix() for page in DOCS.rglob("*.md"))


def test_the_site_is_built_strictly_and_loads_nothing_from_other_hosts() -> None:
    config = site_config()
    theme = config["theme"]
    assert isinstance(theme, dict)
    assert config["strict"] is True
    assert theme["font"] is False
    assert not {"extra_javascript", "extra_css"} & set(config)


def decisions() -> list[Path]:
    return sorted((DOCS / "decisions").glob("[0-9]*.md"))


def test_decisions_are_numbered_without_gaps() -> None:
    assert [int(page.name[:4]) for page in decisions()] == list(range(1, len(decisions()) + 1))


@pytest.mark.parametrize("page", decisions(), ids=lambda page: page.name)
def test_a_decision_has_context_options_decision_consequences_and_status(page: Path) -> None:
    text = page.read_text("utf-8")
    assert re.findall(r"(?m)^## (.+)$", text) == ["Context", "Options", "Decision", "Consequences"]
    assert re.match(rf"# {int(page.name[:4])}\. .+\n\n- \*\*Status:\*\* (accepted|superseded by \[\d+\]\(.+\))\n", text)
    assert table_rows(page, "Options")


def test_the_index_of_decisions_agrees_with_the_pages() -> None:
    indexed = {}
    for number, title, status, _date in table_rows(DOCS / "decisions/index.md"):
        link = re.fullmatch(r"\[(\d+)\]\((.+)\)", number)
        assert link is not None
        indexed[link[2]] = (title, status.split()[0])
    pages = {}
    for page in decisions():
        title, status = re.findall(r"(?m)^# \d+\. (.+)$|^- \*\*Status:\*\* (\w+)", page.read_text("utf-8"))[:2]
        pages[page.name] = (title[0], status[1])
    assert indexed == pages


def test_the_readme_is_short() -> None:
    assert len(README.read_text("utf-8").splitlines()) <= MAX_README_LINES


@pytest.mark.parametrize("page", [README, DOCS / "model.md", DOCS / "reference/data.md"], ids=name_of)
def test_quality_figures_are_those_of_the_benchmarks_page(page: Path) -> None:
    measured = set(re.findall(r"\b0\.\d{3,}\b", (DOCS / "benchmarks.md").read_text("utf-8")))
    claimed = set(re.findall(r"\b0\.\d{3,}\b", prose(page)))
    assert {figure for figure in claimed if not _is_rounded(figure, measured)} == set()


def _is_rounded(figure: str, measured: set[str]) -> bool:
    digits = len(figure) - 2
    return any(f"{float(each):.{digits}f}" == figure for each in measured if len(each) - 2 >= digits)


# -- code blocks


def test_every_command_block_is_run_or_says_why_not() -> None:
    unmarked = [f"{block.where}: {block.text.splitlines()[0]}" for block in SHELL_BLOCKS if not block.kind]
    assert not unmarked, (
        "put <!-- test: live -->, <!-- test: cli --> or <!-- not run: REASON --> on the line above:\n"
        + "\n".join(unmarked)
    )


def test_marks_stand_only_above_blocks_that_use_them() -> None:
    misplaced = [block.where for block in BLOCKS if block.mark.startswith(("test:", "not run:")) and not block.kind]
    misplaced += [block.where for block in BLOCKS if block.kind and block not in SHELL_BLOCKS]
    assert misplaced == []


def test_blocks_are_found_with_their_marks_and_commands() -> None:
    markdown = (
        "# x\n<!-- test: live -->\n```bash\n# first\ncurl a \\\n  -d b\n\ncat c\n```\n"
        "```json\n{}\n```\n\n```bash\nmake\n```\n<!-- not run: needs an AWS account -->\n```bash\nsam deploy\n```\n"
    )
    live, json_block, unmarked, not_run = code_blocks(README, markdown)
    assert (live.line, live.kind, live.commands()) == (4, "live", ["curl a    -d b", "cat c"])
    assert (json_block.language, json_block.kind) == ("json", "")
    assert (unmarked.kind, unmarked.commands()) == ("", ["make"])
    assert not_run.kind == "not run"


@pytest.mark.parametrize("mark", ["", "not run:", "not run: ", "test:", "test: lvie", "a remark"])
def test_an_invalid_mark_has_no_kind(mark: str) -> None:
    assert Block(README, 1, "bash", "make", mark).kind == ""
