"""The reference is complete and true: everything in the code is documented, everything documented is in the code."""

from __future__ import annotations

import json
import re
import tomllib
from dataclasses import fields
from pathlib import Path

import pytest
import typer

import recsys
from recsys import errors
from recsys.model import artifact
from recsys.registry.records import JobState, Progress
from recsys.settings import Settings
from recsys_api.key_schemas import RotateRequest
from recsys_local.cli import app
from recsys_local.progress import PHASES
from recsys_recommend import schemas
from recsys_train.data.fields import ID_PROBLEMS
from recsys_train.data.report import DataReport
from recsys_train.fitting.breakdowns import Breakdowns, HistoryRow, PopularityRow
from recsys_train.fitting.evaluation import Quality
from tests.docs.pages import DOCS, PAGES, REFERENCE, ROOT, SHELL_BLOCKS, code_spans, name_of, prose, table_rows

OUTSIDE_OPENAPI = {
    "GET /",
    "GET /console",
    "GET /docs",
    "GET /metrics",
    "GET /openapi.json",
    "GET /redoc",
    "POST /local/sign-in",
}
EXAMPLES = {"RECSYS_API_KEY", "RECSYS_URL", "RECSYS_QUEUE_URL", "RECSYS_SCREENSHOTS"}
"""Variables that examples and tests set for themselves."""
SOURCES = [path for folder in ("functions", "layers", "local") for path in (ROOT / folder).rglob("*.py")]
UNITS = {"": 1, " MiB": 2**20, " GiB": 2**30}


def first_cells(page: str, heading: str = "") -> list[str]:
    return [row[0] for row in table_rows(REFERENCE / page, heading)]


def spans_of(cells: list[str]) -> list[str]:
    return [span for cell in cells for span in code_spans(cell)]


# -- routes


def routes() -> set[str]:
    document = json.loads((Path(recsys.__file__).parent / "openapi.json").read_text("utf-8"))
    return {f"{method.upper()} {path}" for path, operations in document["paths"].items() for method in operations}


def test_the_table_of_routes_is_complete() -> None:
    table = spans_of(first_cells("routes.md"))
    named = [span for span in table if re.match(r"(GET|POST|PUT|PATCH|DELETE) /", span)]
    assert set(named) == routes()
    assert len(named) == len(set(named))


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_route_that_a_page_names_exists(page: Path) -> None:
    named = {
        span.partition("?")[0] for span in code_spans(prose(page)) if re.match(r"(GET|POST|PUT|PATCH|DELETE) /", span)
    }
    assert named - routes() - OUTSIDE_OPENAPI == set()


def test_the_fields_of_a_recommendation_request_are_documented() -> None:
    documented = spans_of(first_cells("routes.md", "POST /v1/recommendations"))
    assert set(documented) == set(schemas.RecommendationRequest.model_fields)


def test_limits_of_requests_are_documented() -> None:
    text = (REFERENCE / "routes.md").read_text("utf-8")
    limits = [schemas.MAX_N, schemas.MAX_RECENT, schemas.MAX_CANDIDATES, schemas.MAX_BATCH, schemas.MAX_BATCH_ITEMS]
    most = RotateRequest.model_fields["overlap_s"].metadata[1].le
    assert [limit for limit in [*limits, most] if f"{limit:,}" not in text] == []


def test_the_states_and_phases_of_a_job_are_documented() -> None:
    rows = {row[0]: row[1] for row in table_rows(REFERENCE / "routes.md", "GET /v1/jobs/{job_id}")}
    assert set(code_spans(rows["`status`"])) == {str(state) for state in JobState}
    members = {field.name for field in fields(Progress)}
    assert set(code_spans(rows["`progress`"])) == members | set(PHASES)


def test_the_events_of_the_audit_log_are_documented() -> None:
    in_code = {
        event
        for path in SOURCES
        if {"registry", "retention"} & set(path.parts)
        for event in re.findall(r'"((?:key|scoped_key|version|job|user|catalogue)\.[a-z_]+)"', path.read_text("utf-8"))
    }
    documented = [row[0].strip("`") for row in table_rows(REFERENCE / "routes.md", "GET /v1/audit")]
    assert {event for event in documented if "." in event} == in_code


# -- settings


def variables() -> dict[str, object]:
    return {f"RECSYS_{setting.name.upper()}": setting.default for setting in fields(Settings)}


def test_the_table_of_settings_is_complete() -> None:
    assert spans_of(first_cells("settings.md")) == list(variables())


