"""One verification: what it will do, what it does, and what it found."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

import httpx

from local_aws.templates import load
from verify_aws.checks import Client, excess_permissions, missing_alarms, missing_permissions
from verify_aws.cost import N_TRAININGS, run_costs
from verify_aws.flows import Bucket, FlowFailed, Service, drop_and_claim, presigned_upload, upload
from verify_aws.latency import N_COLD, N_WARM, measure
from verify_aws.stacks import Deployed, Deployer, delete_data

Say = Callable[[str], None]
"""Prints a line."""
_CLOCK: Final = time.monotonic


@dataclass(frozen=True, slots=True)
class Sizes:
    """Number of requests whose latency is measured."""

    cold: int = N_COLD
    warm: int = N_WARM


def plan(stage: str, account: str, region: str, bound: float, sizes: Sizes) -> Iterator[str]:
    """Yield what a run will do, before it does it."""
    yield f"In the account {account}, region {region}, this run will:"
    yield f"  1. build the functions and deploy them as the stack recsys-{stage} (AWS SAM, about ten minutes)"
    yield f"  2. train {N_TRAININGS} small models: by upload, by presigned upload and by a drop into inbox/"
    yield f"  3. measure {sizes.cold} cold and {sizes.warm} warm requests for recommendations"
    yield "  4. check that all alarms exist, and the permissions of the functions with IAM's policy simulator"
    yield f"  5. delete the stack recsys-{stage}, its bucket with all objects and its table, also after an error"
    yield f"It costs at most about ${bound:.2f}, at the list prices in infra/deployment/costs.py."


def verify(deployer: Deployer, client: Client, stage: str, say: Say, sizes: Sizes = Sizes()) -> bool:
    """Deploy the stage, use and check it, delete everything; return whether all checks succeeded."""
    started_s = _CLOCK()
    try:
        deployed = deployer.deploy()
    except BaseException:  # Ctrl+C included, because what was created costs money; raised again
        # CloudFormation does not retain the bucket and the table of a stack that it could not create.
        say("The deployment failed. Deleting what it created …")
        deployer.delete()
        raise
    say(f"Deployed {deployed.url} after {_CLOCK() - started_s:.0f} s.")
    problems: list[str] = []
    try:
        service = Service(deployed.url)
        training_s = _use(service, Bucket(client("s3"), deployed.bucket), say, sizes)
        problems += _check(client, stage, deployed, say)
        hours = (_CLOCK() - started_s) / 3600
        costs = run_costs(training_s, N_TRAININGS, service.n_requests, hours)
        for cost in costs:
            say(f"Cost: {cost.item:40} ${cost.dollars:.4f}")
        say(f"Cost of the run: about ${sum(cost.dollars for cost in costs):.2f}")
    except (FlowFailed, httpx.HTTPError) as error:
        problems.append(f"{type(error).__name__}: {error}")
    finally:
        say("Deleting the stack, its bucket and its table …")
        deployer.delete()
        delete_data(client, deployed.bucket, deployed.table)
        say("Deleted.")
    for problem in problems:
        say(f"FAILED: {problem}")
    return not problems


def _use(service: Service, bucket: Bucket, say: Say, sizes: Sizes) -> float:
    """Run the flows and measure the latencies; return the duration of the trainings in seconds, or slightly more."""
    started_s = _CLOCK()
    uploaded = upload(service)
    training_s = _CLOCK() - started_s
    say(f"Uploaded a file; its model was ready after {training_s:.0f} s.")
    # Before any other request for recommendations, so that the function has no environment yet.
    for latencies in measure(service, uploaded["api_key"], n_cold=sizes.cold, n_warm=sizes.warm):
        say(f"Latency of recommendations, {latencies}")
    started_s = _CLOCK()
    presigned_upload(service)
    say("Uploaded a file with a presigned form; its model serves recommendations.")
    drop_and_claim(service, bucket)
    say("Dropped a file into inbox/, and exchanged the claim token of its receipt for a key with recommendations.")
    return training_s + _CLOCK() - started_s


def _check(client: Client, stage: str, deployed: Deployed, say: Say) -> list[str]:
    """Check alarms and permissions; return the problems."""
    alarms = [f"The alarm {name} is missing or disabled." for name in missing_alarms(client, load(), stage)]
    excess = list(excess_permissions(client, stage, deployed.bucket, deployed.table))
    missing = list(missing_permissions(client, stage))
    say(f"Alarms: {'all exist' if not alarms else f'{len(alarms)} missing'}.")
    say(f"Permissions: {len(excess)} in excess, {len(missing)} missing.")
    return [*alarms, *excess, *missing]
