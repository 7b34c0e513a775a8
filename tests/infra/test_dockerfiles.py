"""The two images: dependencies are pinned and hashed, and the local image runs as an unprivileged user."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

import pytest
import yaml

from recsys.settings import Settings
from tests.infra.stack import ROOT, names

TRAIN: Final = ROOT / "functions" / "train" / "Dockerfile"
LOCAL: Final = ROOT / "infra" / "docker" / "Dockerfile"
COMPOSE: Final = LOCAL.with_name("compose.yaml")


@pytest.mark.parametrize("dockerfile", [TRAIN, LOCAL], ids=["train", "local"])
def test_dependencies_are_installed_from_a_hashed_lock(dockerfile: Path) -> None:
    commands = [text for keyword, text in instructions(dockerfile) if keyword == "RUN" and "pip install" in text]
    assert commands
    for command in commands:
        is_own_wheel = re.search(r"pip install .* --no-deps /tmp/wheels/", command)
        assert is_own_wheel or "--require-hashes" in command, command
        assert is_own_wheel or "--only-binary=:all:" in command, command


@pytest.mark.parametrize("dockerfile", [TRAIN, LOCAL], ids=["train", "local"])
def test_copied_files_exist_and_are_not_ignored(dockerfile: Path) -> None:
    kept = [line[1:] for line in (ROOT / ".dockerignore").read_text("utf-8").splitlines() if line.startswith("!")]
    for keyword, text in instructions(dockerfile):
        if keyword == "COPY" and "--from=" not in text:
            for source in text.split()[:-1]:
                assert (ROOT / source).exists(), source
                assert any(source == name or source.startswith(f"{name}/") for name in kept), source


@pytest.mark.parametrize("dockerfile", [TRAIN, LOCAL], ids=["train", "local"])
def test_base_image_has_lambdas_python_version(dockerfile: Path) -> None:
    version = names()["runtime"].removeprefix("python")
    bases = [text for keyword, text in instructions(dockerfile) if keyword == "FROM"]
    assert bases
    assert [base for base in bases if f"python:{version}-" not in base] == []


def test_train_image_runs_the_handler_on_the_base_image_of_lambda() -> None:
    assert [text for keyword, text in instructions(TRAIN) if keyword == "FROM"] == [
        "public.ecr.aws/lambda/python:3.13-x86_64"
    ]
    assert [text for keyword, text in instructions(TRAIN) if keyword == "CMD"] == [
        f'["{names()["functions"]["train"]["handler"]}"]'
    ]


def test_local_image_runs_as_an_unprivileged_user_with_its_state_in_a_volume() -> None:
    final = instructions(LOCAL)[-1 - [keyword for keyword, _ in reversed(instructions(LOCAL))].index("FROM") :]
    (user,) = [text for keyword, text in final if keyword == "USER"]
    assert user.isdecimal(), "USER must be a number, so that Kubernetes' runAsNonRoot can check it"
    assert int(user) >= 1000
    assert ("VOLUME", "/data") in final
    (command,) = [text for keyword, text in final if keyword == "CMD"]
    assert '"--data-dir", "/data"' in command
    assert Settings().backend == "local"


def test_local_image_has_a_health_check_on_readiness() -> None:
    (check,) = [text for keyword, text in instructions(LOCAL) if keyword == "HEALTHCHECK"]
    assert "/health/ready" in check


def test_compose_runs_the_image_with_a_volume_and_without_privileges() -> None:
    service = yaml.safe_load(COMPOSE.read_text("utf-8"))["services"]["recsys"]
    assert (COMPOSE.parent / service["build"]["context"] / service["build"]["dockerfile"]).resolve() == LOCAL
    (volume,) = [text for keyword, text in instructions(LOCAL) if keyword == "VOLUME"]
    assert service["volumes"] == [f"recsys-data:{volume}"]
    assert service["ports"] == ["127.0.0.1:${PORT:-8000}:8000"]
    assert (service["read_only"], service["tmpfs"], service["cap_drop"]) == (True, ["/tmp"], ["ALL"])


def instructions(dockerfile: Path) -> list[tuple[str, str]]:
    """Return `(keyword, arguments)` of each instruction, without comments and with continued lines joined."""
    text = re.sub(r"^#.*\n", "", dockerfile.read_text("utf-8"), flags=re.MULTILINE)
    lines = [line.strip() for line in re.sub(r"\\\n\s*", "", text).splitlines() if line.strip()]
    return [(keyword, arguments.strip()) for keyword, _, arguments in (line.partition(" ") for line in lines)]
