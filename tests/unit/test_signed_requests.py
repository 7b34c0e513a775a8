"""Requests to AWS without boto3: signed as botocore signs them, tried again where that helps."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from unittest.mock import patch

import pytest
from botocore.auth import S3SigV4Auth, SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from hypothesis import given
from hypothesis import strategies as st

from recsys.errors import ObjectNotFound, Unavailable
from recsys.settings import AwsConfig
from recsys_recommend.lean_aws.dynamodb_reader import DynamoKeyReader
from recsys_recommend.lean_aws.s3_reader import S3Reader
from recsys_recommend.lean_aws.signed_requests import SignedService, sign

NOW = datetime(2026, 3, 1, 12, 0, 0, tzinfo=UTC)
PATH_TEXT = st.text("abcXYZ019-_.~", min_size=1, max_size=12)
TOKENS = st.sampled_from(["", "a-token/with+signs=="])


def access(*, token: str = "", endpoint: str = "", region: str = "eu-west-1") -> AwsConfig:
    return AwsConfig(region, "AKIDEXAMPLE", "secret/+=", token, {"": endpoint} if endpoint else {})


def botocores(auth: type, service: str, method: str, url: str, headers: dict[str, str], body: bytes, token: str) -> str:
    """The Authorization header that botocore makes."""
    request = AWSRequest(method, url, headers=headers, data=body)
    with patch("botocore.auth.get_current_datetime", return_value=NOW.replace(tzinfo=None)):
        auth(Credentials("AKIDEXAMPLE", "secret/+=", token or None), service, "eu-west-1").add_auth(request)
    return str(request.headers["Authorization"])


@given(st.lists(PATH_TEXT, min_size=1, max_size=4), TOKENS)
def test_a_read_from_s3_is_signed_as_botocore_signs_it(parts: list[str], token: str) -> None:
    path = "/" + "/".join(parts)
    url = f"https://bucket.s3.eu-west-1.amazonaws.com{path}"
    signed = sign("GET", path, {"host": url.split("/")[2]}, b"", service="s3", access=access(token=token), now=NOW)

    assert signed["authorization"] == botocores(S3SigV4Auth, "s3", "GET", url, {}, b"", token)


@given(st.binary(max_size=50), TOKENS)
def test_a_question_to_dynamodb_is_signed_as_botocore_signs_it(body: bytes, token: str) -> None:
    headers = {"content-type": "application/x-amz-json-1.0", "x-amz-target": "DynamoDB_20120810.GetItem"}
    host = "dynamodb.eu-west-1.amazonaws.com"
    signed = sign("POST", "/", {**headers, "host": host}, body, service="dynamodb", access=access(token=token), now=NOW)

    # botocore signs the body's digest for every service, but as a header for S3 alone.
    unsigned = {**headers, "X-Amz-Content-SHA256": signed["x-amz-content-sha256"]}
    assert signed["authorization"] == botocores(
        SigV4Auth, "dynamodb", "POST", f"https://{host}/", unsigned, body, token
    )


def test_without_credentials_nothing_is_sent_and_the_message_names_what_is_missing() -> None:
    nobody = AwsConfig.from_environment({"AWS_REGION": "eu-west-1"})
    with pytest.raises(Unavailable, match="AWS_ACCESS_KEY_ID"):
        S3Reader(nobody, "bucket").read("models/x")


def test_who_asks_is_read_from_the_variables_of_lambda() -> None:
    found = AwsConfig.from_environment(
        {
            "AWS_REGION": "eu-west-1",
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_ACCESS_KEY_ID": "id",
            "AWS_SECRET_ACCESS_KEY": "secret",
            "AWS_SESSION_TOKEN": "token",
        }
    )
    assert (found.region, found.access_key_id, found.secret_access_key) == ("eu-west-1", "id", "secret")
    assert (found.session_token, found.endpoint_url("s3")) == ("token", None)
    assert "secret" not in repr(found)
    assert "token=" not in repr(found)


def test_an_emulator_of_one_service_leaves_the_others() -> None:
    found = AwsConfig.from_environment({"AWS_ENDPOINT_URL_S3": "http://s3:1", "AWS_ENDPOINT_URL": "http://all:2"})
    assert (found.endpoint_url("s3"), found.endpoint_url("dynamodb")) == ("http://s3:1", "http://all:2")


@pytest.mark.parametrize(("region", "domain"), [("eu-west-1", "amazonaws.com"), ("cn-north-1", "amazonaws.com.cn")])
def test_a_region_has_its_domain(region: str, domain: str) -> None:
    assert access(region=region).domain == domain


# -- against a server of one's own


class Scripted(BaseHTTPRequestHandler):
    """Answers with what the server's script says next; None hangs up."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        server = self.server
        assert isinstance(server, ScriptedServer)
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        server.paths.append(self.path)
        server.clients.add(self.client_address)
        answer = server.script.pop(0)
        if answer is None:
            self.close_connection = True
            return
        status, body = answer
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_POST(self) -> None:
        self.do_GET()

    def log_message(self, *_: object) -> None:
        pass


