"""Print the quality of a model as tables in a terminal."""

from __future__ import annotations

from typing import Any, Final

from rich import box
from rich.console import Console
from rich.table import Table

NAMES: Final = {
    "ndcg_at_20": "NDCG@20",
    "recall_at_20": "Recall@20",
    "hr_at_10": "HR@10, sampled",
    "ndcg_at_10": "NDCG@10, sampled",
    "coverage_at_20": "coverage@20",
}
"""Displayed names of the metrics, in the order of the first table."""


def print_quality(metrics: dict[str, Any]) -> None:
    """Print the quality of a model and of the popularity baseline.

    The first table shows the overall quality. The other tables show the quality by history length and by item
    popularity.

    Parameters
    ----------
    metrics
        The contents of `metrics.json`.
    """
    console = Console(highlight=False)
    for table in (_overall(metrics), *_by_group(metrics["breakdowns"])):
        console.print(table)


def _overall(metrics: dict[str, Any]) -> Table:
    quality, popularity = metrics["quality"], metrics["popularity_baseline"]
    table = _table("Quality on held-out interactions", "metric", "model", "popularity", "lift")
    for name, label in NAMES.items():
        lift = f"{quality[name] / popularity[name]:.2f}×" if popularity[name] else "–"
        table.add_row(label, f"{quality[name]:.4f}", f"{popularity[name]:.4f}", lift)
    return table


def _by_group(breakdowns: dict[str, Any]) -> list[Table]:
    columns = ("users", "NDCG@20", "popularity")
    by_history = _table("By length of the history", "items in the history", *columns)
    for row in breakdowns["history_length"]:
        by_history.add_row(_range(row["shortest"], row["longest"]), *_figures(row, row["users"]))
    by_item = _table("By popularity of the held-out item", "users of the item", *columns, "recommended")
    for row in breakdowns["item_popularity"]:
        share = f"{row['coverage_at_20']:.0%} of {row['items']:,} items"
        by_item.add_row(_range(row["fewest_users"], row["most_users"]), *_figures(row, row["held_out"]), share)
    return [table for table in (by_history, by_item) if table.row_count]


def _figures(row: dict[str, Any], n_users: int) -> tuple[str, str, str]:
    return f"{n_users:,}", f"{row['ndcg_at_20']:.4f}", f"{row['popularity_ndcg_at_20']:.4f}"


def _range(first: int, last: int | None) -> str:
    """Return the text of a range of whole numbers. A `last` of None means no upper limit.

    Examples
    --------
    >>> _range(3, 4), _range(1, 1), _range(200, None)
    ('3 to 4', '1', '200 or more')
    """
    if last is None:
        return f"{first:,} or more"
    return f"{first:,}" if first == last else f"{first:,} to {last:,}"


def _table(title: str, first: str, *others: str) -> Table:
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD)
    table.add_column(first)
    for name in others:
        table.add_column(name, justify="right")
    return table
