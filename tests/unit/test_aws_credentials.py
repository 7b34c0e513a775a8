"""AWS credentials from environment variables and from the container credentials endpoint (SnapStart, ECS, EKS)."""

from __future__ import annotations

import json
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import botocore.utils
import pytest

from recsys.errors import Unavailable
from recsys_recommend.lean_aws.config import AwsConfig
from recsys_recommend.lean_aws.credentials import CredentialProvider, Credentials
from recsys_recommend.lean_aws.dynamodb_reader import DynamoKeyReader
from recsys_recommend.lean_aws.s3_reader import S3Reader
from tests.racing import race
from tests.unit.scripted_server import Reply, replying

KEYS = {"AWS_ACCESS_KEY_ID": "id", "AWS_SECRET_ACCESS_KEY": "secret"}
SIX_HOURS = timedelta(hours=6)

LOADED_MODULES = """
import sys
from recsys_recommend.lean_aws.credentials import CredentialProvider
CredentialProvider(dict([sys.argv[1:]]))
print("botocore.credentials" in sys.modules)
"""


def temporary(number: int, valid_for: timedelta = SIX_HOURS) -> tuple[int, bytes]:
    """A response of the endpoint: https://docs.aws.amazon.com/sdkref/latest/guide/feature-container-credentials.html."""
    document = {
        "AccessKeyId": f"ASIA{number}",
        "SecretAccessKey": f"secret{number}",
        "Token": f"session{number}",
        "Expiration": (datetime.now(UTC) + valid_for).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "AccountId": "123456789012",
    }
    return 200, json.dumps(document).encode()


@pytest.fixture(autouse=True)
def _retry_immediately(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(botocore.utils.ContainerMetadataFetcher, "SLEEP_TIME", 0)


def at_endpoint(url: str, **variables: str) -> CredentialProvider:
    return CredentialProvider({"AWS_CONTAINER_CREDENTIALS_FULL_URI": url, **variables})


# -- environment variables


def test_credentials_are_read_from_the_variables_of_lambda() -> None:
    found = CredentialProvider({**KEYS, "AWS_SESSION_TOKEN": "token"}).get()
    assert found == Credentials("id", "secret", "token")
    assert CredentialProvider(KEYS).get().session_token == ""


def test_secrets_are_not_in_the_repr() -> None:
    assert repr(Credentials("id", "a secret", "a token")) == "Credentials(access_key_id='id')"


def test_changed_variables_take_effect_with_the_next_request() -> None:
    environment = dict(KEYS)
    credentials = CredentialProvider(environment)
    credentials.get()
    environment["AWS_SESSION_TOKEN"] = "renewed"
    assert credentials.get().session_token == "renewed"


def test_variables_take_precedence_over_the_endpoint() -> None:
    with replying() as server:
        assert at_endpoint(server.url, **KEYS).get().access_key_id == "id"
    assert server.received == []


def test_missing_credentials_are_reported_and_nothing_is_sent() -> None:
    with replying() as server:
        reader = S3Reader(AwsConfig("eu-west-1", {"": server.url}), CredentialProvider({}), "bucket")
        with pytest.raises(Unavailable, match=r"AWS_ACCESS_KEY_ID.*AWS_CONTAINER_CREDENTIALS_FULL_URI"):
            reader.read("models/x")
    assert server.received == []


# -- the container credentials endpoint


def test_the_endpoint_receives_the_authorization_token() -> None:
    with replying(temporary(1)) as server:
        url = f"{server.url}/v1/credentials?role=recommend"
        found = at_endpoint(url, AWS_CONTAINER_AUTHORIZATION_TOKEN="Basic abc=").get()
    assert found == Credentials("ASIA1", "secret1", "session1")
    (request,) = server.received
    assert (request.path, request.headers["authorization"]) == ("/v1/credentials?role=recommend", "Basic abc=")


def test_a_relative_uri_is_resolved_at_the_address_of_ecs(monkeypatch: pytest.MonkeyPatch) -> None:
    fetcher = botocore.utils.ContainerMetadataFetcher
    assert fetcher.IP_ADDRESS == "169.254.170.2"
    with replying(temporary(1)) as server:
        monkeypatch.setattr(fetcher, "IP_ADDRESS", server.url.removeprefix("http://"))
        found = CredentialProvider({"AWS_CONTAINER_CREDENTIALS_RELATIVE_URI": "/v2/credentials/uuid"}).get()
    assert found.access_key_id == "ASIA1"
    assert server.paths == ["/v2/credentials/uuid"]
    assert "authorization" not in server.received[0].headers


def test_a_token_file_is_read_with_every_refresh(tmp_path: Path) -> None:
    token_file = tmp_path / "token"
    with replying(temporary(1, timedelta(hours=1)), temporary(2)) as server:
        credentials = at_endpoint(server.url, AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE=str(token_file))
        token_file.write_text("first")
        credentials.get()
        token_file.write_text("second")
        expire(credentials, timedelta(minutes=9))
        credentials.get()
    assert [request.headers["authorization"] for request in server.received] == ["first", "second"]


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ({"AWS_CONTAINER_AUTHORIZATION_TOKEN": "a\r\nHost: other"}, "not a legal header value"),
        ({"AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE": "/missing/token"}, "No such file or directory: '/missing/token'"),
    ],
)
def test_an_invalid_token_is_reported_and_not_sent(variables: dict[str, str], message: str) -> None:
    with replying() as server:
        with pytest.raises(Unavailable, match=message):
            at_endpoint(server.url, **variables).get()
    assert server.received == []


