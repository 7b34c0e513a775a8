"""Settings: one environment variable each, parsed strictly."""

from __future__ import annotations

import ast
import os
from dataclasses import FrozenInstanceError, fields
from pathlib import Path

import pytest

from recsys.settings import InvalidSetting, Settings, set_default_environment
from tests.architecture.sources import parsed_sources

MIB = 2**20


def test_an_empty_environment_gives_the_local_defaults() -> None:
    settings = Settings.from_environment({})
    assert settings == Settings()
    assert (settings.backend, settings.data_dir) == ("local", Path("recsys-data"))
    assert (settings.max_request_bytes, settings.max_wait_s) == (1024 * MIB, 300)


def test_each_setting_is_read_from_its_variable() -> None:
    values = {
        "RECSYS_BACKEND": "aws",
        "RECSYS_DATA_DIR": "/var/lib/recsys",
        "RECSYS_BUCKET": "shop-bucket",
        "RECSYS_TABLE": "shop-table",
        "RECSYS_QUEUE_URL": "https://queue.example/trainings",
        "RECSYS_MAX_REQUEST_BYTES": "11",
        "RECSYS_MAX_UPLOAD_BYTES": "12",
        "RECSYS_MAX_UNPACKED_BYTES": "13",
        "RECSYS_MAX_WAIT_S": "14",
        "RECSYS_KEY_CACHE_S": "1.5",
        "RECSYS_MODEL_CACHE_BYTES": "15",
        "RECSYS_RESPONSE_CACHE_BYTES": "16",
        "RECSYS_EXPLORATION": "0.25",
        "RECSYS_ALLOW_ANONYMOUS_TRAINING": "false",
        "RECSYS_ANONYMOUS_TRAININGS_PER_HOUR": "27",
        "RECSYS_TRAININGS_PER_DAY": "28",
        "RECSYS_RECOMMENDATIONS_PER_MINUTE": "29",
        "RECSYS_TRUSTED_PROXIES": "10.0.0.0/8",
        "RECSYS_PER_ROUTE_METRICS": "true",
        "RECSYS_DETAILED_METRICS": "true",
        "RECSYS_LEASE_S": "17",
        "RECSYS_MAX_ATTEMPTS": "18",
        "RECSYS_UNPROVEN_KEY_DAYS": "19",
        "RECSYS_JOB_DAYS": "20",
        "RECSYS_AUDIT_DAYS": "26",
        "RECSYS_UPLOAD_DAYS": "21",
        "RECSYS_VERSIONS_KEPT": "25",
        "RECSYS_WORKERS": "3",
        "RECSYS_MIN_FREE_BYTES": "23",
        "RECSYS_CORS_ORIGINS": "https://shop.example",
        "RECSYS_READ_BUDGET_S": "24.5",
        "RECSYS_TRAIN_BUDGET_S": "2.5",
        "RECSYS_TRAIN_MEMORY_MB": "30",
        "RECSYS_HOLD_VERSIONS": "false",
        "RECSYS_SEED": "22",
    }
    assert set(values) == {f"RECSYS_{field.name.upper()}" for field in fields(Settings)}
    expected = ["aws", Path("/var/lib/recsys"), "shop-bucket", "shop-table"]
    expected += ["https://queue.example/trainings", 11, 12, 13, 14, 1.5]
    expected += [15, 16, 0.25, False, 27, 28, 29, "10.0.0.0/8", True, True, 17, 18, 19, 20, 26, 21, 25, 3, 23]
    expected += ["https://shop.example", 24.5, 2.5, 30, False, 22]
    settings = Settings.from_environment(values)
    assert [getattr(settings, field.name) for field in fields(Settings)] == expected


def test_the_environment_of_the_process_is_the_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RECSYS_SEED", "5")
    assert Settings.from_environment().seed == 5


def test_an_empty_variable_counts_as_not_set() -> None:
    assert Settings.from_environment({"RECSYS_SEED": "", "RECSYS_BUCKET": ""}) == Settings()


def test_only_the_settings_module_reads_the_environment() -> None:
    readers = {
        path
        for path, tree in parsed_sources().items()
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and node.attr in {"environ", "environb", "getenv"}
    }
    assert {path for path in readers if not path.startswith("infra/")} == {"layers/recsys/python/recsys/settings.py"}


def test_overrides_take_precedence() -> None:
    assert Settings.from_environment({"RECSYS_SEED": "5"}, seed=6).seed == 6


@pytest.mark.parametrize("environment", [{"RECSYS_BACKEND": "aws"}, {}])
def test_defaults_on_aws_fit_lambda_and_api_gateway(environment: dict[str, str]) -> None:
    settings = Settings.from_environment(environment, backend="aws")
    assert (settings.max_request_bytes, settings.max_wait_s) == (4 * MIB, 25)


def test_a_variable_overrides_the_default_on_aws() -> None:
    settings = Settings.from_environment({"RECSYS_MAX_WAIT_S": "7", "RECSYS_BACKEND": "aws"})
    assert (settings.max_request_bytes, settings.max_wait_s) == (4 * MIB, 7)


@pytest.mark.parametrize(
    ("variable", "text"),
    [
        ("RECSYS_BACKEND", "azure"),
        ("RECSYS_BACKEND", "AWS"),
        ("RECSYS_SEED", "one"),
        ("RECSYS_SEED", "1.5"),
        ("RECSYS_SEED", "-1"),
        ("RECSYS_LEASE_S", "60s"),
        ("RECSYS_ALLOW_ANONYMOUS_TRAINING", "no"),
        ("RECSYS_KEY_CACHE_S", "-0.5"),
        ("RECSYS_KEY_CACHE_S", "nan"),
        ("RECSYS_TRAIN_BUDGET_S", "inf"),
        ("RECSYS_TRAIN_BUDGET_S", "1,5"),
        ("RECSYS_EXPLORATION", "1.1"),
    ],
)
def test_an_invalid_value_is_reported_with_its_variable(variable: str, text: str) -> None:
    with pytest.raises(InvalidSetting) as caught:
        Settings.from_environment({variable: text})
    assert variable in caught.value.detail
    assert repr(text) in caught.value.detail


@pytest.mark.parametrize(
    ("variable", "kind"), [("RECSYS_SEED", "an integer"), ("RECSYS_KEY_CACHE_S", "a finite number")]
)
def test_the_message_states_whether_an_integer_is_expected(variable: str, kind: str) -> None:
    with pytest.raises(InvalidSetting, match=f"{variable} must be {kind}, 0 or greater. Received: 'one'"):
        Settings.from_environment({variable: "one"})


def test_settings_are_immutable() -> None:
    with pytest.raises(FrozenInstanceError):
        Settings().seed = 1  # type: ignore[misc]


def test_a_default_for_a_library_does_not_overwrite_a_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOME_LIBRARYS_LEVEL", "0")
    set_default_environment("SOME_LIBRARYS_LEVEL", "2")
    monkeypatch.delenv("ANOTHER_LIBRARYS_LEVEL", raising=False)
    set_default_environment("ANOTHER_LIBRARYS_LEVEL", "2")
    assert (os.environ["SOME_LIBRARYS_LEVEL"], os.environ.pop("ANOTHER_LIBRARYS_LEVEL")) == ("0", "2")
