"""Behaviour of the S3 adapter alone: lost responses, conflicts, rejected requests, versions and upload forms."""

from __future__ import annotations

import io
from datetime import UTC, datetime
from typing import Any

import httpx
import pytest
from botocore.exceptions import ClientError, ReadTimeoutError
from botocore.stub import Stubber

from recsys import aws
from recsys.clock import Timestamp
from recsys.errors import ObjectExists, ObjectNotFound, Unavailable
from recsys.objects.s3 import S3ObjectStore
from recsys.objects.store import ObjectInfo
from tests.emulators import MINISTACK, Emulator


class WrappedClient:
    """A client with a replaced `put_object`."""

    def __init__(self, client: Any, put_object: Any) -> None:
        self._client = client
        self.put_object = put_object

    def __getattr__(self, name: str) -> Any:
        return getattr(self._client, name)


def _conflict(code: str, status: int) -> ClientError:
    return ClientError({"Error": {"Code": code}, "ResponseMetadata": {"HTTPStatusCode": status}}, "PutObject")  # type: ignore[typeddict-item]  # no other member is read


@pytest.fixture(params=[False, True], ids=["plain", "versioned"])
def bucket(request: pytest.FixtureRequest, moto: Emulator) -> str:
    return moto.new_bucket(versioned=request.param)


def test_a_create_repeated_by_boto3_succeeds(moto: Emulator, bucket: str) -> None:
    def put_twice(**arguments: Any) -> Any:
        moto.s3.put_object(**arguments)  # stored, but the response is lost …
        arguments["Body"].seek(0)
        return moto.s3.put_object(**arguments)  # … so boto3 repeats the request, and S3 rejects it

    store = S3ObjectStore(WrappedClient(moto.s3, put_twice), bucket)  # type: ignore[arg-type]  # wraps a client
    assert store.create("a/b", io.BytesIO(b"mine")).size_bytes == 4
    with pytest.raises(ObjectExists):
        S3ObjectStore(moto.s3, bucket).create("a/b", b"mine")


def test_a_conflicting_create_is_retried_with_the_whole_stream(moto: Emulator, bucket: str) -> None:
    bodies = []

    def conflict_once(**arguments: Any) -> Any:
        bodies.append(arguments["Body"].read())
        if len(bodies) == 1:
            raise _conflict("ConditionalRequestConflict", 409)
        arguments["Body"].seek(0)
        return moto.s3.put_object(**arguments)

    store = S3ObjectStore(WrappedClient(moto.s3, conflict_once), bucket)  # type: ignore[arg-type]  # wraps a client
    store.create("a/b", io.BytesIO(b"whole"))
    assert bodies == [b"whole", b"whole"]
    assert store.read("a/b") == b"whole"


def test_a_persistent_conflict_is_unavailable(moto: Emulator, bucket: str) -> None:
    def conflict(**_: Any) -> Any:
        raise _conflict("ConditionalRequestConflict", 409)

    store = S3ObjectStore(WrappedClient(moto.s3, conflict), bucket)  # type: ignore[arg-type]  # wraps a client
    with pytest.raises(Unavailable, match="ConditionalRequestConflict"):
        store.create("a/b", b"x")


def test_an_object_is_stored_with_a_checksum(moto: Emulator, bucket: str) -> None:
    S3ObjectStore(moto.s3, bucket).create("a/b", b"hello")
    head = moto.s3.head_object(Bucket=bucket, Key="a/b", ChecksumMode="ENABLED")
    # printf hello | openssl dgst -sha256 -binary | base64
    assert head["ChecksumSHA256"] == "LPJNul+wow4m6DsqxbninhsWHlwfp0JecwQzYpOLmCQ="


def test_the_version_is_the_version_id_or_the_etag(moto: Emulator) -> None:
    plain, versioned = moto.new_bucket(), moto.new_bucket(versioned=True)
    # printf hello | md5sum
    assert S3ObjectStore(moto.s3, plain).create("a", b"hello").version == "5d41402abc4b2a76b9719d911017c592"
    created = S3ObjectStore(moto.s3, versioned).create("a", b"hello")
    assert created.version == moto.s3.head_object(Bucket=versioned, Key="a")["VersionId"]


def test_the_version_of_an_object_older_than_versioning_is_its_etag(moto: Emulator) -> None:
    bucket = moto.new_bucket()
    store = S3ObjectStore(moto.s3, bucket)
    created = store.create("a", b"hello")
    moto.s3.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})
    assert store.info("a").version == created.version == "5d41402abc4b2a76b9719d911017c592"


def test_list_returns_only_current_versions(moto: Emulator) -> None:
    store = S3ObjectStore(moto.s3, moto.new_bucket(versioned=True))
    store.create("gone", b"x")
    store.delete("gone")
    store.replace("kept", b"1")
    newest = store.replace("kept", b"2")
    assert list(store.list("")) == [newest]
    with pytest.raises(ObjectNotFound):
        store.info("gone")