@pytest.mark.parametrize("row", table_rows(REFERENCE / "settings.md"), ids=lambda row: row[0].strip("`"))
def test_the_default_of_a_setting_is_documented(row: list[str]) -> None:
    variable = row[0].strip("`")
    everywhere, _, on_aws = row[1].partition("; aws: ")
    setting = variable.removeprefix("RECSYS_").lower()
    assert _value_of(everywhere) == _comparable(variables()[variable])
    if setting != "backend":
        on_lambda = Settings.from_environment({"RECSYS_BACKEND": "aws"})
        assert _value_of(on_aws or everywhere) == _comparable(getattr(on_lambda, setting))


def _value_of(text: str) -> float | str:
    """Return the number that `600` or `16 MiB` stands for, and any other text as it is."""
    number = re.fullmatch(r"(\d+(?:\.\d+)?)( MiB| GiB|)", text)
    return float(number[1]) * UNITS[number[2]] if number else text.strip("`")


def _comparable(value: object) -> float | str:
    if isinstance(value, bool):
        return str(value).lower()
    return float(value) if isinstance(value, int | float) else str(value)


@pytest.mark.parametrize("page", [page for page in PAGES if page.name != "CHANGELOG.md"], ids=name_of)
def test_every_setting_that_a_page_names_exists(page: Path) -> None:
    named = set(re.findall(r"\bRECSYS_[A-Z_]+\b", page.read_text("utf-8")))
    assert named - set(variables()) - EXAMPLES == set()


# -- commands


def commands() -> dict[str, set[str]]:
    """Return the options of each command; a command of a group is called `group command`."""
    found = {}
    for name, command in typer.main.get_command(app).commands.items():  # type: ignore[attr-defined]  # it is a group
        members = {f"{name} {member}": below for member, below in getattr(command, "commands", {}).items()}
        for full_name, leaf in (members or {name: command}).items():
            options = [option for parameter in leaf.params for option in parameter.opts]
            found[full_name] = {option for option in options if option.startswith("--")}
    return found


def named_commands(spans: list[str]) -> set[str]:
    """Return the commands in code spans such as `recsys train INTERACTIONS.csv --out DIR`."""
    words = [re.match(r"(?:\.venv/bin/)?recsys ((?:[a-z]+ ?)+)(?![^ ]*[./=])", span) for span in spans]
    return {match[1].strip() for match in words if match}


def test_the_table_of_commands_is_complete() -> None:
    assert named_commands(spans_of(first_cells("commands.md", "recsys"))) == set(commands())


def test_the_table_of_options_is_complete() -> None:
    documented: dict[str, set[str]] = {name: set() for name in commands()}
    for row in table_rows(REFERENCE / "commands.md", "recsys"):
        if row[0].startswith("`--"):
            for command in code_spans(row[1]):
                documented.setdefault(command, set()).add(row[0].strip("`"))
    group = typer.main.get_command(app)
    assert documented.pop("recsys", set()) == {option for parameter in group.params for option in parameter.opts}
    assert documented == commands()


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_command_that_a_page_names_exists(page: Path) -> None:
    groups = {name.split()[0] for name in commands()}
    assert named_commands(code_spans(prose(page))) - set(commands()) - groups == set()


def make_targets() -> set[str]:
    makefile = (ROOT / "Makefile").read_text("utf-8")
    return {target for line in re.findall(r"(?m)^\.PHONY:(.*)$", makefile) for target in line.split()}


def test_the_table_of_make_targets_is_complete() -> None:
    named = {span.removeprefix("make ") for span in spans_of(first_cells("commands.md", "make"))}
    assert named == make_targets()


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_make_target_that_a_page_names_exists(page: Path) -> None:
    named = {match for span in code_spans(prose(page)) for match in re.findall(r"^make ([a-z-]+)", span)}
    blocks = [block.text for block in SHELL_BLOCKS if block.page == page]
    named |= {target for text in blocks for target in re.findall(r"(?m)^make ([a-z-]+)", text)}
    assert named - make_targets() == set()


# -- errors


