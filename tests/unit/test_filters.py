"""Filters: random expressions equal a row-by-row evaluation, and lists under filters equal a sort of all items."""

from __future__ import annotations

import hashlib
import operator
import random
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from recsys.catalogue.catalogue import EMPTY, Catalogue, read_catalogue, write_catalogue
from recsys.errors import InvalidRequest
from recsys.model import top_n
from recsys.model.choosing import Constraints
from recsys.model.neumf import Dims
from recsys.model.recommender import ServingModel, recommend, sigmoid
from recsys_recommend.filtering.bound import BoundCatalogue
from recsys_recommend.filtering.expression import ColumnName, Combination, Negation, Truth, parse
from recsys_train.catalogue.records import ItemRecord
from recsys_train.catalogue.report import CatalogueReport
from recsys_train.catalogue.update import apply_updates, read_updates
from tests.made_models import random_network, serving_model

N_ITEMS = 300
TEXTS = ["tea", "mugs", "Größe", "", "it's", 'say "hi"', "\\", "tea ", "10"]
Row = dict[str, Any]
Predicate = Callable[[Row], bool]
COMPARE: dict[str, Callable[[Any, Any], bool]] = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
    "==": operator.eq,
}


def random_rows(source: random.Random) -> list[Row]:
    """Return the attributes of items; about a fifth of the values is missing."""

    def maybe(value: Any) -> Any:
        return None if source.random() < 0.2 else value

    def text() -> str | None:
        return maybe(source.choice([each.strip() or "tea" for each in TEXTS]))

    return [
        {
            "price": maybe(source.choice([0, 1, 1.5, -2, 20, 1e6])),
            "unit size": maybe(float(source.randrange(10))),
            "category": text(),
            "released": maybe(f"2026-{source.randrange(1, 13):02}-01"),
            "available": maybe(source.random() < 0.5),
            "tags": maybe(source.sample(["new", "sale", "or", "x y"], source.randrange(4))) or None,
        }
        for _ in range(N_ITEMS)
    ]


def catalogue_of(rows: list[Row]) -> Catalogue:
    """Return a catalogue of the items i0, i1, …, read from its file."""
    report = CatalogueReport(format="json")
    records = [ItemRecord(line, {"item_id": f"i{line}", **row}) for line, row in enumerate(rows)]
    content = write_catalogue(apply_updates(EMPTY, read_updates(records, None, report), report))
    return read_catalogue(content, sha256=hashlib.sha256(content).hexdigest())


def quoted(text: str, source: random.Random) -> str:
    quote = source.choice("'\"")
    return quote + text.replace("\\", "\\\\").replace(quote, f"\\{quote}") + quote


def random_leaf(source: random.Random) -> tuple[str, Predicate]:  # noqa: PLR0911  # one per kind of comparison
    """Return a comparison as text and as a function of a row."""
    sign = source.choice(list(COMPARE))
    compare = COMPARE[sign]
    match source.randrange(8):
        case 0:
            number = source.choice([0, 1, 1.5, -2, 7])
            return f"price {sign} {number}", lambda row: row["price"] is not None and compare(row["price"], number)
        case 1:
            number = source.randrange(10)
            numbers = [number, source.randrange(10)]
            text = f"`unit size` in [{numbers[0]}, {numbers[1]:.1f}]"
            return text, lambda row: row["unit size"] in numbers
        case 2:
            value = source.choice(TEXTS).strip()
            negated = source.random() < 0.5
            sign = "!=" if negated else "=="
            return f"category {sign} {quoted(value, source)}", lambda row: (row["category"] == value) != negated
        case 3:
            values = source.sample([text.strip() for text in TEXTS], source.randrange(4))
            listed = ", ".join(quoted(value, source) for value in values)
            negated = source.random() < 0.5
            word = "not in" if negated else "in"
            return f"category {word} [{listed}]", lambda row: (row["category"] in values) != negated
        case 4:
            date = f"2026-{source.randrange(1, 14):02}-01"
            return (
                f"{quoted(date, source)} {sign} released",
                lambda row: row["released"] is not None and compare(date, row["released"]),
            )
        case 5:
            negated = source.random() < 0.3
            return ("not available" if negated else "available"), lambda row: (row["available"] is True) != negated
        case 6:
            tag = source.choice(["new", "or", "missing"])
            return f"{quoted(tag, source)} IN tags", lambda row: tag in (row["tags"] or ())
        case _:
            name = source.choice(["price", "category", "tags", "available"])
            return f"{name} == NULL", lambda row: row[name] is None


def random_expression(source: random.Random, depth: int = 0) -> tuple[str, Predicate]:
    """Return an expression of up to four levels as text and as a function of a row."""
    if depth == 4 or source.random() < 0.3:
        return random_leaf(source)
    if source.random() < 0.2:
        text, predicate = random_expression(source, depth + 1)
        return f"not ({text})", lambda row: not predicate(row)
    parts = [random_expression(source, depth + 1) for _ in range(source.randrange(2, 4))]
    is_any = source.random() < 0.5
    word, combine = ("or", any) if is_any else ("and", all)
    return f" {word} ".join(f"({text})" for text, _ in parts), lambda row: combine(
        predicate(row) for _, predicate in parts
    )


