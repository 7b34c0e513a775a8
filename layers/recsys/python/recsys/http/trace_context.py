"""Parse the trace id of a request from the `traceparent` header.

W3C Trace Context, https://www.w3.org/TR/trace-context/, defines the header.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

HEADER: Final = b"traceparent"
# Version ff is invalid, and a version after 00 may append fields, which are ignored.
_FORMAT: Final = re.compile(rb"(?!ff)([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-[0-9a-f]{2}(-.*)?")
_VERSION_0: Final = b"00"


def trace_id_of(headers: Iterable[tuple[bytes, bytes]]) -> str | None:
    """Return the trace id of a request, or None if the header is missing, repeated or invalid.

    Parameters
    ----------
    headers
        Name, in lower case, and value of each header of the request.

    Examples
    --------
    >>> trace_id_of([(b"traceparent", b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")])
    '0af7651916cd43dd8448eb211c80319c'
    >>> trace_id_of([(b"traceparent", b"00-00000000000000000000000000000000-b7ad6b7169203331-01")]) is None
    True
    """
    values = [value for name, value in headers if name == HEADER]
    match = _FORMAT.fullmatch(values[0].strip()) if len(values) == 1 else None
    if match is None:
        return None
    version, trace_id, parent_id, more = match.groups()
    is_valid = int(trace_id, 16) != 0 and int(parent_id, 16) != 0 and not (version == _VERSION_0 and more)
    return trace_id.decode() if is_valid else None