class ScriptedServer(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, script: list[tuple[int, bytes] | None]) -> None:
        super().__init__(("127.0.0.1", 0), Scripted)
        self.script = script
        self.paths: list[str] = []
        self.clients: set[tuple[str, int]] = set()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


@contextmanager
def answering(*script: tuple[int, bytes] | None) -> Iterator[ScriptedServer]:
    server = ScriptedServer(list(script))
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture
def service() -> Iterator[Callable[[ScriptedServer], SignedService]]:
    """Makes a client that does not pause, and closes what it keeps open."""
    made: list[SignedService] = []

    def make(server: ScriptedServer) -> SignedService:
        made.append(SignedService("s3", server.url, access(), read_timeout_s=5, pause=lambda _: None))
        return made[-1]

    yield make
    for each in made:
        each.close()


Make = Callable[[ScriptedServer], SignedService]


def test_a_connection_is_used_again(service: Make) -> None:
    with answering((200, b"one"), (200, b"two")) as server:
        client = service(server)
        assert [client.send("GET", "/a").body, client.send("GET", "/b").body] == [b"one", b"two"]
    assert (server.paths, len(server.clients)) == (["/a", "/b"], 1)


@pytest.mark.parametrize(
    "failure", [None, (500, b""), (503, b"SlowDown"), (429, b""), (400, b'{"__type":"x#ThrottlingException"}')]
)
def test_a_failure_that_may_pass_is_tried_again(service: Make, failure: tuple[int, bytes] | None) -> None:
    with answering((200, b"first"), failure, (200, b"here")) as server:
        client = service(server)
        client.send("GET", "/a")
        assert client.send("GET", "/a").body == b"here"


@pytest.mark.parametrize("status", [400, 403, 404])
def test_a_refusal_is_not_tried_again(service: Make, status: int) -> None:
    with answering((status, b"no")) as server:
        assert service(server).send("GET", "/a").status == status


def test_four_attempts_are_all(service: Make) -> None:
    with answering(*[(500, b"")] * 4) as server:
        with pytest.raises(Unavailable, match="in 4 attempts: status 500"):
            service(server).send("GET", "/a")


def test_nobody_there_is_unavailable() -> None:
    client = SignedService("s3", "http://127.0.0.1:9", access(), read_timeout_s=1, pause=lambda _: None)
    with pytest.raises(Unavailable, match="ConnectionRefusedError"):
        client.send("GET", "/a")


def test_an_object_that_is_not_there_is_told_from_a_refusal() -> None:
    script = [(404, b"<Error><Code>NoSuchKey</Code></Error>"), (403, b"<Error><Code>AccessDenied</Code></Error>")]
    with answering(*script) as server:
        reader = S3Reader(access(endpoint=server.url), "bucket")
        with pytest.raises(ObjectNotFound):
            reader.read("models/x")
        with pytest.raises(Unavailable, match="AccessDenied"):
            reader.read("models/x")
        reader.close()
    assert server.paths == ["/bucket/models/x"] * 2


@pytest.mark.parametrize(
    ("answer", "said"),
    [((400, b'{"__type":"com.amazonaws#AccessDeniedException"}'), "AccessDeniedException"), ((200, b"<"), "no JSON")],
)
def test_what_dynamodb_refuses_is_unavailable(answer: tuple[int, bytes], said: str) -> None:
    with answering(answer) as server:
        reader = DynamoKeyReader(access(endpoint=server.url), "table")
        with pytest.raises(Unavailable, match=said):
            reader.get_key("key")
        reader.close()