def brute_force(model: ServingModel, user_id: str, n: int, eligible: NDArray[np.bool_]) -> list[tuple[str, float]]:
    """Rank all eligible items that the user has not seen by their exact logits, with a stable sort."""
    seen = model.seen(model.users.index(user_id)).astype(np.int64)
    allowed = np.flatnonzero(eligible & ~np.isin(np.arange(len(model.items)), seen))
    logits = model.network.exact_logits(model.network.user(seen), allowed)
    best = np.argsort(-logits, kind="stable")[:n]
    scores = sigmoid(logits[best]).tolist()
    return list(zip(model.items.at(allowed[best]), scores, strict=True))


def check_expressions(n_expressions: int, seed: int) -> None:
    source = random.Random(seed)
    rows = random_rows(source)
    dims = Dims(n_users=5, n_items=N_ITEMS + 20, gmf_dim=4, mlp_dim=4, hidden_dims=(8, 4))
    model = serving_model(random_network(dims, seed), [[1, 2], [3], [5, 6, 7], [290], [310, 4]])
    bound = BoundCatalogue("v", catalogue_of(rows), model.items)
    without = dict.fromkeys(rows[0])
    for number in range(n_expressions):
        text, predicate = random_expression(source)
        expected = np.array([predicate(row) for row in [*rows, *[without] * 20]])
        mask = bound.eligible(text, include_unavailable=True)
        assert mask is not None
        assert mask.tolist() == expected.tolist(), text
        user_id, n = f"u{number % 5}", source.choice([1, 10, 400])
        found = recommend(model, user_id, n=n, constraints=Constraints(eligible=mask))
        assert [(item.item_id, item.score) for item in found.items] == brute_force(model, user_id, n, expected), text


def test_random_expressions_equal_a_row_by_row_evaluation() -> None:
    check_expressions(40, seed=1)


@pytest.mark.slow
@pytest.mark.parametrize("min_items", [0, 10_000])
def test_2000_random_expressions_equal_brute_force(monkeypatch: pytest.MonkeyPatch, min_items: int) -> None:
    monkeypatch.setattr(top_n, "PRUNE_MIN_ITEMS", min_items)  # 0 uses pruned search for every catalogue
    check_expressions(2000, seed=2)


@pytest.mark.parametrize(
    ("text", "position"),
    [
        ("", 1),
        ("price <", 8),
        ("price < 'a", 9),
        ("price < 20 price", 12),
        ("a in 3", 6),
        ("__import__('os')", 11),
        ("a.b == 3", 2),
        ("'a' == 'b'", 8),
        ("x in ['a' 'b']", 11),
        ("not", 4),
        ("x in [" + "1," * 201 + "1]", 1),
        ("(" * 40 + "a" + ")" * 40, 8),
    ],
)
def test_an_error_names_its_position(text: str, position: int) -> None:
    with pytest.raises(InvalidRequest, match=f"position {position}:") as caught:
        parse(text)
    assert caught.value.problem_code == "invalid-filter"


def test_not_binds_closest_then_and_then_or() -> None:
    a, b, c = (Truth(ColumnName(name, position)) for name, position in (("a", 4), ("b", 10), ("c", 15)))
    both = Combination((Negation(a), b), is_any=False)
    assert parse("not a and b or c") == Combination((both, c), is_any=True)


@pytest.mark.parametrize(
    "text",
    [
        "price == 'a'",
        "category < 3",
        "category",
        "tags == 'a'",
        "'a' in category",
        "available in ['a']",
        "price < null",
    ],
)
def test_a_value_must_fit_the_kind_of_its_column(text: str) -> None:
    rows = random_rows(random.Random(0))
    catalogue = catalogue_of(rows)
    with pytest.raises(InvalidRequest, match="position"):
        BoundCatalogue("v", catalogue, catalogue.items).eligible(text, include_unavailable=True)


@pytest.mark.slow
@pytest.mark.parametrize("share", [0.0, 0.001, 0.01, 0.1, 0.5, 1.0])
@pytest.mark.parametrize("n", [1, 20])
def test_pruned_search_among_eligible_items_equals_brute_force(share: float, n: int) -> None:
    dims = Dims(n_users=1, n_items=20_000, gmf_dim=8, mlp_dim=4, hidden_dims=(8, 4))
    model = serving_model(random_network(dims, 3), [[1, 2, 3]])
    eligible = np.random.default_rng(0).random(20_000) < share
    found = recommend(model, "u0", n=n, constraints=Constraints(eligible=eligible))
    assert [(item.item_id, item.score) for item in found.items] == brute_force(model, "u0", n, eligible)
