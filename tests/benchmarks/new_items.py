"""Quality of recommended items without interactions: `python -m tests.benchmarks.new_items`.

A tenth of the items of Online Retail, drawn at random, is removed from the interactions but stays in the catalogue. The
catalogue has titles only. The model is trained on the other items, without each customer's last one.

**Among the left-out items.** For each customer with a purchase of a left-out item and another one in the training data,
all left-out items are ranked. NDCG@20 is computed with all left-out items that the customer purchased as relevant.

**Whole lists.** Lists of 20 items under several values of `exploration`. For the last purchase of each customer among
the other items, NDCG@20 is the figure of the training report. The lists without new items are those of a service
without a catalogue.
"""

from __future__ import annotations

import argparse
import csv
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recsys.catalogue.catalogue import TITLE, Catalogue
from recsys.catalogue.columns import TextColumn
from recsys.catalogue.content import ContentModel
from recsys.model.choosing import Constraints
from recsys.model.neumf import Floats, Network
from recsys.model.pruned_search import Bounds
from recsys.model.recommender import ServingModel, recommend
from recsys.model.vocabulary import Vocabulary
from recsys_train.catalogue.content_fit import fit_content
from recsys_train.data.interactions import Interactions
from recsys_train.data.reader import read_interactions
from recsys_train.fitting.recipe import Recipe, first_hyperparameters
from recsys_train.fitting.training import TrainingRun
from tests.benchmarks.ours import train
from tests.benchmarks.protocol import BUNDLED, CUTOFF, MAX_UNPACKED_BYTES, ROOT, train_file
from tests.benchmarks.tables import Table

TITLES = ROOT / "local/recsys_local/sample/online_retail_items.csv"
LEFT_OUT_SHARE = 0.1
EXPLORATIONS = (0.0, 0.05, 0.1, 0.2, 1.0)
RANDOM_RANKINGS = 10
_DISCOUNTS = 1 / np.log2(np.arange(2, CUTOFF + 2))


@dataclass(frozen=True, slots=True)
class LeftOut:
    """The data set.

    Parameters
    ----------
    kept
        Interactions with the other items, oldest first; items are renumbered.
    item_ids
        Ids of the left-out items.
    first_sold
        Position of the first interaction with each left-out item among all interactions, (n_left_out,).
    purchased
        For each user index, the left-out items that the user interacted with, as positions in `item_ids`.
    """

    kept: Interactions
    item_ids: list[str]
    first_sold: NDArray[np.int64]
    purchased: Mapping[int, set[int]]


def leave_out(interactions: Interactions, generator: np.random.Generator) -> LeftOut:
    """Remove a random tenth of the items."""
    n_items = interactions.n_items
    left_out = np.sort(generator.permutation(n_items)[: round(LEFT_OUT_SHARE * n_items)])
    is_left_out = np.zeros(n_items, dtype=np.bool_)
    is_left_out[left_out] = True
    others = np.flatnonzero(~is_left_out)
    position = np.zeros(n_items, dtype=np.int32)
    position[others], position[left_out] = np.arange(len(others)), np.arange(len(left_out))
    is_removed = is_left_out[interactions.items]
    kept = interactions[~is_removed]
    kept = replace(kept, item_ids=[interactions.item_ids[item] for item in others], items=position[kept.items])
    removed = interactions[is_removed]
    purchased: dict[int, set[int]] = {}
    for user, item in zip(removed.users.tolist(), position[removed.items].tolist(), strict=True):
        purchased.setdefault(user, set()).add(item)
    _, first = np.unique(position[removed.items], return_index=True)
    first_sold = np.flatnonzero(is_removed)[first]
    return LeftOut(kept, [interactions.item_ids[item] for item in left_out], first_sold, purchased)


def titles_of(path: Path) -> Catalogue:
    """Return the catalogue of a CSV with the columns `item_id` and `title`."""
    with path.open(encoding="utf-8", newline="") as stream:
        titles = {row["item_id"]: row["title"].strip() for row in csv.DictReader(stream)}
    texts = sorted(set(titles.values()))
    code_of = {text: code for code, text in enumerate(texts)}
    codes = np.array([code_of[title] for title in titles.values()], dtype=np.int32)
    return Catalogue(Vocabulary.of(list(titles)), {TITLE: TextColumn(codes, Vocabulary.of(texts))})


def selected_network(train_part: Interactions, seed: int) -> Network:
    """Train as `recsys train` does."""
    result = train(train_part, Recipe(), seed=seed, has_times=True).result
    print(f"selected: {result.hyperparameters}")
    return Network.from_weights(result.dims, result.weights, decay=result.hyperparameters.decay)


def fixed_network(train_part: Interactions, fixed: list[float], seed: int) -> Network:
    """Train with given hyperparameters: ridge, decay and number of epochs."""
    ridge, decay, n_epochs = fixed
    first = first_hyperparameters(Recipe(), train_part.n_users, train_part.n_items, decay=decay)
    assert first.linear is not None
    chosen = replace(first, linear=replace(first.linear, ridge=ridge))
    training = TrainingRun.start(train_part, Recipe(), chosen, seed=seed)
    for _ in range(int(n_epochs)):
        training.run_epoch(deadline=math.inf)
    return Network.from_weights(training.network.dims, training.network.weights(), decay=decay)


