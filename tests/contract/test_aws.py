"""How the AWS clients are made."""

from __future__ import annotations

from typing import Any

import pytest

from recsys import aws
from recsys.objects.s3 import S3ObjectStore
from tests.emulators import Emulator


@pytest.mark.parametrize(
    ("endpoint_url", "form_url"),
    [
        # An emulator by name has no subdomain for each bucket; AWS wants one.
        ("http://ministack:4566", "http://ministack:4566/shop"),
        ("http://localhost:4566", "http://localhost:4566/shop"),
        ("https://s3.eu-west-1.amazonaws.com", "https://shop.s3.eu-west-1.amazonaws.com/"),
        ("https://s3.cn-north-1.amazonaws.com.cn", "https://shop.s3.cn-north-1.amazonaws.com.cn/"),
    ],
)
def test_a_bucket_is_addressed_as_its_host_wants(endpoint_url: str, form_url: str) -> None:
    store = S3ObjectStore(Emulator(endpoint_url).s3, "shop")
    assert store.upload_form("uploads/a.csv", max_bytes=1, valid_s=60).url == form_url


def test_without_an_endpoint_the_region_comes_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    with Emulator("").in_environment():
        monkeypatch.delenv("AWS_ENDPOINT_URL", raising=False)
        form = S3ObjectStore(aws.s3_client.__wrapped__(), "shop").upload_form("a.csv", max_bytes=1, valid_s=60)
        endpoint_url = aws.dynamodb_client.__wrapped__().meta.endpoint_url
    # The region's own host: the global one answers a form for a new bucket with a redirect, which loses the file.
    assert form.url == "https://shop.s3.eu-west-1.amazonaws.com/"
    assert "eu-west-1" in endpoint_url


def test_clients_are_made_once() -> None:
    with Emulator("http://127.0.0.1:1").in_environment():
        aws.s3_client.cache_clear()
        aws.dynamodb_client.cache_clear()
        assert aws.s3_client() is aws.s3_client()
        assert aws.dynamodb_client() is aws.dynamodb_client()
    aws.s3_client.cache_clear()
    aws.dynamodb_client.cache_clear()


def test_a_lost_connection_is_tried_again_and_a_dead_one_given_up_soon() -> None:
    config: Any = Emulator("http://127.0.0.1:1").dynamodb.meta.config
    assert config.retries == {"mode": "standard", "total_max_attempts": 4}
    assert config.connect_timeout == 2
