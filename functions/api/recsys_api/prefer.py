"""Parse the `Prefer` header (RFC 7240), in which a client states how long to wait for the outcome of a job."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

_WAIT: Final = re.compile(r'wait\s*=\s*("?)([0-9]{1,9})\1', re.IGNORECASE)


def wait_s(headers: Iterable[str]) -> int | None:
    """Return the number N of seconds in the first valid `wait=N` preference.

    Parameters
    ----------
    headers
        Values of the request's `Prefer` headers. Each can hold several preferences, separated by commas.

    Returns
    -------
    int or None
        Seconds to wait, or None if no preference requests it. Preferences that are unknown or malformed are ignored, as
        RFC 7240 §2 requires.

    Examples
    --------
    >>> wait_s(["respond-async, wait=10"])
    10
    >>> wait_s(["wait=soon"]) is None
    True
    """
    for preference in ",".join(headers).split(","):
        # Parameters follow a semicolon; `wait` does not have any.
        match = _WAIT.fullmatch(preference.partition(";")[0].strip())
        if match is not None:
            return int(match[2])
    return None
