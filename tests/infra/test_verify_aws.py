"""`make verify-aws` says what it will do, refuses what it must not do, and deletes what it deployed.

test_deployed_stacks.py runs it on a deployed stack.
"""

from __future__ import annotations

from collections.abc import Sequence
from subprocess import CalledProcessError
from typing import Any

import boto3
import pytest

from tests.emulators import Emulator
from verify_aws.__main__ import main
from verify_aws.latency import Latencies
from verify_aws.stacks import Deployed, SamDeployer, delete_data
from verify_aws.verification import verify


class Account:
    """Clients of an account on an emulator, by service."""

    def __init__(self, emulator: Emulator) -> None:
        self._emulator = emulator
        self.services: list[str] = []

    def __call__(self, service: str) -> Any:
        self.services.append(service)
        with self._emulator.in_environment():
            return boto3.client(service)


@pytest.fixture
def account(moto: Emulator) -> Account:
    return Account(moto)


def test_dry_run_prints_the_plan_and_its_cost_and_calls_nothing(
    account: Account, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--stage", "verify", "--dry-run"], account) == 0
    text = capsys.readouterr().out
    for expected in (
        "recsys-verify",
        "train 3 small models",
        "delete the stack",
        "at most about $0.",
        "Nothing was done",
    ):
        assert expected in text
    assert account.services == ["sts"]


def test_a_run_above_the_limit_is_refused(account: Account, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--stage", "verify", "--confirm", "yes", "--max-cost", "0.01"], account) == 2
    assert "Refused: this is more than the limit of $0.01" in capsys.readouterr().out
    assert account.services == ["sts"]


def test_a_stage_that_exists_is_refused(account: Account, moto: Emulator, capsys: pytest.CaptureFixture[str]) -> None:
    bucket = "recsys-used-objects-123456789012-eu-west-1"
    moto.s3.create_bucket(Bucket=bucket, CreateBucketConfiguration={"LocationConstraint": "eu-west-1"})
    assert main(["--stage", "used", "--region", "eu-west-1", "--confirm", "yes"], account) == 2
    assert f"Refused: Choose another stage: the bucket {bucket} exists." in capsys.readouterr().out
    assert bucket in [each["Name"] for each in moto.s3.list_buckets()["Buckets"]]


def test_without_confirmation_nothing_is_deployed(
    account: Account, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    answers = iter(["yes"])  # the stage name is required
    monkeypatch.setattr("builtins.input", lambda _: next(answers))
    assert main(["--stage", "verify"], account) == 2
    assert "Refused: not confirmed." in capsys.readouterr().out


def test_sam_deploys_and_deletes_only_the_stage(account: Account) -> None:
    commands: list[Sequence[str]] = []
    deployer = SamDeployer(account, "verify", "eu-west-1", ["TrainMemoryMb=3008"], commands.append)
    deployer.delete()
    with pytest.raises(Exception, match="recsys-verify does not exist"):
        deployer.deploy()
    for command, arguments in zip(commands, ("delete", "build", "deploy"), strict=True):
        assert command[1] == arguments
        assert command[2:4] == ["--stack-name", "recsys-verify"] or arguments == "build"
    assert commands[-1][-3:] == ["--parameter-overrides", "Stage=verify", "TrainMemoryMb=3008"]


class Deployment:
    """A `Deployer` whose stack fails."""

    def __init__(self, deployed: Deployed | Exception) -> None:
        self._deployed = deployed
        self.is_deleted = False

    def deploy(self) -> Deployed:
        if isinstance(self._deployed, Exception):
            raise self._deployed
        return self._deployed

    def delete(self) -> None:
        self.is_deleted = True


def test_a_stack_that_does_not_respond_is_deleted_with_its_data(account: Account, moto: Emulator) -> None:
    bucket, table = moto.new_bucket(versioned=True), moto.new_table()
    moto.s3.put_object(Bucket=bucket, Key="inbox/a.csv", Body=b"1")
    moto.s3.delete_object(Bucket=bucket, Key="inbox/a.csv")
    deployment, lines = Deployment(Deployed("http://127.0.0.1:9", bucket, table)), list[str]()
    assert not verify(deployment, account, "verify", lines.append)
    assert deployment.is_deleted
    assert "FAILED: ConnectError" in lines[-1]
    assert bucket not in [each["Name"] for each in moto.s3.list_buckets()["Buckets"]]
    assert table not in moto.dynamodb.list_tables()["TableNames"]


def test_a_failed_deployment_is_deleted(account: Account) -> None:
    deployment = Deployment(CalledProcessError(1, ["sam"]))
    with pytest.raises(CalledProcessError):
        verify(deployment, account, "verify", lambda _: None)
    assert deployment.is_deleted


def test_data_of_many_objects_is_deleted(account: Account, moto: Emulator, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("verify_aws.stacks._DELETE_BATCH", 2)
    bucket, table = moto.new_bucket(versioned=True), moto.new_table()
    for number in range(5):
        moto.s3.put_object(Bucket=bucket, Key=f"models/{number}", Body=b"1")
    delete_data(account, bucket, table)
    assert bucket not in [each["Name"] for each in moto.s3.list_buckets()["Buckets"]]


def test_percentiles_are_times_that_so_many_requests_did_not_exceed() -> None:
    latencies = Latencies("warm", [float(time) for time in range(1, 101)])
    assert [latencies.percentile(percent) for percent in (50, 90, 99, 100)] == [50, 90, 99, 100]
    assert str(Latencies("cold", [7.0])) == "cold (1 request): p50 7 ms, p90 7 ms, p99 7 ms"
