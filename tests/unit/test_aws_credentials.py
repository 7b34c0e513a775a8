"""AWS credentials from environment variables and from the container credentials endpoint (SnapStart, ECS, EKS)."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import botocore.credentials
import pytest

from recsys.errors import Unavailable
from recsys_recommend.lean_aws import credentials as credentials_module
from recsys_recommend.lean_aws.config import AwsConfig
from recsys_recommend.lean_aws.credentials import CredentialProvider, Credentials
from recsys_recommend.lean_aws.dynamodb_reader import DynamoKeyReader
from recsys_recommend.lean_aws.s3_reader import S3Reader
from tests.racing import race
from tests.unit.scripted_server import Reply, replying

NOW = datetime(2026, 3, 1, 12, 0, 0, tzinfo=UTC)
KEYS = {"AWS_ACCESS_KEY_ID": "id", "AWS_SECRET_ACCESS_KEY": "secret"}


class Clock:
    def __init__(self) -> None:
        self.now = NOW

    def __call__(self) -> datetime:
        return self.now

    def advance(self, **duration: float) -> None:
        self.now += timedelta(**duration)


def temporary(number: int, expires_at: datetime = NOW + timedelta(hours=6)) -> tuple[int, bytes]:
    """A response of the endpoint, as https://docs.aws.amazon.com/sdkref/latest/guide documents it."""
    document = {
        "AccessKeyId": f"ASIA{number}",
        "SecretAccessKey": f"secret{number}",
        "Token": f"session{number}",
        "Expiration": expires_at.strftime("%Y-%m-%dT%H:%M:%SZ"),
        "AccountId": "123456789012",
    }
    return 200, json.dumps(document).encode()


def provider(
    environment: dict[str, str], now: Callable[[], datetime] = lambda: NOW, pauses: list[float] | None = None
) -> CredentialProvider:
    return CredentialProvider(environment, now=now, pause=(pauses if pauses is not None else []).append)


# -- environment variables


def test_credentials_are_read_from_the_variables_of_lambda() -> None:
    found = provider({**KEYS, "AWS_SESSION_TOKEN": "token"}).get()
    assert found == Credentials("id", "secret", "token")
    assert provider(KEYS).get().session_token == ""


def test_secrets_are_not_in_the_repr() -> None:
    assert repr(Credentials("id", "a secret", "a token")) == "Credentials(access_key_id='id', expires_at=None)"


def test_changed_variables_take_effect_with_the_next_request() -> None:
    environment = dict(KEYS)
    credentials = provider(environment)
    credentials.get()
    environment["AWS_SESSION_TOKEN"] = "renewed"
    assert credentials.get().session_token == "renewed"


def test_variables_take_precedence_over_the_endpoint() -> None:
    with replying() as server:
        environment = {**KEYS, "AWS_CONTAINER_CREDENTIALS_FULL_URI": server.url}
        assert provider(environment).get().access_key_id == "id"
    assert server.received == []


def test_missing_credentials_are_reported_and_nothing_is_sent() -> None:
    with replying() as server:
        reader = S3Reader(AwsConfig("eu-west-1", {"": server.url}), provider({}), "bucket")
        with pytest.raises(Unavailable, match=r"AWS_ACCESS_KEY_ID.*AWS_CONTAINER_CREDENTIALS_FULL_URI"):
            reader.read("models/x")
    assert server.received == []


# -- the container credentials endpoint


def test_the_endpoint_receives_the_token_and_returns_what_botocore_reads_from_it() -> None:
    far_future = datetime(2999, 1, 1, tzinfo=UTC)  # botocore compares it with the real time
    with replying(*[temporary(1, far_future)] * 2) as server:
        environment = {
            "AWS_CONTAINER_CREDENTIALS_FULL_URI": f"{server.url}/v1/credentials?role=recommend",
            "AWS_CONTAINER_AUTHORIZATION_TOKEN": "Basic abc=",
        }
        found = provider(environment).get()
        theirs = botocore.credentials.ContainerProvider(environ=environment).load()
    assert found == Credentials("ASIA1", "secret1", "session1", far_future)
    frozen = theirs.get_frozen_credentials()
    assert (found.access_key_id, found.secret_access_key, found.session_token) == (
        frozen.access_key,
        frozen.secret_key,
        frozen.token,
    )
    ours, botocores = server.received
    assert ours.path == botocores.path == "/v1/credentials?role=recommend"
    assert ours.headers["authorization"] == botocores.headers["authorization"] == "Basic abc="


