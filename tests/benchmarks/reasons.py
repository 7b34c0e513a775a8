"""Print what some customers of the sample purchased, what is recommended to them, and why, in order to read it.

`python -m tests.benchmarks.reasons FOLDER`, where FOLDER was written by `recsys train --out` from
`local/recsys_local/sample/online_retail.csv.gz`. It also prints by how much the reasons miss the GMF part of the logit.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np

from recsys.model.artifact import read_folder
from recsys.model.explanations import contributions, explain
from recsys.model.recommender import ServingModel, recommend
from tests.benchmarks.new_items import TITLES, titles_of

SHOWN_PURCHASES = 12
CHECKED_USERS = 1000


def print_customer(model: ServingModel, user: int, titles: dict[str, Any], *, n: int) -> None:
    """Print the latest purchases of a customer, and each recommendation with its reasons."""
    history = model.seen(user).astype(np.int64)
    print(f"\n## Customer {model.users[user]}: {len(history)} items, the latest {SHOWN_PURCHASES}:")
    for item_id in model.items.at(history[-SHOWN_PURCHASES:]):
        print(f"  - {item_id} {titles.get(item_id)}")
    found = recommend(model, model.users[user], n=n).items
    items = np.array([model.items.index(item.item_id) for item in found])
    for item, reasons in zip(found, explain(model.network, history, items), strict=True):
        print(f"{item.rank}. {item.item_id} {titles.get(item.item_id)} ({item.score:.3f})")
        for reason in reasons:
            item_id = model.items[reason.item_index]
            print(f"     because of {item_id} {titles.get(item_id)} (+{reason.contribution:.2f})")


def largest_error(model: ServingModel, users: list[int]) -> float:
    """Return the largest difference between the sum of all contributions and the GMF part of a recommendation."""
    errors = []
    for user in users:
        history = model.seen(user).astype(np.int64)
        items = np.array([model.items.index(item.item_id) for item in recommend(model, model.users[user], n=10).items])
        gmf = model.network.item_gmf[items].astype(np.float64) @ model.network.user(history).gmf
        errors.append(np.abs(contributions(model.network, history, items).sum(axis=1) - gmf).max())
    return float(np.max(errors))


def main(arguments: list[str] | None = None) -> None:
    """Print the report."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--customers", type=int, default=10)
    parser.add_argument("-n", type=int, default=5, help="recommendations per customer")
    parser.add_argument("--seed", type=int, default=0, help="seed of the drawn customers")
    options = parser.parse_args(arguments)
    model, catalogue = read_folder(options.folder), titles_of(TITLES)
    titles = {item_id: catalogue.columns["title"].value(row) for row, item_id in enumerate(catalogue.items)}
    users = np.random.default_rng(options.seed).permutation(len(model.users)).tolist()
    for user in users[: options.customers]:
        print_customer(model, user, titles, n=options.n)
    checked = users[:CHECKED_USERS]
    print(f"\nLargest error of the sum of contributions for {len(checked)} users: {largest_error(model, checked):.1e}")


if __name__ == "__main__":
    main()
