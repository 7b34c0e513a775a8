"""The image of `train` under Lambda's runtime interface emulator: trainings, also those that end by a kill.

`make test-docker` runs these tests. The other functions run as in `tests/integration/test_lambda_flow.py`.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from contextlib import closing
from typing import Any, Final

import pytest

from local_aws.emulator import running_ministack
from local_aws.processes import free_port
from tests.emulators import MINISTACK_PYTHON, Emulator
from tests.infra.stack_flows import large_csv
from tests.infra.train_container import TrainContainer, build_train_image
from tests.integration.lambda_flow import NAMES, Deployment, deployed, two_tastes_csv
from tests.integration.lambda_function import FunctionFailed

MEMORY_MB: Final = NAMES["functions"]["train"]["memory_mb"]
TIMEOUT_S: Final = NAMES["functions"]["train"]["timeout_s"]
TOO_LITTLE_MB: Final = 500
"""Enough to import TensorFlow and to read the file, but not to train."""
TOO_SHORT_S: Final = 15
MAX_UPLOAD_BYTES: Final = 4 * 1024 * 1024
pytestmark = [pytest.mark.docker, pytest.mark.slow]


@pytest.fixture(scope="module")
def stage(docker_address: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    """Return a stage without the function `train`, on an emulator that containers can reach."""
    build_train_image()
    folder = tmp_path_factory.mktemp("image")
    log = folder / "ministack.log"
    with (
        running_ministack(MINISTACK_PYTHON, host=docker_address, port=free_port(), log=log) as emulator,
        deployed(Emulator(emulator.endpoint_url), folder) as deployment,
    ):
        for name in ("train", "api"):
            deployment.functions.pop(name).kill()
        deployment.functions["api"] = deployment.start("api", RECSYS_MAX_UPLOAD_BYTES=str(MAX_UPLOAD_BYTES))
        deployment.dispatch_arrivals()  # S3's test events
        yield deployment


def container(stage: Deployment, *, memory_mb: int = MEMORY_MB, timeout_s: int = TIMEOUT_S, **changes: str) -> Any:
    """Return a container of `train` that calls the emulator."""
    environment = stage.environment("train") | {"RECSYS_MAX_UPLOAD_BYTES": str(MAX_UPLOAD_BYTES)} | changes
    return TrainContainer(environment, stage.folder / "train.log", memory_mb=memory_mb, timeout_s=timeout_s)


def failed_job(stage: Deployment, accepted: Any) -> Any:
    """Return the job after checking that it failed after two attempts, and that no message is left."""
    job = stage.job(accepted["job_id"], accepted["api_key"])
    assert (job["status"], job["problem"]["type"]) == ("failed", "urn:recsys:problem:training-failed")
    assert job["problem"]["detail"].startswith("Training failed 2 times. ")
    assert "send fewer rows or give the training more memory and time" in job["problem"]["hint"]
    assert stage.messages_left() == 0
    return job


def test_message_is_trained_on_in_the_image(stage: Deployment) -> None:
    accepted = stage.send_csv(two_tastes_csv())
    with container(stage) as train:
        assert not stage.deliver(stage.next_message(), train).failed
    assert stage.job(accepted["job_id"], accepted["api_key"])["status"] == "succeeded"
    assert stage.recommend(accepted["api_key"], "u1")["strategy"] == "personal"


def test_training_that_the_kernel_kills_for_its_memory_fails_with_this_reason(stage: Deployment) -> None:
    started_s = time.monotonic()
    accepted = stage.send_csv(large_csv(1_000_000))
    with container(stage, memory_mb=TOO_LITTLE_MB) as train:
        for attempt in (1, 2):
            with pytest.raises(FunctionFailed):
                stage.deliver(stage.next_message(), train)
            assert train.n_killed_for_memory() == attempt
        last = stage.deliver(stage.next_message(), train)
    assert (last.receive_count, last.failed) == (3, False)
    assert "most likely because memory ran out" in failed_job(stage, accepted)["problem"]["detail"]
    assert time.monotonic() - started_s < 20 * 60


def test_training_that_exceeds_the_timeout_of_the_function_fails_with_this_reason(
    stage: Deployment, docker_address: str
) -> None:
    accepted = stage.send_csv(two_tastes_csv())
    with closing(socket.create_server((docker_address, 0))) as silent:  # accepts connections, but never responds
        silent_url = f"http://{docker_address}:{silent.getsockname()[1]}"
        with container(stage, timeout_s=TOO_SHORT_S, AWS_ENDPOINT_URL_S3=silent_url) as train:
            for _ in range(2):
                with pytest.raises(FunctionFailed, match="timed out"):
                    stage.deliver(stage.next_message(), train)
    with container(stage, timeout_s=TOO_SHORT_S) as train:
        last = stage.deliver(stage.next_message(), train)
    assert (last.receive_count, last.failed) == (3, False)
    assert "the worker ran out of time after 1" in failed_job(stage, accepted)["problem"]["detail"]