def error_codes() -> set[str]:
    """Return the codes of error classes, and those that a raise statement passes instead."""
    pattern = re.compile(r'\bcode(?:: ClassVar\[str\])? ?= ?"([a-z0-9-]+)"')
    codes = {code for path in SOURCES for code in pattern.findall(path.read_text("utf-8"))}
    text = "".join(path.read_text("utf-8") for path in SOURCES)
    codes |= set(re.findall(r'Problem\(\s*"([a-z-]+)"', text))
    generated = {re.sub(r"\{.*?\}s?", "…", code) for code in re.findall(r'code=f"([^"]+)"', text)}
    assert generated == {"too-few-…", "damaged-…"}, "list the codes that this f-string generates below"
    damaged = {f"damaged-{compression}" for compression in ("gzip", "zstd", "zip")}
    return codes | {"too-few-users", "too-few-items"} | damaged


def line_codes() -> set[str]:
    ids = {f"{problem}-{column}" for problem in ID_PROBLEMS for column in ("user-id", "item-id")}
    # A blank user is a guest, who is skipped.
    return (ids | {"bad-interaction-score", "bad-timestamp", "ragged-line"}) - {"blank-user-id"}


def test_error_codes_are_found_in_the_sources() -> None:
    assert {error.code for error in (errors.RecsysError, errors.Gone, errors.ModelNotReady)} <= error_codes()
    assert {"key-changed", "method-not-allowed", "training-failed"} <= error_codes()


def test_the_tables_of_errors_are_complete() -> None:
    requests = spans_of([row[1] for row in table_rows(REFERENCE / "errors.md", "Requests")])
    others = spans_of(first_cells("errors.md", "Data") + first_cells("errors.md", "Command line"))
    documented = {*requests, *others, "lease-lost"} - {"http-<status>"}
    assert documented == error_codes() - line_codes()
    assert "`lease-lost`" in (REFERENCE / "errors.md").read_text("utf-8")


@pytest.mark.parametrize(
    "row", table_rows(REFERENCE / "errors.md", "Requests"), ids=lambda row: row[1].replace("`", "").split(",")[0]
)
def test_the_status_of_an_error_is_documented(row: list[str]) -> None:
    from recsys.http.problems import status_of  # noqa: PLC0415  # FastAPI, for this test only

    classes = {cls.code: cls for cls in _subclasses(errors.RecsysError)}
    for code in code_spans(row[1]):
        if code in classes:
            assert str(status_of(classes[code]("d"))) == row[0]


def _subclasses(cls: type[errors.RecsysError]) -> list[type[errors.RecsysError]]:
    below = [subclass for child in cls.__subclasses__() for subclass in _subclasses(child)]
    return [cls, *below]


def test_the_table_of_bad_lines_is_complete() -> None:
    assert set(spans_of(first_cells("data.md", "Bad lines"))) == line_codes()


def test_codes_of_bad_lines_are_those_of_the_reader() -> None:
    modules = (ROOT / "functions/train/recsys_train/data").glob("*.py")
    source = "".join(path.read_text("utf-8") for path in modules)
    assert all(code in source for code in ("ragged-line", 'f"{code}-{'))


# -- import rules


def test_the_layers_of_the_import_rules_are_documented() -> None:
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["tool"]["importlinter"]["contracts"]
    layers = {contract["containers"][0]: contract["layers"] for contract in contracts if "containers" in contract}
    columns = zip(*table_rows(DOCS / "architecture.md", "Within a package"), strict=True)
    documented = [[code_spans(cell) for cell in column if cell] for column in columns]
    in_code = [[re.findall(r"\w+", layer) for layer in layers[package]] for package in sorted(layers)]
    assert documented == in_code


# -- files


def test_the_files_of_a_version_are_documented() -> None:
    table = [row[0].strip("`") for row in table_rows(DOCS / "architecture.md", "Files of a version")]
    assert table == [*artifact.LISTED_FILES, artifact.CONTENT, artifact.MANIFEST]


def test_the_metrics_are_documented() -> None:
    assert spans_of(first_cells("metrics.md", "quality, popularity_baseline")) == [
        field.name for field in fields(Quality)
    ]


def test_the_breakdowns_are_documented() -> None:
    tables = {"history_length": HistoryRow, "item_popularity": PopularityRow}
    assert spans_of(first_cells("metrics.md", "breakdowns")) == [field.name for field in fields(Breakdowns)]
    for row in table_rows(DOCS / "reference" / "metrics.md", "breakdowns"):
        own = [field.name for field in fields(tables[code_spans(row[0])[0]])]
        assert code_spans(row[2]) == [name for name in own if not name.startswith(("recall", "ndcg", "popularity"))]


def test_the_data_report_is_documented() -> None:
    assert set(spans_of(first_cells("data.md", "Data report"))) == set(DataReport().to_json())
