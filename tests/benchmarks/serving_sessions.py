"""People without an account: does somebody unknown get what their items ask for?"""

from __future__ import annotations

import csv
import gzip
from collections import defaultdict
from pathlib import Path

import numpy as np

from recsys.model.recommender import ServingModel, popular, recommend

N = 20
MAX_RECENT = 200
"""What `POST /v1/recommendations` takes."""
EVERY = 10
"""One user in so many is a newcomer."""


def split_newcomers(source: Path, folder: Path) -> tuple[Path, Path]:
    """Every tenth user of a CSV, by first line, as newcomers: the CSV to train on, and theirs."""
    places: dict[str, int] = {}
    with gzip.open(source, "rt", encoding="utf-8", newline="") as stream:
        header, *rows = csv.reader(stream)
    user_column = header.index("user_id")
    paths = folder / "train.csv", folder / "newcomers.csv"
    parts: tuple[list[list[str]], list[list[str]]] = [], []
    for row in rows:
        place = places.setdefault(row[user_column], len(places))
        parts[place % EVERY == 0].append(row)
    for path, part in zip(paths, parts, strict=True):
        with path.open("w", encoding="utf-8", newline="") as stream:
            csv.writer(stream).writerows([header, *part])
    return paths


def overlap(model: ServingModel, *, n_users: int = 1000) -> float:
    """Share of a known user's own list that somebody unknown with the same items gets, on average."""
    shares = []
    for row in np.linspace(0, len(model.users) - 1, min(n_users, len(model.users))).astype(int).tolist():
        history = [model.items[item] for item in model.seen(row).tolist()]
        own = {item.item_id for item in recommend(model, model.users[row], n=N).items}
        session = recommend(model, None, n=N, recent_items=history[-MAX_RECENT:], exclude_items=history)
        if own:
            shares.append(len(own & {item.item_id for item in session.items}) / len(own))
    return float(np.mean(shares))


def newcomers_ndcg(model: ServingModel, newcomers: Path) -> tuple[float, float, int]:
    """NDCG@20 of sessions and of popularity, and on how many: each newcomer's last new item is held out.

    The newcomer's items before it are the session; with one item held out, the ideal DCG is 1.
    """
    ours, theirs = [], []
    for items in _histories(newcomers).values():
        *before, last = list(dict.fromkeys(items))
        if before:
            asked = before[-MAX_RECENT:]
            session = recommend(model, None, n=N, recent_items=asked, exclude_items=before).items
            most_had = popular(model, n=N, exclude_items=before).items
            ours.append(_gain([item.item_id for item in session], last))
            theirs.append(_gain([item.item_id for item in most_had], last))
    return float(np.mean(ours)), float(np.mean(theirs)), len(ours)


def _histories(path: Path) -> dict[str, list[str]]:
    """Items of each user, oldest first; file order where times are equal."""
    events: dict[str, list[tuple[str, int, str]]] = defaultdict(list)
    with path.open(encoding="utf-8", newline="") as stream:
        for place, row in enumerate(csv.DictReader(stream)):
            events[row["user_id"]].append((row.get("timestamp") or "", place, row["item_id"]))
    return {user: [item for _, _, item in sorted(found)] for user, found in events.items()}


def _gain(ranked: list[str], wanted: str) -> float:
    return float(1 / np.log2(ranked.index(wanted) + 2)) if wanted in ranked else 0.0
