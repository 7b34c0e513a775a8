"""Objects of an S3 bucket, read without boto3: what the hot path needs of `recsys.objects.s3`."""

from __future__ import annotations

import re
from typing import Final
from urllib.parse import quote

from recsys.errors import ObjectNotFound, Unavailable
from recsys.objects.names import checked_name
from recsys.settings import AwsConfig
from recsys_recommend.lean_aws.signed_requests import SignedService

_CODE: Final = re.compile(rb"<Code>(\w+)</Code>")
_READ_TIMEOUT_S: Final = 60.0


class S3Reader:
    """An `ObjectReader` of a bucket."""

    def __init__(self, access: AwsConfig, bucket: str) -> None:
        # An emulator's host name has no subdomain for each bucket.
        emulator = access.endpoint_url("s3")
        self._folder = f"/{bucket}/" if emulator else "/"
        base_url = emulator or f"https://{bucket}.s3.{access.region}.{access.domain}"
        self._service = SignedService("s3", base_url, access, read_timeout_s=_READ_TIMEOUT_S)

    def close(self) -> None:
        """Close the connections that are kept."""
        self._service.close()

    def read(self, name: str) -> bytes:
        """See `ObjectReader.read`."""
        answer = self._service.send("GET", self._folder + quote(checked_name(name), safe="/-_.~"))
        if answer.status == 200:
            return answer.body
        found = _CODE.search(answer.body)
        code = found[1].decode() if found else str(answer.status)
        if code == "NoSuchKey":
            raise ObjectNotFound(f"There is no object named {name!r}.")
        raise Unavailable(f"AWS refused GetObject: {code}.")
