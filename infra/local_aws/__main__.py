"""Run the deployed stack on this machine until Ctrl+C: `make local-aws`.

With Docker, MiniStack provides the bucket, the table and the queues, `sam local start-api` serves HTTP, and `sam local
start-lambda` runs `dispatch` and `train` for the messages of their queues. Without Docker, MiniStack runs every
function.
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
    """A running stack: its base URL and the names of its resources."""

    url: str
    emulator: Emulator
    bucket: str
    table: str
    queue_url: str

    def to_shell(self) -> str:
        """Return `export` lines for a shell, so that `curl` and the AWS CLI reach the stack."""
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
    """Run the stack with its functions in Docker containers until the end of the context.

    Parameters
    ----------
    state_dir
        Folder for logs and generated files.
    port
        HTTP port; `sam local start-lambda` listens on the next one.
    emulator_port
        Port of MiniStack.
    endpoint_url
        Address of a running emulator, as containers reach it. None starts MiniStack.
    """
    sam.build()
    with ExitStack() as stack:
        emulator, endpoint_url = stack.enter_context(_emulator_for_containers(state_dir, emulator_port, endpoint_url))
        outputs = deploy(emulator, f"recsys-{_STAGE}", data_stack(load()), {"Stage": _STAGE})
        variables_file = state_dir / "env.json"
        variables = {
            "RECSYS_BUCKET": outputs["BucketName"],
            "RECSYS_TABLE": outputs["TableName"],
            "RECSYS_QUEUE_URL": outputs["QueueUrl"],
        }
        sam.write_variables(variables_file, {**variables, "AWS_ENDPOINT_URL": endpoint_url})
        credentials = {**CREDENTIALS, "AWS_DEFAULT_REGION": REGION}
        lambda_url, url = (
            stack.enter_context(
                sam.serving(
                    subcommand,
                    port=listen_port,
                    variables_file=variables_file,
                    log=state_dir / f"{subcommand}.log",
                    credentials=credentials,
                )
            )
            for subcommand, listen_port in (("start-lambda", port + 1), ("start-api", port))
        )
        lambda_client = emulator.client("lambda", endpoint_url=lambda_url)
        for queue, function in (("ArrivalQueueUrl", "DispatchFunction"), ("QueueUrl", "TrainFunction")):
            stack.enter_context(QueueBridge(emulator.client("sqs"), outputs[queue], lambda_client, function))
        yield LocalStack(url, emulator, outputs["BucketName"], outputs["TableName"], outputs["QueueUrl"])


@contextmanager
def _emulator_for_containers(state_dir: Path, port: int, endpoint_url: str | None) -> Iterator[tuple[Emulator, str]]:
    """Start MiniStack unless `endpoint_url` is given; yield the emulator and its address as containers reach it."""
    if endpoint_url is not None:
        yield Emulator(endpoint_url), endpoint_url
        return
    host, container_host = sam.host_for_containers()
    with running_ministack(_MINISTACK, host=host, port=port, log=state_dir / "ministack.log") as emulator:
        yield emulator, f"http://{container_host}:{port}"


@contextmanager
def running_without_docker(
    state_dir: Path,
    *,
    emulator_port: int,
    template: Template | None = None,
    environment: Mapping[str, str] | None = None,
    endpoint_urls: Mapping[str, str] | None = None,
    enforce_iam: bool = False,
) -> Iterator[LocalStack]:
    """Run the whole stack in MiniStack until the end of the context, with the functions as local Python processes.

    Parameters
    ----------
    state_dir
        Folder for the emulator's log.
    emulator_port
        Port of MiniStack, which also serves HTTP.
    template
        The template to deploy; None deploys template.yaml.
    environment
        Additional environment variables for every function.
    endpoint_urls
        Address of AWS for a function, by its name. Other functions use MiniStack.
    enforce_iam
        Whether a call of a function fails unless its role allows it.
    """
    template = template or load()
    log = state_dir / "ministack.log"
    with running_ministack(
        _MINISTACK, host="127.0.0.1", port=emulator_port, log=log, enforce_iam=enforce_iam
    ) as emulator:
        # MiniStack runs functions with its own interpreter, whose version may differ from the one that the functions'
        # locks target. Therefore the zips contain only the project's code, and its dependencies are those of the tests.
        variables = {"PYTHONPATH": sysconfig.get_path("purelib"), **(environment or {})}
        code, endpoints = upload_code(emulator), endpoint_urls or {}
        variables_of = {
            name: variables | {"AWS_ENDPOINT_URL": endpoints.get(name, emulator.endpoint_url)} for name in code
        }
        stack = function_stack(template, code, environment=variables_of)
        parameters = {"Stage": _STAGE} if "Stage" in template.get("Parameters", {}) else {}
        outputs = deploy(emulator, f"recsys-{_STAGE}", stack, parameters)
        # The host name in the output, <id>.execute-api.<region>.amazonaws.com, would resolve to AWS.
        api_id = outputs["ApiUrl"].removeprefix("https://").partition(".")[0]
        url = f"{emulator.endpoint_url}/_aws/execute-api/{api_id}"
        yield LocalStack(url, emulator, outputs["BucketName"], outputs["TableName"], outputs["QueueUrl"])


def main() -> int:
    """Start the stack, print how to use it and stop it on Ctrl+C or SIGTERM; return the exit status."""
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
            _print(f"The stack is available at {running.url} (started in {time.monotonic() - started_s:.0f} s).")
            _print(f"In another shell, run:  . {shell_file.relative_to(ROOT)}")
            _print("Then follow docs/operations/local-aws.md. Ctrl+C stops the stack and deletes its state.")
            signal.pause()
    except KeyboardInterrupt:
        pass
    except RuntimeError as error:
        _print(str(error))
        return 1
    return 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--docker",
        choices=["yes", "no"],
        default="yes",
        help="whether to run the functions in Docker containers (default: %(default)s)",
    )
    parser.add_argument(
        "--port",
        type=int,
        default=3000,
        help="HTTP port; `sam local start-lambda` listens on the next one (default: %(default)s)",
    )
    parser.add_argument("--emulator-port", type=int, default=4566, help="port of MiniStack (default: %(default)s)")
    parser.add_argument("--endpoint-url", help="address of a running emulator, such as LocalStack")
    return parser.parse_args()


def _print(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