def with_new_items(train_part: Interactions, network: Network, catalogue: Catalogue, *, seed: int) -> ServingModel:
    """Return the served model, with the left-out items as new items."""
    arrays = fit_content(catalogue, train_part.item_ids, network, seed=seed)
    assert arrays is not None
    known = set(train_part.item_ids)
    rows = np.array([row for row, item_id in enumerate(catalogue.items) if item_id not in known])
    starts, items = train_part.items_by_user()
    return ServingModel(
        version="benchmark",
        users=Vocabulary.of(train_part.user_ids),
        items=Vocabulary.of(train_part.item_ids),
        network=network,
        bounds=Bounds.of(network),
        seen_starts=starts,
        seen_items=items,
        popularity=(train_part.users_per_item() / train_part.n_users).astype(np.float32),
        size_bytes=0,
        new_items=ContentModel.of(arrays).new_items(catalogue, rows, network),
    )


def scores_of_left_out(model: ServingModel, data: LeftOut, users: list[int]) -> Floats:
    """Return the logits of the left-out items, (n_users, n_left_out); -inf for an item without a known word."""
    new = model.new_items
    assert new is not None
    scores = np.full((len(users), len(data.item_ids)), -np.inf, dtype=np.float32)
    position = {item_id: index for index, item_id in enumerate(data.item_ids)}
    columns = [position[item_id] for item_id in new.items]
    for row, user in enumerate(users):
        scores[row, columns] = new.network.logits(model.user(model.seen(user).astype(np.int64)))
    return scores


def ndcg(scores: Floats | NDArray[np.float64], relevant: list[set[int]]) -> float:
    """Return the mean NDCG@20 of rankings by score, one row per user."""
    values = []
    for row, items in zip(scores, relevant, strict=True):
        hits = [item in items for item in np.argsort(-row, kind="stable")[:CUTOFF].tolist()]
        values.append(_DISCOUNTS[: len(hits)] @ hits / _DISCOUNTS[: min(len(items), CUTOFF)].sum())
    return float(np.mean(values))


def left_out_table(model: ServingModel, data: LeftOut) -> Table:
    """Compare our ranking of the left-out items with rankings that need no model."""
    users = [user for user in sorted(data.purchased) if len(model.seen(user))]
    relevant = [data.purchased[user] for user in users]
    scores = scores_of_left_out(model, data, users)
    generator = np.random.default_rng(0)
    random = [ndcg(generator.random(scores.shape), relevant) for _ in range(RANDOM_RANKINGS)]
    newest_first = np.tile(data.first_sold.astype(np.float64), (len(users), 1))
    rows = {
        "random": float(np.mean(random)),
        "most recent: last to be sold for the first time": ndcg(newest_first, relevant),
        "mean score over all customers": ndcg(np.tile(scores.mean(axis=0), (len(users), 1)), relevant),
        "ours": ndcg(scores, relevant),
    }
    table = Table(
        f"NDCG@20 among {len(data.item_ids)} left-out items, {len(users):,} customers",
        {"": "s", "NDCG@20": ".4f", "÷ random": ".2f", "÷ most recent": ".2f"},
    )
    recent = rows["most recent: last to be sold for the first time"]
    table.rows = [[name, value, value / rows["random"], value / recent] for name, value in rows.items()]
    return table


def lists_table(model: ServingModel, data: LeftOut, held_out: Interactions) -> Table:
    """Compare lists of 20 items under several values of `exploration`."""
    table = Table(
        "Lists of 20 items",
        {"exploration": "s", "NDCG@20 of the last purchase": ".4f", "÷ 0": ".4f", "new items": ".2%", "hits": ".4f"},
    )
    users, targets = held_out.users.tolist(), [model.items[item] for item in held_out.items.tolist()]
    first = None
    for exploration in EXPLORATIONS:
        gains, shares, hits = [], [], []
        for user, target in zip(users, targets, strict=True):
            found = recommend(
                model, model.users[user], n=CUTOFF, constraints=Constraints(exploration=exploration)
            ).items
            ids = [item.item_id for item in found]
            gains.append(_DISCOUNTS[ids.index(target)] if target in ids else 0.0)
            new = [item_id for item_id in ids if item_id not in model.items]
            shares.append(len(new) / CUTOFF)
            purchased = {data.item_ids[item] for item in data.purchased.get(user, ())}
            hits.append(len(purchased.intersection(new)))
        value = float(np.mean(gains))
        first = value if first is None else first
        table.rows.append([f"{exploration:g}", value, value / first, float(np.mean(shares)), float(np.mean(hits))])
    table.notes = ["hits: purchased left-out items per list. The order of the other items is the same in all lists."]
    return table


def main(arguments: list[str] | None = None) -> None:
    """Train for each seed and print both tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0], help="seeds of the left-out items and of training")
    parser.add_argument(
        "--fixed",
        nargs=3,
        type=float,
        metavar=("RIDGE", "DECAY", "EPOCHS"),
        help="train with these hyperparameters, instead of selecting them, which takes longer",
    )
    options: Any = parser.parse_args(arguments)
    with train_file(BUNDLED, None).open("rb") as stream:
        interactions, _ = read_interactions(stream, max_unpacked_bytes=MAX_UNPACKED_BYTES)
    catalogue = titles_of(TITLES)
    for seed in options.seeds:
        data = leave_out(interactions, np.random.default_rng(seed))
        train_part, held_out = data.kept.split_last()
        network = (
            fixed_network(train_part, options.fixed, seed) if options.fixed else selected_network(train_part, seed)
        )
        model = with_new_items(train_part, network, catalogue, seed=seed)
        print(f"\nseed {seed}\n")
        print(left_out_table(model, data).text(), end="\n\n")
        print(lists_table(model, data, held_out).text(), flush=True)


if __name__ == "__main__":
    main()