def test_a_relative_uri_is_resolved_at_the_address_of_ecs(monkeypatch: pytest.MonkeyPatch) -> None:
    assert credentials_module._ECS_HOST == "169.254.170.2"
    with replying(temporary(1)) as server:
        monkeypatch.setattr(credentials_module, "_ECS_HOST", server.url.removeprefix("http://"))
        found = provider({"AWS_CONTAINER_CREDENTIALS_RELATIVE_URI": "/v2/credentials/uuid"}).get()
    assert found.access_key_id == "ASIA1"
    assert server.paths == ["/v2/credentials/uuid"]
    assert "authorization" not in server.received[0].headers


def test_a_token_file_takes_precedence_and_is_read_with_every_refresh(tmp_path: Path) -> None:
    token_file, clock = tmp_path / "token", Clock()
    with replying(temporary(1), temporary(2, NOW + timedelta(hours=12))) as server:
        environment = {
            "AWS_CONTAINER_CREDENTIALS_FULL_URI": server.url,
            "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE": str(token_file),
            "AWS_CONTAINER_AUTHORIZATION_TOKEN": "unused",
        }
        credentials = provider(environment, clock)
        for token in ("first", "second"):
            token_file.write_text(token)
            credentials.get()
            clock.advance(hours=6)
    assert [request.headers["authorization"] for request in server.received] == ["first", "second"]


@pytest.mark.parametrize("token", ["a\nb", "a\r\nHost: other"])
def test_a_token_with_a_line_break_is_rejected(token: str) -> None:
    with replying() as server:
        environment = {
            "AWS_CONTAINER_CREDENTIALS_FULL_URI": server.url,
            "AWS_CONTAINER_AUTHORIZATION_TOKEN": token,
        }
        with pytest.raises(Unavailable, match="line break"):
            provider(environment).get()
    assert server.received == []


def test_a_missing_token_file_is_named(tmp_path: Path) -> None:
    environment = {
        "AWS_CONTAINER_CREDENTIALS_FULL_URI": "http://127.0.0.1:9",
        "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE": str(tmp_path / "missing"),
    }
    with pytest.raises(Unavailable, match="AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE cannot be read: No such file"):
        provider(environment).get()


@pytest.mark.parametrize("url", ["http://example.com/credentials", "http://169.254.169.254/", "ftp://127.0.0.1/"])
def test_the_token_is_not_sent_to_other_hosts_without_tls(url: str) -> None:
    with pytest.raises(Unavailable, match="must use https"):
        provider({"AWS_CONTAINER_CREDENTIALS_FULL_URI": url}).get()


def test_https_is_accepted() -> None:
    # Nothing listens on port 9.
    with pytest.raises(Unavailable, match="3 times: ConnectionRefusedError"):
        provider({"AWS_CONTAINER_CREDENTIALS_FULL_URI": "https://127.0.0.1:9/"}).get()


@pytest.mark.parametrize("failure", [None, (500, b""), (404, b"not yet")])
def test_a_failing_endpoint_is_retried(failure: Reply) -> None:
    pauses: list[float] = []
    with replying(failure, failure, temporary(1)) as server:
        found = provider({"AWS_CONTAINER_CREDENTIALS_FULL_URI": server.url}, pauses=pauses).get()
    assert (found.access_key_id, len(pauses)) == ("ASIA1", 2)


def test_the_third_attempt_is_the_last() -> None:
    with replying(*[(500, b"secret")] * 3) as server:
        with pytest.raises(Unavailable, match=r"failed 3 times: status 500\.$"):
            provider({"AWS_CONTAINER_CREDENTIALS_FULL_URI": server.url}).get()


