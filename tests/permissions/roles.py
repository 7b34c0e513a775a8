"""Evaluation of the policies in both templates as IAM does it, for the few operators that they use."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Final

from tests.infra.stack import Stack, read_sam, read_serverless
from tests.permissions.calls import Call

FUNCTIONS: Final = ("api", "dispatch", "gc", "recommend", "train")


@dataclass(frozen=True, order=True)
class Permission:
    """One action on one resource pattern that a role allows, under a condition (JSON)."""

    action: str
    resource: str
    condition: str = "{}"

    def allows(self, call: Call) -> bool:
        """Return whether this permission allows the call."""
        return (
            _matches(self.action.lower(), call.action.lower())
            and _matches(self.resource, call.resource)
            and all(
                _is_met(operator, key, values, call.context)
                for operator, keys in json.loads(self.condition).items()
                for key, values in keys.items()
            )
        )


class UnknownOperator(Exception):
    """Raised for a condition operator that this module does not implement."""


@dataclass(frozen=True)
class Role:
    """The role of a function."""

    permissions: frozenset[Permission]

    def permission_for(self, call: Call) -> Permission | None:
        """Return the first permission that allows the call, or None."""
        return next((each for each in sorted(self.permissions) if each.allows(call)), None)


@cache
def roles() -> dict[str, Role]:
    """Return the role of each function, as template.yaml describes it."""
    return roles_of(read_sam())


@cache
def serverless_roles() -> dict[str, Role]:
    """Return the role of each function, as serverless.yml describes it."""
    return roles_of(read_serverless())


def roles_of(stack: Stack) -> dict[str, Role]:
    """Return the role of each function of a stack. A role with a Deny statement is an error, because none is needed."""
    found = {}
    for function in FUNCTIONS:
        role_id = stack.functions[f"{function.title()}Function"].role.removeprefix("<").removesuffix(".Arn>")
        statements = stack.statements(role_id)
        assert {effect for effect, *_ in statements} == {"Allow"}
        found[function] = Role(frozenset(Permission(*statement) for _, *statement in statements))
    return found


def _is_met(operator: str, key: str, values: str | Sequence[str], context: Mapping[str, tuple[str, ...]]) -> bool:
    patterns = [values] if isinstance(values, str) else values
    present = context.get(key, ())
    match operator:
        case "StringLike":
            return len(present) == 1 and any(_matches(pattern, present[0]) for pattern in patterns)
        case "ForAllValues:StringLike":  # also met if the key is absent
            return all(any(_matches(pattern, value) for pattern in patterns) for value in present)
        case _:
            raise UnknownOperator(operator)


def _matches(pattern: str, text: str) -> bool:
    """Match IAM's wildcards: `*` for any characters, `?` for one."""
    return re.fullmatch(re.escape(pattern).replace(r"\*", ".*").replace(r"\?", "."), text, re.DOTALL) is not None
