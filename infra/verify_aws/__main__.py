"""Verify the stack in an AWS account: `make verify-aws STAGE=…`.

Deploys a new stage, uses it as a shop would, measures it, checks its alarms and permissions, prints what the run cost
and deletes everything. It uses the credentials and the region of the environment, as the AWS CLI does.
"""

from __future__ import annotations

import argparse
import os
import re
import sys
from subprocess import CalledProcessError
from typing import Any

from boto3.session import Session
from botocore.exceptions import BotoCoreError, ClientError

from local_aws.emulator import REGION
from verify_aws.checks import Client
from verify_aws.cost import upper_bound
from verify_aws.stacks import SamDeployer, StageExists, require_new_stage, run_command
from verify_aws.verification import Sizes, plan, verify

_STAGE = re.compile(r"[a-z][a-z0-9]{0,11}")


def main(arguments: list[str] | None = None, client: Client | None = None) -> int:
    """Print the plan, ask for confirmation and carry it out; return the exit status.

    Parameters
    ----------
    arguments
        Command-line arguments; None for those of the process.
    client
        Returns the boto3 client of a service; None for clients of the account in the environment.
    """
    options = _parser().parse_args(arguments)
    client = client or _account_client(options.region)
    sizes = Sizes(options.cold, options.warm)
    bound = upper_bound(sizes.cold + sizes.warm)
    account = client("sts").get_caller_identity()["Account"]
    for line in plan(options.stage, account, options.region, bound, sizes):
        _print(line)
    if bound > options.max_cost:
        _print(f"Refused: this is more than the limit of ${options.max_cost:.2f} (--max-cost).")
        return 2
    if options.dry_run:
        _print("Nothing was done (--dry-run).")
        return 0
    table = f"recsys-{options.stage}-registry"
    bucket = f"recsys-{options.stage}-objects-{account}-{options.region}"
    try:
        require_new_stage(client, options.stage, bucket, table)
    except StageExists as error:
        _print(f"Refused: {error}")
        return 2
    if not _is_confirmed(options.stage, options.confirm):
        _print("Refused: not confirmed. Nothing was done.")
        return 2
    deployer = SamDeployer(client, options.stage, options.region, options.parameters, run_command)
    try:
        return 0 if verify(deployer, client, options.stage, _print, sizes) else 1
    except (BotoCoreError, ClientError, CalledProcessError, RuntimeError) as error:
        _print(f"FAILED: {error}")
        return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--stage", type=_new_stage, required=True, help="a stage that does not exist yet")
    parser.add_argument(
        "--region",
        default=os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION") or REGION,
        help="AWS region (default: %(default)s)",
    )
    parser.add_argument("--dry-run", action="store_true", help="print what the run would do and cost, and end")
    parser.add_argument("--confirm", default="", help="`yes` for no question")
    parser.add_argument(
        "--max-cost", type=float, default=1.0, help="limit in US dollars, above which nothing is done (%(default)s)"
    )
    parser.add_argument("--cold", type=int, default=Sizes().cold, help="number of cold requests (%(default)s)")
    parser.add_argument("--warm", type=int, default=Sizes().warm, help="number of warm requests (%(default)s)")
    parser.add_argument(
        "--parameters", nargs="*", default=[], help="parameters of template.yaml, such as TrainMemoryMb=3008"
    )
    return parser


def _new_stage(text: str) -> str:
    if not _STAGE.fullmatch(text):
        raise argparse.ArgumentTypeError("must be 1 to 12 lower-case letters and digits and begin with a letter")
    return text


def _is_confirmed(stage: str, confirm: str) -> bool:
    if confirm == "yes":
        return True
    try:
        return input("Type the stage name to continue: ").strip() == stage
    except EOFError:
        return False


def _account_client(region: str) -> Client:
    create_client: Any = Session(region_name=region).client  # boto3-stubs accept only literal service names
    client: Client = create_client
    return client


def _print(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
