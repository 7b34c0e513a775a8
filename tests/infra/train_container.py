"""The image of `train` in a container, whose runtime interface emulator invokes the handler as Lambda does."""

from __future__ import annotations

import json
import re
import subprocess
import time
from collections.abc import Mapping
from http.client import HTTPException
from pathlib import Path
from typing import Any, Final, Self
from urllib.error import HTTPError, URLError
from urllib.request import ProxyHandler, Request, build_opener

from local_aws.processes import free_port
from tests.infra.stack import ROOT
from tests.integration.lambda_function import FunctionFailed

IMAGE: Final = "recsys-train-test"
_DOCKERFILE: Final = ROOT / "functions" / "train" / "Dockerfile"
_PATH: Final = "/2015-03-31/functions/function/invocations"
_INVOKE_TIMEOUT_S: Final = 280.0
"""Below the 300 s after which pytest-timeout ends a test."""
_START_TIMEOUT_S: Final = 30.0
_USER: Final = "993:990"
"""Lambda runs every image as an unprivileged user."""


def build_train_image() -> None:
    """Build the image of `train`. Docker takes unchanged layers from its cache."""
    docker("build", "--quiet", "--file", str(_DOCKERFILE), "--tag", IMAGE, str(ROOT))


def docker(*arguments: str) -> str:
    """Run a command of Docker and return its output."""
    result = subprocess.run(["docker", *arguments], check=False, capture_output=True, text=True)
    assert result.returncode == 0, f"docker {' '.join(arguments)}: {result.stderr}"
    return result.stdout.strip()


class TrainContainer:
    """Context manager: one instance of the function `train`, in a container as restricted as on Lambda.

    Parameters
    ----------
    environment
        Environment variables of the function.
    log
        File to which the output of the container is appended at the end.
    memory_mb
        Memory limit of the container. The kernel kills the handler's process if it needs more.
    timeout_s
        Time after which the emulator terminates an invocation.
    """

    def __init__(self, environment: Mapping[str, str], log: Path, *, memory_mb: int, timeout_s: int) -> None:
        self._log = log
        self._opener = build_opener(ProxyHandler({}))
        self._port = free_port()
        variables = {**environment, "AWS_LAMBDA_FUNCTION_TIMEOUT": str(timeout_s)}
        limits = ["--memory", f"{memory_mb}m", "--memory-swap", f"{memory_mb}m", "--read-only", "--tmpfs", "/tmp"]
        settings = [option for name, value in variables.items() for option in ("--env", f"{name}={value}")]
        published = ["--publish", f"127.0.0.1:{self._port}:8080"]
        self._id = docker("run", "--detach", "--user", _USER, *limits, *published, *settings, IMAGE).splitlines()[-1]

    def invoke(self, event: Mapping[str, Any]) -> dict[str, Any]:
        """Invoke the handler and return its result. Raises `FunctionFailed`."""
        request = Request(f"http://127.0.0.1:{self._port}{_PATH}", json.dumps(event).encode())
        self._wait_until_listening()
        try:
            with self._opener.open(request, timeout=_INVOKE_TIMEOUT_S) as response:
                text = response.read()
        except (URLError, HTTPException, OSError) as error:
            raise FunctionFailed(f"The invocation failed: {error!r}") from error
        try:
            result = json.loads(text)
        except ValueError:
            raise FunctionFailed(f"The invocation failed: {text[:500]!r}") from None
        if not isinstance(result, dict) or "errorType" in result:
            raise FunctionFailed(f"The invocation failed: {text[:500]!r}")
        return result

    def n_killed_for_memory(self) -> int:
        """Return how often the kernel killed a process of the container because the memory limit was reached."""
        # The first file exists with cgroups of version 2, the second one with version 1.
        files = "/sys/fs/cgroup/memory.events /sys/fs/cgroup/memory/memory.oom_control"
        counters = docker("exec", self._id, "sh", "-c", f"cat {files} 2>/dev/null || true")
        (count,) = re.findall(r"^oom_kill (\d+)$", counters, flags=re.MULTILINE)
        return int(count)

    def _wait_until_listening(self) -> None:
        """Wait for a response. Docker accepts connections before the emulator does, and resets them."""
        deadline = time.monotonic() + _START_TIMEOUT_S
        while time.monotonic() < deadline:
            try:
                self._opener.open(f"http://127.0.0.1:{self._port}/", timeout=_START_TIMEOUT_S).close()
            except HTTPError as response:
                response.close()
                return
            except (URLError, HTTPException, OSError):
                time.sleep(0.1)
            else:
                return
        raise FunctionFailed("The runtime interface emulator did not start.")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exc_info: object) -> None:
        with self._log.open("ab") as output:
            subprocess.run(["docker", "logs", self._id], check=False, stdout=output, stderr=subprocess.STDOUT)
        docker("rm", "--force", self._id)
