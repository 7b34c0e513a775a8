"""Quality of session recommendations, for users who are not in the training data."""

from __future__ import annotations

import csv
import gzip
from collections import defaultdict
from pathlib import Path

import numpy as np

from recsys.model.recommender import ServingModel, popular, recommend

N = 20
MAX_RECENT = 200
"""Largest number of recent items in a request to `POST /v1/recommendations`."""
EVERY = 10
"""Every tenth user is held out as a new user."""


def split_newcomers(source: Path, folder: Path) -> tuple[Path, Path]:
    """Split a CSV by user: every tenth user, in order of first occurrence, is held out. Return both paths."""
    positions: dict[str, int] = {}
    with gzip.open(source, "rt", encoding="utf-8", newline="") as stream:
        header, *rows = csv.reader(stream)
    user_column = header.index("user_id")
    paths = folder / "train.csv", folder / "newcomers.csv"
    parts: tuple[list[list[str]], list[list[str]]] = [], []
    for row in rows:
        position = positions.setdefault(row[user_column], len(positions))
        parts[position % EVERY == 0].append(row)
    for path, part in zip(paths, parts, strict=True):
        with path.open("w", encoding="utf-8", newline="") as stream:
            csv.writer(stream).writerows([header, *part])
    return paths


def overlap(model: ServingModel, *, n_users: int = 1000) -> float:
    """Return the mean share of a known user's list that an unknown user with the same history gets."""
    shares = []
    for row in np.linspace(0, len(model.users) - 1, min(n_users, len(model.users))).astype(int).tolist():
        history = [model.items[item] for item in model.seen(row).tolist()]
        own = {item.item_id for item in recommend(model, model.users[row], n=N).items}
        session = recommend(model, None, n=N, recent_items=history[-MAX_RECENT:], exclude_items=history)
        if own:
            shares.append(len(own & {item.item_id for item in session.items}) / len(own))
    return float(np.mean(shares))


def newcomers_ndcg(model: ServingModel, newcomers: Path) -> tuple[float, float, int]:
    """Return the mean NDCG@20 of session recommendations and of popularity, and the number of users.

    The last distinct item of each new user is held out, and the items before it are the session. With one held-out
    item, the ideal DCG is 1.
    """
    sessions, baseline = [], []
    for items in _histories(newcomers).values():
        *history, held_out = list(dict.fromkeys(items))
        if history:
            session = recommend(model, None, n=N, recent_items=history[-MAX_RECENT:], exclude_items=history).items
            most_popular = popular(model, n=N, exclude_items=history).items
            sessions.append(_gain([item.item_id for item in session], held_out))
            baseline.append(_gain([item.item_id for item in most_popular], held_out))
    return float(np.mean(sessions)), float(np.mean(baseline)), len(sessions)


def _histories(path: Path) -> dict[str, list[str]]:
    """Return the items of each user, oldest first; equal times keep the order of the file."""
    events: dict[str, list[tuple[str, int, str]]] = defaultdict(list)
    with path.open(encoding="utf-8", newline="") as stream:
        for position, row in enumerate(csv.DictReader(stream)):
            events[row["user_id"]].append((row.get("timestamp") or "", position, row["item_id"]))
    return {user: [item for _, _, item in sorted(found)] for user, found in events.items()}


def _gain(ranked: list[str], held_out: str) -> float:
    """Return the DCG of a list with one relevant item."""
    return float(1 / np.log2(ranked.index(held_out) + 2)) if held_out in ranked else 0.0