def test_list_continues_after_a_full_page() -> None:
    def page(name: str, **more: Any) -> dict[str, Any]:
        moment = datetime(2026, 3, 1, 12, tzinfo=UTC)
        entry = {"Key": name, "Size": 1, "ETag": '"e"', "VersionId": f"v-{name}", "IsLatest": True}
        return {"Versions": [{**entry, "LastModified": moment}], **more}

    store, stubber = _stubbed_store()
    request = {"Bucket": "bucket", "Prefix": "inbox/"}
    stubber.add_response(
        "list_object_versions",
        page("inbox/1", IsTruncated=True, NextKeyMarker="inbox/1", NextVersionIdMarker="v-inbox/1"),
        request,
    )
    stubber.add_response(
        "list_object_versions",
        page("inbox/2", IsTruncated=False),
        {**request, "KeyMarker": "inbox/1", "VersionIdMarker": "v-inbox/1"},
    )
    with stubber:
        listed = list(store.list("inbox/"))
    noon = Timestamp("2026-03-01T12:00:00.000000Z")
    assert listed == [ObjectInfo(f"inbox/{n}", 1, f"v-inbox/{n}", modified_at=noon, arrived_at=noon) for n in (1, 2)]
    assert {info.arrived_at for info in listed} == {noon}


@pytest.mark.parametrize(
    ("code", "status"), [("SlowDown", 503), ("InternalError", 500), ("AccessDenied", 403), ("NoSuchBucket", 404)]
)
def test_a_rejected_request_is_unavailable_with_its_error_code(code: str, status: int) -> None:
    store, stubber = _stubbed_store()
    stubber.add_client_error("get_object", code, "AKIAEXAMPLE may not", status)
    with stubber, pytest.raises(Unavailable, match=rf"^AWS rejected GetObject: {code}\.$") as raised:
        store.read("a/b")
    assert isinstance(raised.value.__cause__, ClientError)


def test_a_refused_connection_is_unavailable() -> None:
    # Port 1 of the loopback interface: nothing listens there.
    client = Emulator("http://127.0.0.1:1").s3
    with pytest.raises(Unavailable, match=r"^AWS did not respond to HeadObject: EndpointConnectionError\.$"):
        S3ObjectStore(client, "bucket").info("a/b")


def test_an_interrupted_stream_is_unavailable() -> None:
    class Breaks(io.BytesIO):
        def read(self, size: int | None = -1, /) -> bytes:
            raise ReadTimeoutError(endpoint_url="https://example.invalid")

    store, stubber = _stubbed_store()
    stubber.add_response("get_object", {"Body": Breaks()})
    with stubber, store.open("a/b") as stream, pytest.raises(Unavailable, match="GetObject: ReadTimeoutError"):
        stream.read()


def test_a_form_is_signed_with_version_4() -> None:
    store, _ = _stubbed_store()
    form = store.upload_form("uploads/a.csv", max_bytes=10, valid_s=60)
    assert form.fields["key"] == "uploads/a.csv"
    assert form.fields["x-amz-algorithm"] == "AWS4-HMAC-SHA256"


@pytest.mark.parametrize(("size_bytes", "accepted"), [(0, True), (10, True), (11, False)])
@pytest.mark.parametrize("emulator", [pytest.param("ministack", marks=MINISTACK)])
def test_s3_rejects_an_upload_larger_than_the_limit_of_its_form(
    request: pytest.FixtureRequest, emulator: str, size_bytes: int, accepted: bool
) -> None:
    ministack: Emulator = request.getfixturevalue(emulator)
    store = S3ObjectStore(ministack.s3, ministack.new_bucket())
    form = store.upload_form("uploads/a.csv", max_bytes=10, valid_s=60)
    reply = httpx.post(form.url, data=form.fields, files={"file": ("a.csv", b"x" * size_bytes)})
    assert (reply.status_code == 204) is accepted
    assert ("EntityTooLarge" in reply.text) is not accepted
    assert [info.size_bytes for info in store.list("")] == [size_bytes] * accepted


@pytest.mark.parametrize("changed", [{"key": "uploads/other.csv"}, {"key": "inbox/k/stolen.csv"}])
@pytest.mark.parametrize("emulator", [pytest.param("ministack", marks=MINISTACK)])
def test_s3_rejects_an_upload_whose_name_differs_from_the_form(
    request: pytest.FixtureRequest, emulator: str, changed: dict[str, str]
) -> None:
    ministack: Emulator = request.getfixturevalue(emulator)
    store = S3ObjectStore(ministack.s3, ministack.new_bucket())
    form = store.upload_form("uploads/a.csv", max_bytes=10, valid_s=60)
    reply = httpx.post(form.url, data={**form.fields, **changed}, files={"file": ("a.csv", b"x")})
    assert reply.status_code == 403
    assert list(store.list("")) == []


def _stubbed_store() -> tuple[S3ObjectStore, Stubber]:
    with Emulator("https://s3.eu-west-1.amazonaws.com").in_environment():
        client = aws.s3_client.__wrapped__()
    return S3ObjectStore(client, "bucket"), Stubber(client)