@pytest.mark.parametrize(
    "body",
    [
        b"<html>",
        b"[]",
        b"null",
        b'{"AccessKeyId": "SECRET"}',
        b'{"AccessKeyId": "SECRET", "SecretAccessKey": "SECRET", "Expiration": "SECRET"}',
        b'{"AccessKeyId": "SECRET", "SecretAccessKey": "SECRET", "Expiration": 5}',
    ],
)
def test_an_invalid_response_is_unavailable_and_not_quoted(body: bytes) -> None:
    with replying((200, body)) as server:
        with pytest.raises(Unavailable, match="invalid response") as raised:
            provider({"AWS_CONTAINER_CREDENTIALS_FULL_URI": server.url}).get()
    assert "SECRET" not in raised.value.detail


# -- refresh


def test_credentials_are_cached_until_15_minutes_before_they_expire() -> None:
    clock = Clock()
    with replying(temporary(1), temporary(2, NOW + timedelta(hours=12))) as server:
        credentials = provider({"AWS_CONTAINER_CREDENTIALS_FULL_URI": server.url}, clock)
        ids = [credentials.get().access_key_id]
        clock.advance(hours=5, minutes=44, seconds=59)
        ids.append(credentials.get().access_key_id)
        clock.advance(seconds=1)
        ids.append(credentials.get().access_key_id)
    assert ids == ["ASIA1", "ASIA1", "ASIA2"]


def test_credentials_without_expiration_are_never_refreshed() -> None:
    clock = Clock()
    with replying((200, b'{"AccessKeyId": "AKIA", "SecretAccessKey": "secret"}')) as server:
        credentials = provider({"AWS_CONTAINER_CREDENTIALS_FULL_URI": server.url}, clock)
        credentials.get()
        clock.advance(days=365)
        assert credentials.get() == Credentials("AKIA", "secret")


def test_a_failed_refresh_keeps_valid_credentials_and_is_repeated(caplog: pytest.LogCaptureFixture) -> None:
    clock = Clock()
    with replying(temporary(1), *[(500, b"")] * 3, temporary(2, NOW + timedelta(hours=12))) as server:
        credentials = provider({"AWS_CONTAINER_CREDENTIALS_FULL_URI": server.url}, clock)
        credentials.get()
        clock.advance(hours=5, minutes=50)
        assert credentials.get().access_key_id == "ASIA1"
        assert "could not be refreshed" in caplog.text
        clock.advance(seconds=29)
        assert credentials.get().access_key_id == "ASIA1"
        assert len(server.received) == 4
        clock.advance(seconds=1)
        assert credentials.get().access_key_id == "ASIA2"


def test_expired_credentials_are_never_used() -> None:
    clock = Clock()
    with replying(temporary(1), *[(500, b"")] * 3) as server:
        credentials = provider({"AWS_CONTAINER_CREDENTIALS_FULL_URI": server.url}, clock)
        credentials.get()
        clock.advance(hours=6)
        with pytest.raises(Unavailable, match="failed 3 times"):
            credentials.get()


def test_threads_share_one_request_to_the_endpoint() -> None:
    with replying(temporary(1)) as server:
        credentials = provider({"AWS_CONTAINER_CREDENTIALS_FULL_URI": server.url})
        found = race(*[credentials.get] * 8)
    assert [each.access_key_id for each in found if isinstance(each, Credentials)] == ["ASIA1"] * 8


# -- with the readers


def test_readers_resolve_credentials_at_the_first_request_and_sign_with_them() -> None:
    item = b'{"Item": {"pk": {"S": "KEY#k"}, "sk": {"S": "KEY"}, "etag": {"S": "e"}, "key_id": {"S": "k"}, '
    item += b'"created_at": {"S": "2026-03-01T12:00:00.000000Z"}}}'
    with replying(temporary(1)) as endpoint, replying((200, b"content"), (200, item)) as aws:
        credentials = provider({"AWS_CONTAINER_CREDENTIALS_FULL_URI": endpoint.url})
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