@pytest.mark.parametrize("url", ["http://example.com/credentials", "http://169.254.169.254/"])
def test_the_token_is_not_sent_to_other_hosts_without_tls(url: str) -> None:
    with pytest.raises(Unavailable, match="Unsupported host"):
        at_endpoint(url).get()


@pytest.mark.parametrize("failure", [None, (500, b""), (404, b"not yet")])
def test_a_failing_endpoint_is_retried(failure: Reply) -> None:
    with replying(failure, failure, temporary(1)) as server:
        assert at_endpoint(server.url).get().access_key_id == "ASIA1"


def test_a_persistent_failure_is_unavailable_and_the_response_is_not_quoted() -> None:
    with replying(*[(500, b"SECRET")] * 3) as server:
        with pytest.raises(Unavailable, match=r"failed: CredentialRetrievalError\.$"):
            at_endpoint(server.url).get()


@pytest.mark.parametrize("body", [b"[]", b"null", b'{"AccessKeyId": "SECRET"}'])
def test_an_invalid_response_is_unavailable_and_not_quoted(body: bytes) -> None:
    with replying((200, body)) as server:
        with pytest.raises(Unavailable, match="endpoint cannot be used") as raised:
            at_endpoint(server.url).get()
    assert "SECRET" not in raised.value.detail


def test_a_failed_first_request_is_repeated_by_the_next_one() -> None:
    with replying(*[(500, b"")] * 3, temporary(1)) as server:
        credentials = at_endpoint(server.url)
        with pytest.raises(Unavailable):
            credentials.get()
        assert credentials.get().access_key_id == "ASIA1"


# -- refresh


def expire(credentials: CredentialProvider, remaining: timedelta) -> None:
    """Change the expiry of the cached credentials."""
    cached = credentials._refreshable
    assert cached is not None
    cached._expiry_time = datetime.now(UTC) + remaining  # type: ignore[attr-defined]


def test_credentials_are_cached_until_15_minutes_before_they_expire() -> None:
    with replying(temporary(1), temporary(2)) as server:
        credentials = at_endpoint(server.url)
        ids = [credentials.get().access_key_id, credentials.get().access_key_id]
        expire(credentials, timedelta(minutes=15, seconds=30))
        ids.append(credentials.get().access_key_id)
        expire(credentials, timedelta(minutes=14, seconds=30))
        ids.append(credentials.get().access_key_id)
    assert ids == ["ASIA1", "ASIA1", "ASIA1", "ASIA2"]


def test_a_failed_refresh_keeps_credentials_that_are_still_valid() -> None:
    with replying(temporary(1), *[(500, b"")] * 3, temporary(2)) as server:
        credentials = at_endpoint(server.url)
        credentials.get()
        expire(credentials, timedelta(minutes=12))
        assert [credentials.get().access_key_id, credentials.get().access_key_id] == ["ASIA1", "ASIA2"]


def test_expired_credentials_are_never_used() -> None:
    with replying(temporary(1), *[(500, b"")] * 3) as server:
        credentials = at_endpoint(server.url)
        credentials.get()
        expire(credentials, timedelta(seconds=-1))
        with pytest.raises(Unavailable, match="failed: CredentialRetrievalError"):
            credentials.get()


def test_threads_share_one_request_to_the_endpoint() -> None:
    with replying(temporary(1)) as server:
        found = race(*[at_endpoint(server.url).get] * 8)
    assert [each.access_key_id for each in found if isinstance(each, Credentials)] == ["ASIA1"] * 8


# -- with the readers


def test_readers_resolve_credentials_at_the_first_request_and_sign_with_them() -> None:
    item = b'{"Item": {"pk": {"S": "KEY#k"}, "sk": {"S": "KEY"}, "etag": {"S": "e"}, "key_id": {"S": "k"}, '
    item += b'"created_at": {"S": "2026-03-01T12:00:00.000000Z"}}}'
    with replying(temporary(1)) as endpoint, replying((200, b"content"), (200, item)) as aws:
        credentials = at_endpoint(endpoint.url)
        config = AwsConfig("eu-west-1", {"": aws.url})
        objects, keys = S3Reader(config, credentials, "bucket"), DynamoKeyReader(config, credentials, "table")
        assert endpoint.received == []  # SnapStart takes its snapshot here

        assert (objects.read("models/x"), keys.get_key("k").key_id) == (b"content", "k")

        objects.close()
        keys.close()
    assert len(endpoint.received) == 1
    for request in aws.received:
        assert request.headers["authorization"].startswith("AWS4-HMAC-SHA256 Credential=ASIA1/")
        assert request.headers["x-amz-security-token"] == "session1"


@pytest.mark.parametrize(
    ("variable", "is_loaded"), [("AWS_CONTAINER_CREDENTIALS_FULL_URI", "True"), ("AWS_ACCESS_KEY_ID", "False")]
)
def test_botocore_is_imported_only_if_the_endpoint_is_configured(variable: str, is_loaded: str) -> None:
    """With SnapStart, the import is then a part of the snapshot."""
    run = subprocess.run(
        [sys.executable, "-c", LOADED_MODULES, variable, "http://127.0.0.1:9"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert run.stdout.strip() == is_loaded
