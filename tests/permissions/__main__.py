"""Compare the calls that the tests recorded with the roles of both templates: `python -m tests.permissions [--quiet]`.

`make test` runs it after the tests. It fails if a call was denied, or if a role allows an action that no call used.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

from tests.permissions.gateway import RECORDS
from tests.permissions.roles import Permission, Role, roles, serverless_roles

CALLED_BY_AWS: Final = {
    "logs:CreateLogStream": "called by the Lambda service",
    "logs:PutLogEvents": "called by the Lambda service",
    "sqs:DeleteMessage": "called by the event source mapping",
    "sqs:GetQueueAttributes": "called by the event source mapping",
    "sqs:ReceiveMessage": "called by the event source mapping",
    "xray:PutTelemetryRecords": "called by the Lambda service",
    "xray:PutTraceSegments": "called by the Lambda service",
}
"""Actions that AWS itself uses with the role of a function."""

Usage = dict[str, Counter[Permission]]


def main(folder: Path = RECORDS, *, quiet: bool = False) -> int:
    """Print how often each permission was used, then the problems; return the exit status."""
    usage, denied = read(folder)
    if not quiet:
        for function, role in roles().items():
            for permission in sorted(role.permissions):
                note = CALLED_BY_AWS.get(permission.action, str(usage[function][permission]))
                _print(f"{function:10} {permission.action:29} {permission.resource:52} {note}")
    problems = sorted({*denied, *unused(usage, roles()), *unused(usage, serverless_roles())})
    for problem in problems:
        _print(f"ERROR: {problem}")
    return 1 if problems else 0


def read(folder: Path) -> tuple[Usage, list[str]]:
    """Return how often each permission was used by function, and a line for each call that was denied."""
    usage: Usage = defaultdict(Counter)
    denied = []
    for path in sorted(folder.glob("*.json")):
        record = json.loads(path.read_text("utf-8"))
        function = record["function"]
        for action, resource, condition, count in record["used"]:
            usage[function][Permission(action, resource, condition)] += count
        denied += [
            f"{function} may not call {action} on {resource} {context}"
            for action, resource, context in record["denied"]
        ]
    return usage, denied


def unused(usage: Mapping[str, Counter[Permission]], granted: Mapping[str, Role]) -> Iterator[str]:
    """Yield a line for each permission that no call used."""
    for function, role in granted.items():
        for permission in sorted(role.permissions - set(usage.get(function, ()))):
            if permission.action not in CALLED_BY_AWS:
                yield f"{function} may call {permission.action} on {permission.resource}, but no test does"


def _print(line: str) -> None:
    sys.stdout.write(f"{line}\n")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quiet", action="store_true", help="print nothing but problems")
    sys.exit(main(quiet=parser.parse_args().quiet))
