"""Read the objects of an S3 bucket without boto3."""

from __future__ import annotations

import re
from typing import Final
from urllib.parse import quote

from recsys.errors import ObjectNotFound, Unavailable
from recsys.objects.names import checked_name
from recsys_recommend.lean_aws.config import AwsConfig
from recsys_recommend.lean_aws.credentials import CredentialProvider
from recsys_recommend.lean_aws.signed_requests import SignedService

_ERROR_CODE: Final = re.compile(rb"<Code>(\w+)</Code>")
_READ_TIMEOUT_S: Final = 60.0  # as in recsys.aws


class S3Reader:
    """An `ObjectReader` that reads the objects of an S3 bucket.

    Parameters
    ----------
    config
        Region and endpoints.
    credentials
        Source of the credentials of each request.
    bucket
        Name of the bucket.
    """

    def __init__(self, config: AwsConfig, credentials: CredentialProvider, bucket: str) -> None:
        # An endpoint that replaces AWS has no subdomain per bucket, so the bucket becomes part of the path.
        replacement = config.endpoint_url("s3")
        self._root = f"/{bucket}/" if replacement else "/"
        base_url = replacement or f"https://{bucket}.s3.{config.region}.{config.domain}"
        self._service = SignedService(
            "s3", base_url, region=config.region, credentials=credentials, read_timeout_s=_READ_TIMEOUT_S
        )

    def close(self) -> None:
        """Close the idle connections."""
        self._service.close()

    def read(self, name: str) -> bytes:
        """Return the content of the object with this name.

        Raises
        ------
        ObjectNotFound
            There is no object with this name.
        Unavailable
            S3 did not respond or rejected the request.
        """
        response = self._service.send("GET", self._root + quote(checked_name(name), safe="/-_.~"))
        if response.status == 200:
            return response.body
        found = _ERROR_CODE.search(response.body)
        code = found[1].decode() if found else str(response.status)
        if code == "NoSuchKey":
            raise ObjectNotFound(f"There is no object named {name!r}.")
        raise Unavailable(f"AWS rejected GetObject: {code}.")
