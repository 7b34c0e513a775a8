"""Run the functions in containers with the AWS SAM CLI: `sam build`, `sam local start-api` and `start-lambda`."""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from local_aws.processes import running
from local_aws.templates import ROOT

SAM: Final = ROOT / ".venv-sam" / "bin" / "sam"
_START_TIMEOUT_S: Final = 300.0  # Not tuned; the first start may pull a base image.
_CONTAINER_ID: Final = re.compile(r"SAM_CONTAINER_ID: ([0-9a-f]{64})")
_BRIDGE_GATEWAY: Final = "{{(index .IPAM.Config 0).Gateway}}"


def build() -> None:
    """Run `sam build`, which builds the zips with infra/deployment/package.py and the image of train with Docker."""
    subprocess.run([str(SAM), "build"], cwd=ROOT, env=_environment({}), check=True)  # noqa: S603 - a fixed command


def write_variables(path: Path, variables: Mapping[str, str]) -> None:
    """Write a file for `--env-vars` that sets these variables for every function."""
    path.write_text(json.dumps({"Parameters": dict(variables)}, indent=2), encoding="utf-8")


@contextmanager
def serving(
    subcommand: str, *, port: int, variables_file: Path, log: Path, credentials: Mapping[str, str]
) -> Iterator[str]:
    """Run `sam local start-api` or `start-lambda` until the end of the context and yield its URL.

    Containers stay warm, so that requests after the first one take milliseconds.

    Raises
    ------
    RuntimeError
        The process ended or did not listen within five minutes.
    """
    command = [str(SAM), "local", subcommand, "--host", "127.0.0.1", "--port", str(port)]
    command += ["--env-vars", str(variables_file)]
    command += ["--warm-containers", "EAGER" if subcommand == "start-api" else "LAZY"]
    try:
        with running(command, log=log, environment=_environment(credentials), cwd=ROOT) as process:
            _wait_until_listening(process, port, log)
            yield f"http://127.0.0.1:{port}"
    finally:
        _remove_containers(log)


def host_for_containers() -> tuple[str, str]:
    """Return the address on which the emulator must listen, and the host name by which containers reach it.

    On Linux both are the address of Docker's bridge, which is not reachable from other machines. Docker Desktop
    forwards `host.docker.internal` to the loopback interface.

    Raises
    ------
    RuntimeError
        Docker is not installed or not running.
    """
    if sys.platform != "linux":
        return "127.0.0.1", "host.docker.internal"
    docker = shutil.which("docker")
    if docker is None:
        raise RuntimeError("Docker is not installed. Install it, or run `make local-aws DOCKER=no`.")
    result = subprocess.run(  # noqa: S603 - a fixed command
        [docker, "network", "inspect", "bridge", "--format", _BRIDGE_GATEWAY],
        check=False,
        capture_output=True,
        text=True,
    )
    address = result.stdout.strip()
    if result.returncode != 0 or not address:
        raise RuntimeError(
            f"Docker is not running: {result.stderr.strip()}. Start it, or run `make local-aws DOCKER=no`."
        )
    return address, address


def _environment(extra: Mapping[str, str]) -> dict[str, str]:
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "RECSYS_"))}
    return {"SAM_CLI_TELEMETRY": "0", "AWS_DEFAULT_REGION": "eu-central-1", **inherited, **extra}


def _remove_containers(log: Path) -> None:
    """Remove the containers that the SAM CLI has started. Sometimes it leaves one or two of them running."""
    ids = _CONTAINER_ID.findall(log.read_text("utf-8", "replace"))
    docker = shutil.which("docker")
    if ids and docker is not None:
        # Most of them do not exist any more.
        subprocess.run([docker, "rm", "--force", *ids], check=False, capture_output=True)  # noqa: S603 - ids only


def _wait_until_listening(process: subprocess.Popen[bytes], port: int, log: Path) -> None:
    deadline = time.monotonic() + _START_TIMEOUT_S
    while time.monotonic() < deadline and process.poll() is None:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.2)
    raise RuntimeError(f"sam local did not start. Last lines of its log: {log.read_text('utf-8', 'replace')[-2000:]}")
