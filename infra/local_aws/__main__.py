"""Run the deployed stack on this machine until Ctrl+C: `make local-aws`.

With Docker: MiniStack holds bucket, table and queue; `sam local start-api` serves HTTP; messages of the queue go to
`train` through `sam local start-lambda`. Without Docker, MiniStack runs the three functions itself.
"""

from __future__ import annotations

import argparse
import logging
import signal
import sys
import sysconfig
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from local_aws import sam
from local_aws.bridge import QueueBridge
from local_aws.deployment import deploy, upload_code
from local_aws.emulator import CREDENTIALS, REGION, Emulator, running_ministack
from local_aws.templates import ROOT, Template, data_stack, function_stack, load

STATE_DIR: Final = ROOT / ".build" / "local-aws"
_MINISTACK: Final = ROOT / ".venv-ministack" / "bin" / "python"
_STAGE: Final = "dev"


@dataclass(frozen=True, slots=True)
class LocalStack:
    """A stack that runs: where it answers and the names of its resources."""

    url: str
    emulator: Emulator
    bucket: str
    table: str
    queue_url: str

    def to_shell(self) -> str:
        """Variables for a shell, so that `curl` and the AWS CLI find the stack."""
        variables = {
            "STACK_URL": self.url,
            "STACK_BUCKET": self.bucket,
            "STACK_TABLE": self.table,
            "STACK_QUEUE_URL": self.queue_url,
            **self.emulator.environment,
        }
        return "".join(f"export {name}='{value}'\n" for name, value in variables.items())


@contextmanager
def running_with_docker(
    state_dir: Path, *, port: int, emulator_port: int, endpoint_url: str | None
) -> Iterator[LocalStack]:
    """Run the stack with functions in containers.

    Parameters
    ----------
    endpoint_url
        An emulator that runs already and that containers reach at this address; None starts MiniStack.
    """
    sam.build()
    with ExitStack() as stack:
        if endpoint_url is None:
            host, name = sam.host_for_containers()
            ministack = running_ministack(_MINISTACK, host=host, port=emulator_port, log=state_dir / "ministack.log")
            emulator = stack.enter_context(ministack)
            endpoint_url = f"http://{name}:{emulator_port}"
        else:
            emulator = Emulator(endpoint_url)
        outputs = deploy(emulator, f"recsys-{_STAGE}", data_stack(load()), {"Stage": _STAGE})
        variables_file = state_dir / "env.json"
        variables = {"RECSYS_BUCKET": outputs["BucketName"], "RECSYS_TABLE": outputs["TableName"]}
        sam.write_variables(variables_file, {**variables, "AWS_ENDPOINT_URL": endpoint_url})
        credentials = {**CREDENTIALS, "AWS_DEFAULT_REGION": REGION}
        lambda_url, url = (
            stack.enter_context(
                sam.serving(
                    subcommand,
                    port=at,
                    variables_file=variables_file,
                    log=state_dir / f"{subcommand}.log",
                    credentials=credentials,
                )
            )
            for subcommand, at in (("start-lambda", port + 1), ("start-api", port))
        )
        lambda_client = emulator.client("lambda", endpoint_url=lambda_url)
        stack.enter_context(QueueBridge(emulator.client("sqs"), outputs["QueueUrl"], lambda_client, "TrainFunction"))
        yield LocalStack(url, emulator, outputs["BucketName"], outputs["TableName"], outputs["QueueUrl"])


@contextmanager
def running_without_docker(
    state_dir: Path,
    *,
    emulator_port: int,
    template: Template | None = None,
    environment: Mapping[str, str] | None = None,
    enforce_iam: bool = False,
) -> Iterator[LocalStack]:
    """Run the whole stack in MiniStack, its functions in this machine's Python.

    Parameters
    ----------
    template
        What to deploy; None for template.yaml.
    environment
        Variables that each function gets in addition.
    enforce_iam
        Whether every call of a function needs a statement of its role.
    """
    template = template or load()
    log = state_dir / "ministack.log"
    with running_ministack(
        _MINISTACK, host="127.0.0.1", port=emulator_port, log=log, enforce_iam=enforce_iam
    ) as emulator:
        # The zips hold the project's own code only: what it imports is that of the tests. MiniStack runs functions in
        # the Python that runs MiniStack, and not in the one that the locks of the functions are made for.
        variables = {"PYTHONPATH": sysconfig.get_path("purelib"), "AWS_ENDPOINT_URL": emulator.endpoint_url}
        stack = function_stack(template, upload_code(emulator), environment=variables | dict(environment or {}))
        parameters = {"Stage": _STAGE} if "Stage" in template.get("Parameters", {}) else {}
        outputs = deploy(emulator, f"recsys-{_STAGE}", stack, parameters)
        # The real host name, <id>.execute-api.<region>.amazonaws.com, leads to AWS.
        api_id = outputs["ApiUrl"].removeprefix("https://").partition(".")[0]
        url = f"{emulator.endpoint_url}/_aws/execute-api/{api_id}"
        yield LocalStack(url, emulator, outputs["BucketName"], outputs["TableName"], outputs["QueueUrl"])


def main() -> int:
    """Start the stack, print how to use it, and stop it on Ctrl+C or SIGTERM."""
    arguments = _arguments()
    logging.basicConfig(format="%(message)s")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    STATE_DIR.mkdir(parents=True, exist_ok=True)
    started_s = time.monotonic()
    stack = (
        running_with_docker(
            STATE_DIR,
            port=arguments.port,
            emulator_port=arguments.emulator_port,
            endpoint_url=arguments.endpoint_url,
        )
        if arguments.docker == "yes"
        else running_without_docker(STATE_DIR, emulator_port=arguments.emulator_port)
    )
    try:
        with stack as running:
            shell_file = STATE_DIR / "env.sh"
            shell_file.write_text(running.to_shell(), encoding="utf-8")
            _say(f"The stack answers at {running.url} after {time.monotonic() - started_s:.0f} s.")
            _say(f"In another shell:  . {shell_file.relative_to(ROOT)}")
            _say("Then follow docs/operations/local-aws.md. Ctrl+C ends it; its state is in memory.")
            signal.pause()
    except KeyboardInterrupt:
        pass
    except RuntimeError as error:
        _say(str(error))
        return 1
    return 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--docker", choices=["yes", "no"], default="yes", help="run functions in containers")
    parser.add_argument("--port", type=int, default=3000, help="HTTP; start-lambda takes the next port")
    parser.add_argument("--emulator-port", type=int, default=4566)
    parser.add_argument("--endpoint-url", help="an emulator that runs already, LocalStack for one")
    return parser.parse_args()


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
