"""Read the region and the endpoints for the AWS clients from environment variables."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, NamedTuple, Self

_ENDPOINT_VARIABLES: Final = {
    "": "AWS_ENDPOINT_URL",
    "s3": "AWS_ENDPOINT_URL_S3",
    "dynamodb": "AWS_ENDPOINT_URL_DYNAMODB",
}


class AwsConfig(NamedTuple):
    """Region and endpoint overrides, from the environment variables that every AWS SDK reads.

    Parameters
    ----------
    region
        The AWS region, or an empty string if none is set.
    endpoint_urls
        URLs that replace the endpoints of AWS, by service (`s3`, `dynamodb`). The entry `""` applies to all other
        services.
    """

    region: str
    endpoint_urls: Mapping[str, str]

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> Self:
        """Read `AWS_REGION`, `AWS_DEFAULT_REGION` and `AWS_ENDPOINT_URL[_S3|_DYNAMODB]` from `environment`.

        Examples
        --------
        >>> AwsConfig.from_environment({"AWS_REGION": "eu-west-1"}).region
        'eu-west-1'
        """
        return cls(
            region=environment.get("AWS_REGION") or environment.get("AWS_DEFAULT_REGION", ""),
            endpoint_urls={
                service: environment[name] for service, name in _ENDPOINT_VARIABLES.items() if environment.get(name)
            },
        )

    @property
    def domain(self) -> str:
        """DNS suffix of the endpoints in the region."""
        return "amazonaws.com.cn" if self.region.startswith("cn-") else "amazonaws.com"

    def endpoint_url(self, service: str) -> str | None:
        """Return the URL that replaces the endpoint of `service`, or None."""
        return self.endpoint_urls.get(service) or self.endpoint_urls.get("")
