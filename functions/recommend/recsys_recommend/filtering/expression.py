"""Parse filter expressions such as `price < 20 and category in ['tea', 'mugs']`. Nothing is ever evaluated as code.

| expression | true for items |
|---|---|
| `price < 20` | whose number is less than 20; also `<=`, `>`, `>=`, `==` and `!=`, for numbers and texts |
| `category in ['tea', 'mugs']` | whose value, or one of whose tags, is in the list |
| `'sale' in tags` | that have the tag |
| `available` | whose boolean is true |
| `title == null` | that have no title |
| `not …`, `… and …`, `… or …`, `( … )` | combined as usual; `not` binds most tightly, then `and`, then `or` |

`== null` and `!= null` test whether a value is missing. In every other comparison, a missing value equals nothing and
is in no list. Therefore `==`, `in`, `<` and the like are false for it, and their negations (`!=`, `not in`, `not`) are
true.

The parser is an LALR(1) automaton of the library Lark. It needs neither recursion nor backtracking, so the time for
parsing is proportional to the length of the text and does not depend on the nesting.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final, cast

import lark
from lark.exceptions import UnexpectedCharacters, UnexpectedInput, UnexpectedToken, VisitError

from recsys.errors import FieldError, InvalidRequest

MAX_LENGTH: Final = 2000
"""Longest expression, in characters. Parsing takes up to 10 µs per character."""
MAX_DEPTH: Final = 32
"""Deepest nesting of `and`, `or`, `not` and parentheses. It is limited because evaluation is recursive."""
MAX_COMPARISONS: Final = 100
MAX_LIST: Final = 200
"""Largest number of values in a list."""
OPERATORS: Final[dict[str, Callable[[Any, Any], Any]]] = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
    "==": operator.eq,
    "=": operator.eq,
    "!=": operator.ne,
}
_GRAMMAR: Final = r"""
    ?start: disjunction
    ?disjunction: conjunction (OR conjunction)*
    ?conjunction: negation (AND negation)*
    ?negation: NOT negation -> negated
        | comparison
        | LPAR disjunction ")" -> enclosed
    comparison: column OPERATOR literal -> compared
        | literal OPERATOR column -> compared_reversed
        | column IN values -> member
        | column NOT IN values -> not_member
        | literal IN column -> tagged
        | literal NOT IN column -> not_tagged
        | column -> truth
    column: NAME -> name
        | QUOTED_NAME -> quoted_name
    values: "[" (literal ("," literal)* ","?)? "]"
    literal: NUMBER -> number
        | STRING -> string
        | TRUE -> true
        | FALSE -> false
        | NULL -> null
    LPAR: "("
    OR.2: /or\b/i
    AND.2: /and\b/i
    NOT.2: /not\b/i
    IN.2: /in\b/i
    TRUE.2: /true\b/i
    FALSE.2: /false\b/i
    NULL.2: /null\b/i
    OPERATOR: /<=|>=|==|!=|<|>|=/
    NAME: /[^\W\d]\w*/
    QUOTED_NAME: /`[^`]+`/
    NUMBER: /[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d+)?/
    STRING: /'(?:[^'\\]|\\.)*'/s | /"(?:[^"\\]|\\.)*"/s
    %ignore /\s+/
"""
_ESCAPE: Final = re.compile(r"\\(.)", re.DOTALL)
_REVERSED: Final = {"<": ">", "<=": ">=", ">": "<", ">=": "<="}
_EXAMPLE: Final = "Write an expression such as price < 20 and category in ['tea', 'mugs']."
_NAMES: Final = {
    "NAME": "a column",
    "QUOTED_NAME": "",
    "OPERATOR": "a comparison",
    "STRING": "text in quotes",
    "NUMBER": "a number",
    "AND": "and",
    "OR": "or",
    "LPAR": "(",
    "RPAR": ")",
    "LSQB": "[",
    "RSQB": "]",
    "COMMA": ",",
    "$END": "the end",
}
"""Names of the grammar's terminals in messages. Other terminals appear under their own name in lower case."""

Literal = float | str | bool | None


@dataclass(frozen=True, slots=True)
class ColumnName:
    """A column in an expression, and its position in the text, counted from 0."""

    name: str
    position: int


@dataclass(frozen=True, slots=True)
class Comparison:
    """A comparison `column operator value`, in which the operator is a key of `OPERATORS`."""

    column: ColumnName
    operator: str
    value: Literal


@dataclass(frozen=True, slots=True)
class Membership:
    """A test `column in values`, or `value in column` for a column of tags.

    The test is true for an item if the value of the item, or one of its tags, is in `values`. `needs_tags` is true for
    the form `value in column`, which is valid only for a column of tags.
    """

    column: ColumnName
    values: tuple[Literal, ...]
    needs_tags: bool = False


@dataclass(frozen=True, slots=True)
class Truth:
    """A boolean column that is used as a condition."""

    column: ColumnName


@dataclass(frozen=True, slots=True)
class Negation:
    """A negation `not part`."""

    part: Expression


@dataclass(frozen=True, slots=True)
class Combination:
    """A conjunction `part and part …`, or a disjunction `part or part …` if `is_any` is true."""

    parts: tuple[Expression, ...]
    is_any: bool


Expression = Comparison | Membership | Truth | Negation | Combination


@lru_cache(maxsize=256)
def parse(text: str) -> Expression:
    """Return the syntax tree of an expression.

    Raises
    ------
    InvalidRequest
        The text is not an expression, or exceeds a limit. The error message states the position.

    Examples
    --------
    >>> parse("price < 20")
    Comparison(column=ColumnName(name='price', position=0), operator='<', value=20.0)
    >>> parse("price = 20 cup")
    Traceback (most recent call last):
    recsys.errors.InvalidRequest: The filter has an error at position 12: expected and, or or the end. Received: 'cup'.
    """
    if len(text) > MAX_LENGTH:
        raise invalid_filter(f"expected at most {MAX_LENGTH:,} characters. Received: {len(text):,}", MAX_LENGTH)
    try:
        result = cast("_Part", _parser().parse(text))  # the transformer returns this type
    except VisitError as error:
        raise error.orig_exc from None
    except UnexpectedInput as error:
        raise _syntax_error(text, error) from None
    return result.expression


def invalid_filter(problem: str, position: int) -> InvalidRequest:
    """Return the error for a problem at a position of a filter, counted from 0."""
    detail = f"The filter has an error at position {position + 1}: {problem}."
    return InvalidRequest(
        detail,
        code="invalid-filter",
        hint=_EXAMPLE,
        errors=[FieldError("invalid-filter", detail, pointer="/filter")],
    )


@lru_cache(maxsize=1)
def _parser() -> lark.Lark:
    return lark.Lark(_GRAMMAR, parser="lalr", transformer=_Builder())


def _syntax_error(text: str, error: UnexpectedInput) -> InvalidRequest:
    position = len(text) if error.pos_in_stream is None else error.pos_in_stream
    if isinstance(error, UnexpectedToken):
        names = [_NAMES.get(name, name.lower()) for name in sorted(error.accepts or error.expected, key=_order)]
        is_end = error.token.type == "$END"
        position = len(text) if is_end else error.token.start_pos or 0
        received = "the end" if is_end else repr(str(error.token)[:40])
        return invalid_filter(
            f"expected {_enumerated([name for name in names if name])}. Received: {received}", position
        )
    assert isinstance(error, UnexpectedCharacters)
    return invalid_filter(f"the character {text[position]!r} is not expected here", position)


def _order(name: str) -> tuple[int, str]:
    """Return the key by which error messages sort the terminals of the grammar.

    Columns, comparisons and values come first. Punctuation and the end of the text come last.
    """
    names = list(_NAMES)
    return names.index(name if name in names else "LPAR"), name


def _enumerated(names: list[str]) -> str:
    return f"{', '.join(names[:-1])} or {names[-1]}" if len(names) > 1 else names[0]


@dataclass(frozen=True, slots=True)
class _Part:
    """An expression, with its depth and its number of comparisons. Both numbers are limited."""

    expression: Expression
    depth: int = 0
    n_comparisons: int = 1


class _Builder(lark.Transformer[lark.Token, _Part]):
    """A transformer that builds the syntax tree during parsing, so that no recursion over a parse tree is needed."""

    def name(self, children: list[lark.Token]) -> ColumnName:
        return ColumnName(str(children[0]), children[0].start_pos or 0)

    def quoted_name(self, children: list[lark.Token]) -> ColumnName:
        return ColumnName(str(children[0])[1:-1], children[0].start_pos or 0)

    def number(self, children: list[lark.Token]) -> float:
        return float(children[0])

    def string(self, children: list[lark.Token]) -> str:
        return _ESCAPE.sub(r"\1", str(children[0])[1:-1])

    def true(self, _children: list[lark.Token]) -> bool:
        return True

    def false(self, _children: list[lark.Token]) -> bool:
        return False

    def null(self, _children: list[lark.Token]) -> None:
        return None

    def values(self, children: list[Literal]) -> tuple[Literal, ...]:
        return tuple(children)

    def compared(self, children: list[Any]) -> _Part:
        column, sign, value = children
        return _Part(Comparison(column, _sign(str(sign)), value))

    def compared_reversed(self, children: list[Any]) -> _Part:
        value, sign, column = children
        return _Part(Comparison(column, _sign(_REVERSED.get(str(sign), str(sign))), value))

    def member(self, children: list[Any]) -> _Part:
        return _Part(_membership(children[0], children[-1]))

    def not_member(self, children: list[Any]) -> _Part:
        return _Part(Negation(_membership(children[0], children[-1])))

    def tagged(self, children: list[Any]) -> _Part:
        return _Part(Membership(children[-1], (children[0],), needs_tags=True))

    def not_tagged(self, children: list[Any]) -> _Part:
        return _Part(Negation(Membership(children[-1], (children[0],), needs_tags=True)))

    def truth(self, children: list[Any]) -> _Part:
        return _Part(Truth(children[0]))

    def negated(self, children: list[Any]) -> _Part:
        token, part = children
        depth = _checked_depth(part.depth + 1, token.start_pos or 0)
        return _Part(Negation(part.expression), depth, part.n_comparisons)

    def enclosed(self, children: list[Any]) -> _Part:
        token, part = children[:2]
        return _Part(part.expression, _checked_depth(part.depth + 1, token.start_pos or 0), part.n_comparisons)

    def conjunction(self, children: list[Any]) -> _Part:
        return _combined(children, is_any=False)

    def disjunction(self, children: list[Any]) -> _Part:
        return _combined(children, is_any=True)


def _sign(text: str) -> str:
    return "==" if text == "=" else text


def _membership(column: ColumnName, values: tuple[Literal, ...]) -> Membership:
    if len(values) > MAX_LIST:
        raise invalid_filter(f"expected at most {MAX_LIST} values in a list. Received: {len(values)}", column.position)
    return Membership(column, values)


def _combined(children: list[Any], *, is_any: bool) -> _Part:
    parts: list[_Part] = children[::2]  # the other children are the tokens `and` or `or`
    position = children[1].start_pos or 0
    n_comparisons = sum(part.n_comparisons for part in parts)
    if n_comparisons > MAX_COMPARISONS:
        raise invalid_filter(f"expected at most {MAX_COMPARISONS} comparisons. Received: {n_comparisons}", position)
    depth = _checked_depth(max(part.depth for part in parts) + 1, position)
    return _Part(Combination(tuple(part.expression for part in parts), is_any), depth, n_comparisons)


def _checked_depth(depth: int, position: int) -> int:
    if depth > MAX_DEPTH:
        raise invalid_filter(f"expected at most {MAX_DEPTH} levels of and, or, not and parentheses", position)
    return depth
