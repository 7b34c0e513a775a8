"""Both templates create the same resources, as the services of the emulator describe them after the deployment."""

from __future__ import annotations

from pathlib import Path

import pytest

from local_aws.__main__ import running_without_docker
from local_aws.processes import free_port
from local_aws.templates import Template, load
from tests.infra.deployed_resources import FUNCTIONS, described
from tests.infra.stack import names

pytestmark = [pytest.mark.slow, pytest.mark.node, pytest.mark.ministack, pytest.mark.xdist_group("ministack")]


def test_deployed_resources_of_both_templates_are_equal(compiled_stages: dict[str, Path], tmp_path: Path) -> None:
    def deployed(name: str, template: Template) -> dict[str, object]:
        (tmp_path / name).mkdir()
        with running_without_docker(tmp_path / name, emulator_port=free_port(), template=template) as stack:
            return described(stack.emulator, "dev")

    sam = deployed("sam", load())
    assert all(sam.values())
    assert set(FUNCTIONS) == set(names()["functions"])
    assert deployed("osls", load(compiled_stages["dev"])) == sam
