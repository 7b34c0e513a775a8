"""Signed requests to AWS without boto3: signatures, retries, and the readers of S3 and DynamoDB."""

from __future__ import annotations

import ipaddress
import ssl
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from http.client import HTTPConnection
from pathlib import Path
from unittest.mock import patch

import botocore.credentials
import pytest
from botocore.auth import S3SigV4Auth, SigV4Auth
from botocore.awsrequest import AWSRequest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import given
from hypothesis import strategies as st

from recsys.backoff import backoff_s
from recsys.errors import ObjectNotFound, Unavailable
from recsys_recommend.lean_aws import signed_requests
from recsys_recommend.lean_aws.config import AwsConfig
from recsys_recommend.lean_aws.credentials import CredentialProvider, Credentials
from recsys_recommend.lean_aws.dynamodb_reader import DynamoKeyReader
from recsys_recommend.lean_aws.s3_reader import S3Reader
from recsys_recommend.lean_aws.signed_requests import SignedService, sign
from tests.unit.scripted_server import Reply, ScriptedServer, replying

NOW = datetime(2026, 3, 1, 12, 0, 0, tzinfo=UTC)
PATH_TEXT = st.text("abcXYZ019-_.~", min_size=1, max_size=12)
TOKENS = st.sampled_from(["", "a-token/with+signs=="])
PROVIDER = CredentialProvider({"AWS_ACCESS_KEY_ID": "AKIDEXAMPLE", "AWS_SECRET_ACCESS_KEY": "secret/+="})


def config(endpoint: str = "", *, region: str = "eu-west-1") -> AwsConfig:
    return AwsConfig(region, {"": endpoint} if endpoint else {})


# -- signatures


def signed(method: str, path: str, headers: dict[str, str], body: bytes, service: str, token: str) -> dict[str, str]:
    credentials = Credentials("AKIDEXAMPLE", "secret/+=", token)
    return sign(method, path, headers, body, service=service, region="eu-west-1", credentials=credentials, now=NOW)


def botocore_signature(
    auth: type, service: str, method: str, url: str, headers: dict[str, str], body: bytes, token: str
) -> str:
    """Return the Authorization header that botocore computes."""
    request = AWSRequest(method, url, headers=headers, data=body)
    credentials = botocore.credentials.Credentials("AKIDEXAMPLE", "secret/+=", token or None)
    with patch("botocore.auth.get_current_datetime", return_value=NOW.replace(tzinfo=None)):
        auth(credentials, service, "eu-west-1").add_auth(request)
    return str(request.headers["Authorization"])


@given(st.lists(PATH_TEXT, min_size=1, max_size=4), TOKENS)
def test_s3_requests_have_the_signature_of_botocore(parts: list[str], token: str) -> None:
    path, host = "/" + "/".join(parts), "bucket.s3.eu-west-1.amazonaws.com"
    headers = signed("GET", path, {"host": host}, b"", "s3", token)

    expected = botocore_signature(S3SigV4Auth, "s3", "GET", f"https://{host}{path}", {}, b"", token)
    assert headers["authorization"] == expected


@given(st.binary(max_size=50), TOKENS)
def test_dynamodb_requests_have_the_signature_of_botocore(body: bytes, token: str) -> None:
    given_headers = {"content-type": "application/x-amz-json-1.0", "x-amz-target": "DynamoDB_20120810.GetItem"}
    host = "dynamodb.eu-west-1.amazonaws.com"
    headers = signed("POST", "/", {**given_headers, "host": host}, body, "dynamodb", token)

    # botocore signs the digest of the body for every service, but sends it as a header for S3 alone.
    given_headers["X-Amz-Content-SHA256"] = headers["x-amz-content-sha256"]
    expected = botocore_signature(SigV4Auth, "dynamodb", "POST", f"https://{host}/", given_headers, body, token)
    assert headers["authorization"] == expected


# -- configuration


def test_aws_region_wins_over_the_default_region() -> None:
    both = AwsConfig.from_environment({"AWS_REGION": "eu-west-1", "AWS_DEFAULT_REGION": "us-east-1"})
    default = AwsConfig.from_environment({"AWS_DEFAULT_REGION": "us-east-1"})
    assert (both.region, default.region, AwsConfig.from_environment({}).region) == ("eu-west-1", "us-east-1", "")


def test_the_endpoint_of_one_service_does_not_apply_to_others() -> None:
    found = AwsConfig.from_environment({"AWS_ENDPOINT_URL_S3": "http://s3:1", "AWS_ENDPOINT_URL": "http://all:2"})
    assert (found.endpoint_url("s3"), found.endpoint_url("dynamodb")) == ("http://s3:1", "http://all:2")
    assert AwsConfig.from_environment({"AWS_ENDPOINT_URL_S3": "http://s3:1"}).endpoint_url("dynamodb") is None


@pytest.mark.parametrize(("region", "domain"), [("eu-west-1", "amazonaws.com"), ("cn-north-1", "amazonaws.com.cn")])
def test_regions_in_china_have_their_own_domain(region: str, domain: str) -> None:
    assert config(region=region).domain == domain


# -- sending and retrying


Connect = Callable[[ScriptedServer], SignedService]


@pytest.fixture
def connect() -> Iterator[Connect]:
    """Creates clients that do not pause, and closes them at the end."""
    clients: list[SignedService] = []

    def connect(server: ScriptedServer) -> SignedService:
        clients.append(new_service(server.url))
        return clients[-1]

    yield connect
    for client in clients:
        client.close()


def new_service(url: str, pause: Callable[[float], None] = lambda _: None) -> SignedService:
    return SignedService("s3", url, region="eu-west-1", credentials=PROVIDER, read_timeout_s=5, pause=pause)


