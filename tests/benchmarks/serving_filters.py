"""Time of one top-20 list under filters that leave different shares of the items, beside the list without a filter."""

from __future__ import annotations

from typing import Final

import numpy as np

from recsys.catalogue.catalogue import Catalogue
from recsys.catalogue.columns import NumberColumn, TextColumn
from recsys.model.choosing import UNCONSTRAINED, Constraints, GroupLimit
from recsys.model.recommender import ServingModel, recommend
from recsys.model.vocabulary import Vocabulary
from recsys_recommend.filtering.bound import BoundCatalogue
from tests.benchmarks.serving_top import Call, N, interleaved_ms, some_users
from tests.benchmarks.tables import Table

SHARES: Final = {"0": 0.0, "1 item": 1e-6, "1%": 0.01, "10%": 0.1, "50%": 0.5, "all": 1.0}
_CATEGORIES: Final = 500


def filter_table(model: ServingModel, *, n_users: int) -> Table:
    """Measure lists under filters that leave each of `SHARES`, with a limit per category, and with diversity.

    The price of an item is its percentile in a random order, so that the eligible items are spread over the model.
    """
    n_items = len(model.items)
    generator = np.random.default_rng(0)
    prices = generator.permutation(n_items) / n_items
    categories = generator.integers(0, _CATEGORIES, n_items).astype(np.int32)
    texts = Vocabulary.of([f"category {number}" for number in range(_CATEGORIES)])
    columns = {"price": NumberColumn(prices), "category": TextColumn(categories, texts)}
    bound = BoundCatalogue("v", Catalogue(model.items, columns), model.items)

    def call(constraints: Constraints) -> Call:
        return lambda row: recommend(model, model.users[row], n=N, constraints=constraints)

    calls: dict[str, Call] = {"no filter": call(UNCONSTRAINED)}
    for name, share in SHARES.items():
        mask = bound.eligible(f"price < {share:.7f}", include_unavailable=False)
        calls[f"filter leaves {name}"] = call(Constraints(eligible=mask))
    limit = GroupLimit(bound.groups("category", ""), 1)
    calls["at most 1 per category"] = call(Constraints(limits=(limit,)))
    calls["diversity 0.3"] = call(Constraints(diversity=0.3))
    calls["evaluating a filter"] = lambda row: BoundCatalogue.eligible(
        bound, f"price < 0.{row:06} and category in ['category 1', 'category 2']", include_unavailable=False
    )
    spent = interleaved_ms(calls, some_users(model, n_users))
    medians = {name: float(np.median(times)) for name, times in spent.items()}
    table = Table(
        f"Top {N} among {n_items:,} items under filters, median CPU milliseconds of one thread",
        {"": "s", "ms": ".3f", "÷ no filter": ".2f"},
    )
    table.rows = [[name, median, median / medians["no filter"]] for name, median in medians.items()]
    table.notes = ["The masks of filters are kept from the first request on; evaluating one is measured by itself."]
    return table
