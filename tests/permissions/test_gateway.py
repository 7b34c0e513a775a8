"""The gateway enforces and records what the roles of both templates allow; no role allows more than it needs."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import pytest
from botocore.exceptions import ClientError

from recsys.clock import DAY_S, Timestamp, after, utc_now
from recsys.objects.s3 import S3ObjectStore
from recsys.registry.dynamodb import DynamoTable
from recsys.registry.key_record import KeyRecord
from recsys.registry.reading import version_address
from recsys.registry.records import Job, ModelVersion
from recsys.registry.registry import Registry
from recsys.registry.table import Change
from recsys.registry.turns import FileTurn, Turns
from recsys.retention.collector import Collector
from recsys.retention.plan import RetentionPolicy
from tests.emulators import Emulator
from tests.permissions.__main__ import main, read, unused
from tests.permissions.calls import Call, Request, StackNames, calls_of
from tests.permissions.gateway import Gateway
from tests.permissions.roles import Permission, Role, UnknownOperator, roles, serverless_roles

NAMES: Final = StackNames("bucket", "table", "queue")
BUCKET: Final = "arn:<AWS::Partition>:s3:::<Bucket>"
LONG_AGO: Final = Timestamp("2025-01-01T00:00:00.000000Z")
ANY_RESOURCE: Final = {
    "xray:PutTelemetryRecords": "X-Ray has no resources",
    "xray:PutTraceSegments": "X-Ray has no resources",
}
"""Actions that a role allows on every resource, with the reason."""


def s3_request(method: str, target: str, body: bytes = b"") -> Request:
    return Request(method, target, {"authorization": "Credential=AKIA/20261125/eu-west-1/s3/aws4_request, …"}, body)


def dynamodb_request(operation: str, document: object) -> Request:
    headers = {
        "authorization": "Credential=AKIA/20261125/eu-west-1/dynamodb/aws4_request, …",
        "x-amz-target": f"DynamoDB_20120810.{operation}",
    }
    return Request("POST", "/", headers, json.dumps(document).encode())


@pytest.mark.parametrize(
    ("request_", "action", "resource"),
    [
        (s3_request("GET", "/bucket/models/a%2Fb"), "s3:GetObject", f"{BUCKET}/models/a/b"),
        (s3_request("HEAD", "/bucket/a?versionId=1"), "s3:GetObjectVersion", f"{BUCKET}/a"),
        (s3_request("PUT", "/bucket/a?x-id=PutObject"), "s3:PutObject", f"{BUCKET}/a"),
        (s3_request("DELETE", "/bucket/a?versionId=1"), "s3:DeleteObjectVersion", f"{BUCKET}/a"),
        (s3_request("GET", "/bucket?versions&prefix=models/"), "s3:ListBucketVersions", BUCKET),
        (s3_request("GET", "/other?list-type=2"), "s3:ListBucket", "arn:<AWS::Partition>:s3:::other"),
        (s3_request("PUT", "/bucket?versioning"), "s3:unknown PUT versioning", f"{BUCKET}/"),
        (
            Request(
                "POST", "/bucket", {}, b'--x\r\nContent-Disposition: form-data; name="key"\r\n\r\nuploads/a\r\n--x--'
            ),
            "s3:PutObject",
            f"{BUCKET}/uploads/a",
        ),
        (dynamodb_request("GetItem", {"TableName": "table", "Key": {}}), "dynamodb:GetItem", "<Table.Arn>"),
        (dynamodb_request("Scan", {"TableName": "other"}), "dynamodb:Scan", "other"),
    ],
)
def test_action_and_resource_are_those_that_aws_checks(request_: Request, action: str, resource: str) -> None:
    (call,) = calls_of(request_, NAMES)
    assert (call.action, call.resource) == (action, resource)


def test_transaction_requires_the_action_of_each_item() -> None:
    items = [{"Put": {"TableName": "table", "Item": {"pk": {"S": "KEY#1"}}}}, {"Delete": {"TableName": "table"}}]
    assert calls_of(dynamodb_request("TransactWriteItems", {"TransactItems": items}), NAMES) == [
        Call("dynamodb:PutItem", "<Table.Arn>", {"dynamodb:LeadingKeys": ("KEY#1",)}),
        Call("dynamodb:DeleteItem", "<Table.Arn>"),
    ]


def test_conditions_and_wildcards_follow_iam() -> None:
    recommend, api = roles()["recommend"], roles()["api"]
    for partition, is_allowed in (("LIMIT#recommendations#key1", True), ("KEY#key1", False)):
        call = Call("dynamodb:PutItem", "<Table.Arn>", {"dynamodb:LeadingKeys": (partition,)})
        assert (recommend.permission_for(call) is not None) is is_allowed
    for prefix, is_allowed in (("models/key1/", True), ("uploads/", False)):
        call = Call("s3:ListBucketVersions", BUCKET, {"s3:prefix": (prefix,)})
        assert (api.permission_for(call) is not None) is is_allowed
    assert api.permission_for(Call("s3:PutObject", f"{BUCKET}/models/a")) is None
    with pytest.raises(UnknownOperator):
        Permission("a:B", "*", '{"NumericLessThan": {"a:key": "1"}}').allows(Call("a:B", "c"))


def test_denied_call_gets_403_and_fails_the_comparison(
    moto: Emulator, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with gateway(moto, "recommend", tmp_path) as (recommend, names):
        with pytest.raises(ClientError, match="AccessDenied"):
            recommend.s3.put_object(Bucket=names.bucket, Key="models/a", Body=b"")
        with pytest.raises(ClientError, match="AccessDenied"):
            recommend.dynamodb.query(TableName=names.table)
        # The role may not list the bucket, so S3 does not reveal whether the object exists.
        with pytest.raises(ClientError, match="AccessDenied"):
            recommend.s3.get_object(Bucket=names.bucket, Key="models/missing")
    assert len(read(tmp_path)[1]) == 2
    assert main(tmp_path) == 1
    assert f"ERROR: recommend may not call s3:PutObject on {BUCKET}/models/a" in capsys.readouterr().out


def test_missing_object_is_404_for_a_role_that_may_list_the_bucket(moto: Emulator, tmp_path: Path) -> None:
    with gateway(moto, "api", tmp_path) as (api, names), pytest.raises(ClientError, match="NoSuchKey"):
        api.s3.get_object(Bucket=names.bucket, Key="uploads/missing")
    usage, denied = read(tmp_path)
    assert (set(usage["api"]), denied) == (
        {Permission("s3:GetObject", f"{BUCKET}/uploads/*"), Permission("s3:ListBucket", BUCKET)},
        [],
    )


def test_unused_permission_is_reported() -> None:
    used, other = Permission("s3:GetObject", f"{BUCKET}/a/*"), Permission("s3:GetObject", f"{BUCKET}/b/*")
    granted = {"api": Role(frozenset({used, other, Permission("logs:PutLogEvents", "<Log>")}))}
    assert list(unused({"api": {used: 1}}, granted)) == [
        f"api may call s3:GetObject on {other.resource}, but no test does"
    ]


@pytest.mark.parametrize("granted", [roles(), serverless_roles()], ids=["template.yaml", "serverless.yml"])
def test_wildcards_stand_only_for_the_names_in_a_folder(granted: dict[str, Role]) -> None:
    permissions = [permission for role in granted.values() for permission in role.permissions]
    assert [each for each in permissions if "*" in each.action] == []
    wide = [each for each in permissions if "*" in each.resource.removesuffix("/*")]
    assert {each.action for each in wide} <= set(ANY_RESOURCE)
    assert {each.resource for each in permissions if each.resource.endswith("/*")} == {
        f"{BUCKET}/{folder}/*" for folder in ("inbox", "models", "receipts", "uploads")
    }


def test_role_of_gc_allows_every_deletion(moto: Emulator) -> None:
    """In the deployed stack nothing is old enough to be deleted, so here the clock is a day ahead."""
    with gateway(moto, "gc") as (gc, names):
        table, store = DynamoTable(moto.dynamodb, names.table), S3ObjectStore(moto.s3, names.bucket)
        registry = Registry(table)
        registry.create_key(KeyRecord("revoked", LONG_AGO, revoked_at=LONG_AGO))
        registry.create_job(Job("job1", "revoked", "uploads/job1.csv", created_at=LONG_AGO, updated_at=LONG_AGO))
        store.create("uploads/job1.csv", b"1")
        for version, deleted_at in (("v1.1", LONG_AGO), ("v2.1", None)):
            retired = ModelVersion("revoked", version, "job1", LONG_AGO, "digest", {}, deleted_at=deleted_at)
            table.write([Change(version_address("revoked", version), None, retired.to_document())])
            store.create(f"models/revoked/{version}/manifest.json", b"1")

        policy = RetentionPolicy.of(versions_kept=5, key_cache_s=0, upload_days=None, audit_days=30)
        collector = Collector(
            DynamoTable(gc.dynamodb, names.table), S3ObjectStore(gc.s3, names.bucket), policy, _tomorrow
        )
        collection = collector.run()

        assert (collection.n_failed, {deletion.what for deletion in collection.deletions}) == (
            0,
            {"models/revoked/v1.1/", "models/revoked/v2.1/", "uploads/job1.csv"},
        )
        assert [info.name for info in store.list("models/")] == ["models/revoked/v2.1/manifest.json"]


def test_role_of_dispatch_allows_it_to_skip_a_lost_file(moto: Emulator) -> None:
    """In the other tests no turn expires, so here the clock is a day ahead."""
    with gateway(moto, "dispatch") as (dispatch, names):
        table, sent = DynamoTable(dispatch.dynamodb, names.table), list[str]()
        files = [FileTurn.of("key1", data_timestamp=f"2026-0{n}", name=f"file{n}", version="1") for n in (1, 2)]
        for file, clock in zip(files, (utc_now, _tomorrow), strict=True):
            Turns(table, sent.append, clock).wait(file, {}, replaces=False)
        waiting = table.list("WAITING#key1", "FILE#")
    assert [json.loads(message)["turn"]["file"] for message in sent] == [file.file for file in files]
    assert [row.address.sort for row in waiting] == [f"FILE#{files[1].file}"]


def _tomorrow() -> Timestamp:
    return after(utc_now(), DAY_S)


@contextmanager
def gateway(emulator: Emulator, function: str, records: Path | None = None) -> Iterator[tuple[Emulator, StackNames]]:
    """Yield a new stack as a function reaches it. The record counts for the comparison unless it has its own folder."""
    names = StackNames(emulator.new_bucket(versioned=True), emulator.new_table(), "")
    arguments = {"records": records} if records else {}
    with Gateway(function, emulator.endpoint_url, names, **arguments) as running:
        yield Emulator(running.url), names