def test_a_connection_is_reused(connect: Connect) -> None:
    with replying((200, b"one"), (200, b"two")) as server:
        client = connect(server)
        assert [client.send("GET", "/a").body, client.send("GET", "/b").body] == [b"one", b"two"]
    assert (server.paths, server.n_connections) == (["/a", "/b"], 1)


class EmptiedList(list[HTTPConnection]):
    """An empty list that claims to have an element, as if another thread took the element after a check."""

    def __bool__(self) -> bool:
        return True


def test_a_connection_that_another_thread_took_is_replaced(connect: Connect, monkeypatch: pytest.MonkeyPatch) -> None:
    with replying((200, b"one")) as server:
        client = connect(server)
        with monkeypatch.context() as patched:
            patched.setattr(client, "_idle", EmptiedList())
            assert client.send("GET", "/a").body == b"one"
            client._idle[0].close()


@pytest.mark.parametrize(
    "failure", [None, (500, b""), (503, b"SlowDown"), (429, b""), (400, b'{"__type":"x#ThrottlingException"}')]
)
def test_transient_failures_are_retried(connect: Connect, failure: Reply) -> None:
    with replying((200, b"first"), failure, (200, b"second")) as server:
        client = connect(server)
        client.send("GET", "/a")
        assert client.send("GET", "/a").body == b"second"


@pytest.mark.parametrize("status", [400, 403, 404])
def test_a_rejected_request_is_not_retried(connect: Connect, status: int) -> None:
    with replying((status, b"no")) as server:
        assert connect(server).send("GET", "/a").status == status


def test_the_fourth_attempt_is_the_last(connect: Connect) -> None:
    with replying(*[(500, b"")] * 4) as server:
        with pytest.raises(Unavailable, match="in 4 attempts: status 500"):
            connect(server).send("GET", "/a")


def test_a_refused_connection_is_unavailable() -> None:
    with pytest.raises(Unavailable, match="ConnectionRefusedError"):
        new_service("http://127.0.0.1:9").send("GET", "/a")


def test_pauses_between_retries_grow() -> None:
    pauses: list[float] = []
    with pytest.raises(Unavailable):
        new_service("http://127.0.0.1:9", pauses.append).send("GET", "/a")
    assert len(pauses) == 3
    assert 0.05 <= pauses[0] <= 0.1 <= pauses[1] <= 0.2 <= pauses[2] <= 0.4


@given(st.integers(1, 10))
def test_a_backoff_pause_is_drawn_between_the_base_doubled_per_attempt_and_twice_that(attempt: int) -> None:
    assert 0.5 * 2 ** (attempt - 1) <= backoff_s(attempt, base_s=0.5) <= 2 ** (attempt - 1)


# -- TLS


@pytest.fixture
def certificate(tmp_path: Path) -> Path:
    """A file with a private key and its self-signed certificate for 127.0.0.1."""
    key, name = ec.generate_private_key(ec.SECP256R1()), x509.Name([])
    now = datetime.now(UTC)
    address = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
    builder = x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
    builder = builder.not_valid_before(now - timedelta(days=1)).not_valid_after(now + timedelta(days=1))
    signed_certificate = builder.add_extension(address, critical=True).sign(key, hashes.SHA256())
    pem, unencrypted = serialization.Encoding.PEM, serialization.NoEncryption()
    path = tmp_path / "certificate.pem"
    path.write_bytes(
        key.private_bytes(pem, serialization.PrivateFormat.PKCS8, unencrypted) + signed_certificate.public_bytes(pem)
    )
    return path


@pytest.fixture
def connect_tls(certificate: Path, connect: Connect) -> Iterator[Connect]:
    """Makes the server use the certificate, and connects to it like `connect`."""

    def connect_tls(server: ScriptedServer) -> SignedService:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate)
        server.socket = context.wrap_socket(server.socket, server_side=True)
        server.scheme = "https"
        return connect(server)

    signed_requests._tls_context.cache_clear()
    yield connect_tls
    signed_requests._tls_context.cache_clear()


def test_root_certificates_are_loaded_once(
    certificate: Path, connect_tls: Connect, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    with (
        patch("ssl.create_default_context", wraps=ssl.create_default_context) as load,
        replying((200, b"one"), (200, b"two")) as server,
    ):
        assert connect_tls(server).send("GET", "/a").body == b"one"
        assert connect(server).send("GET", "/b").body == b"two"
    assert (load.call_count, server.n_connections) == (1, 2)


def test_a_server_with_an_unknown_certificate_is_unavailable(connect_tls: Connect) -> None:
    with replying() as server, pytest.raises(Unavailable, match="SSLCertVerificationError"):
        connect_tls(server).send("GET", "/a")


# -- the readers


def test_a_missing_object_differs_from_a_rejected_request() -> None:
    script = [(404, b"<Error><Code>NoSuchKey</Code></Error>"), (403, b"<Error><Code>AccessDenied</Code></Error>")]
    with replying(*script) as server:
        reader = S3Reader(config(server.url), PROVIDER, "bucket")
        with pytest.raises(ObjectNotFound):
            reader.read("models/x")
        with pytest.raises(Unavailable, match="AccessDenied"):
            reader.read("models/x")
        reader.close()
    assert server.paths == ["/bucket/models/x"] * 2


@pytest.mark.parametrize(
    ("reply", "message"),
    [
        ((400, b'{"__type":"com.amazonaws#AccessDeniedException"}'), "AccessDeniedException"),
        ((200, b"<"), "invalid JSON"),
    ],
)
def test_a_request_that_dynamodb_rejects_is_unavailable(reply: Reply, message: str) -> None:
    with replying(reply) as server:
        reader = DynamoKeyReader(config(server.url), PROVIDER, "table")
        with pytest.raises(Unavailable, match=message):
            reader.get_key("key")
        reader.close()
