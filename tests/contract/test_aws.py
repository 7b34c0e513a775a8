"""Configuration of the boto3 clients."""

from __future__ import annotations

from typing import Any

import pytest

from recsys import aws
from recsys.objects.s3 import S3ObjectStore
from tests.emulators import Emulator


@pytest.mark.parametrize(
    ("endpoint_url", "form_url"),
    [
        # The host of an emulator has no subdomain per bucket; AWS expects one.
        ("http://ministack:4566", "http://ministack:4566/shop"),
        ("http://localhost:4566", "http://localhost:4566/shop"),
        ("https://s3.eu-west-1.amazonaws.com", "https://shop.s3.eu-west-1.amazonaws.com/"),
        ("https://s3.cn-north-1.amazonaws.com.cn", "https://shop.s3.cn-north-1.amazonaws.com.cn/"),
        ("https://s3.dualstack.eu-west-1.api.aws", "https://shop.s3.dualstack.eu-west-1.api.aws/"),
        (
            "https://bucket.vpce-1a2b.s3.eu-west-1.vpce.amazonaws.com",
            "https://shop.bucket.vpce-1a2b.s3.eu-west-1.vpce.amazonaws.com/",
        ),
        ("http://amazonaws.com.example.org", "http://amazonaws.com.example.org/shop"),
    ],
)
def test_buckets_are_addressed_by_subdomain_at_aws_and_by_path_elsewhere(endpoint_url: str, form_url: str) -> None:
    store = S3ObjectStore(Emulator(endpoint_url).s3, "shop")
    assert store.upload_form("uploads/a.csv", max_bytes=1, valid_s=60).url == form_url


def test_without_an_endpoint_the_region_comes_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    with Emulator("").in_environment():
        monkeypatch.delenv("AWS_ENDPOINT_URL", raising=False)
        form = S3ObjectStore(aws.s3_client.__wrapped__(), "shop").upload_form("a.csv", max_bytes=1, valid_s=60)
        endpoint_url = aws.dynamodb_client.__wrapped__().meta.endpoint_url
    # The host of the region, because the global host redirects the form of a new bucket, which loses the file.
    assert form.url == "https://shop.s3.eu-west-1.amazonaws.com/"
    assert "eu-west-1" in endpoint_url


def test_clients_are_created_once_per_process() -> None:
    with Emulator("http://127.0.0.1:1").in_environment():
        aws.s3_client.cache_clear()
        aws.dynamodb_client.cache_clear()
        assert aws.s3_client() is aws.s3_client()
        assert aws.dynamodb_client() is aws.dynamodb_client()
    aws.s3_client.cache_clear()
    aws.dynamodb_client.cache_clear()


def test_clients_retry_four_times_with_a_short_connect_timeout() -> None:
    config: Any = Emulator("http://127.0.0.1:1").dynamodb.meta.config
    assert config.retries == {"mode": "standard", "total_max_attempts": 4}
    assert config.connect_timeout == 2
