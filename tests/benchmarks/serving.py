"""Serving compared with plain alternatives in one run: `make bench-serve`; README.md describes every row.

python -m tests.benchmarks.serving [--parts top filters sizes equality loading all-users keras] [--data FOLDER]
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Final

import numpy as np

from recsys.model import artifact
from recsys.model.batch_ranking import recommend_all
from recsys.model.neumf import Floats, Network, User
from recsys.model.recommender import ServingModel, recommend
from recsys.model.top_n import top_n
from tests.benchmarks.measured import run
from tests.benchmarks.protocol import train_file
from tests.benchmarks.serving_filters import filter_table
from tests.benchmarks.serving_models import DEEP, resized, trained
from tests.benchmarks.serving_top import N, add_top_row, keras_table, plain_numpy, size_table, some_users, top_table
from tests.benchmarks.tables import Table
from tests.made_models import write_model

PARTS: Final = ("all-users", "top", "filters", "sizes", "equality", "loading", "keras")
"""In the order in which they are measured: Keras comes last, because it stays in the process."""
SMALL_ITEMS: Final = 4000
GOWALLA_SIZE: Final = (40_981, 29_858)
"""Items and users."""
LARGE_ITEMS: Final = 1_000_000
SIZES: Final = (1000, 2000, 4000, 6000, 8000, 10_000, 20_000, 40_000)
"""Catalogue sizes at which both exact searches are measured."""
_BLOCK: Final = 4096
"""Items whose exact logits are computed at a time."""
MIB: Final = 2**20


@dataclass(frozen=True)
class Models:
    """The models of the benchmark, trained or derived on first use."""

    data: Path | None

    @cached_property
    def shipped(self) -> ServingModel:
        """Return what `recsys train` yields for Online Retail."""
        return trained("shipped")[0]

    @cached_property
    def deep(self) -> ServingModel:
        """Return a model of the same data with more hidden layers."""
        return trained("deep", **DEEP)[0]

    @cached_property
    def gowalla(self) -> ServingModel:
        """Return a model of Gowalla, or one of its size derived from `shipped` if there is no data folder."""
        if self.data is None:
            return resized(self.shipped, *GOWALLA_SIZE)
        return trained("gowalla", train_file("gowalla", self.data))[0]

    @cached_property
    def large(self) -> ServingModel:
        """Return a model of a million items and users."""
        return resized(self.deep, LARGE_ITEMS, LARGE_ITEMS)

    def by_size(self) -> dict[str, ServingModel]:
        """Return the four models that single lists are measured on, in ascending size."""
        return {
            "as shipped": self.shipped,
            "deep": resized(self.deep, SMALL_ITEMS, SMALL_ITEMS),
            "as shipped, Gowalla" if self.data else "as shipped, size of Gowalla": self.gowalla,
            "deep, large": self.large,
        }


def main() -> None:
    """Print one table per part."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("load", nargs="?", type=Path, help="only load this folder and print time and memory as JSON")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--users", type=int, default=1000, help="users per model of the parts top and equality")
    parser.add_argument("--large-users", type=int, default=20, help="the same for a million items")
    parser.add_argument("--data", type=Path, help="folder with Gowalla; its model then replaces one of equal size")
    arguments = parser.parse_args()
    if arguments.load is not None:
        print(json.dumps(_load(arguments.load)))
        return
    models = Models(arguments.data)
    for part in (part for part in PARTS if part in arguments.parts):
        print(f"{part} …", file=sys.stderr, flush=True)
        print(f"{_measure(part, models, arguments).text()}\n", flush=True)


def _measure(part: str, models: Models, arguments: argparse.Namespace) -> Table:
    n_users, n_large_users = arguments.users, arguments.large_users
    measure: dict[str, Callable[[], Table]] = {
        "all-users": lambda: _all_users(models.gowalla),
        "top": lambda: _top(models, n_users, n_large_users),
        "filters": lambda: filter_table(models.large, n_users=n_large_users),
        "sizes": lambda: size_table({"as shipped": models.shipped, "deep": models.deep}, SIZES, n_users=3000),
        "equality": lambda: _equality(models, n_users, n_large_users),
        "loading": lambda: _loading(models.large),
        "keras": lambda: keras_table(trained("deep", **DEEP)[1], n_items=SMALL_ITEMS),
    }
    return measure[part]()


def _top(models: Models, n_users: int, n_large_users: int) -> Table:
    table = top_table()
    for name, model in models.by_size().items():
        add_top_row(table, name, model, n_large_users if len(model.items) == LARGE_ITEMS else n_users)
    return table


def _equality(models: Models, n_users: int, n_large_users: int) -> Table:
    table = Table("Lists equal to sorting every exact logit", {"": "", "users": ",d", "lists": ",d", "equal": ",d"})
    for name, model in models.by_size().items():
        rows = some_users(model, n_large_users if len(model.items) == LARGE_ITEMS else n_users)
        n_lists, n_equal = _count_equal(model, rows)
        table.rows.append([f"{name}, {len(model.items):,} items", len(rows), n_lists, n_equal])
    return table


# -- exactness


def _count_equal(model: ServingModel, rows: Iterable[int]) -> tuple[int, int]:
    """Request five lists per user; return how many there are, and how many equal the sorted exact logits."""
    generator = np.random.default_rng(2)
    n_lists = n_equal = 0
    for row in rows:
        user, seen = model.users[row], model.seen(row)
        logits = _exact(model.network, model.network.user(seen.astype(np.int64)))
        popular = np.argsort(-logits)[:100]
        excluded_items, candidates = generator.choice(popular, 50), generator.integers(0, len(model.items), 500)
        everything = np.arange(len(model.items))
        for options, excluded in (
            ({}, seen),
            ({"exclude_seen": False}, seen[:0]),
            ({"exclude_items": _ids(model, excluded_items)}, np.append(seen, excluded_items)),
            ({"candidates": _ids(model, candidates)}, np.append(seen, np.setdiff1d(everything, candidates))),
            ({"candidates": _ids(model, seen)}, everything),
        ):
            best = top_n(logits, N, excluded=excluded.astype(np.int64))
            result = [item.item_id for item in recommend(model, user, n=N, **options).items]  # type: ignore[arg-type]  # keyword arguments from a table
            n_lists += 1
            n_equal += result == _ids(model, best)
    return n_lists, n_equal


def _ids(model: ServingModel, rows: np.ndarray[Any, Any]) -> list[str]:
    return [model.items[row] for row in rows.tolist()]


def _exact(network: Network, user: User) -> Floats:
    """Compute every logit in float64 by plain matrix products, independently of `exact_logits`, and round once."""
    kernels = [kernel.astype(np.float64) for kernel in network.mlp_kernels]
    logits = np.empty(network.n_items, dtype=np.float32)
    for begin in range(0, network.n_items, _BLOCK):
        block = slice(begin, begin + _BLOCK)
        hidden = np.maximum(network.item_hidden_1[block].astype(np.float64) + user.mlp, 0)
        for kernel, bias in zip(kernels, network.mlp_biases, strict=True):
            hidden = np.maximum(hidden @ kernel + bias, 0)
        gmf = network.item_gmf[block].astype(np.float64) @ user.gmf
        logits[block] = gmf + hidden @ network.output_mlp + network.output_bias
    return logits


# -- loading


def _loading(model: ServingModel) -> Table:
    table = Table(
        f"A model of {len(model.items):,} items and {len(model.users):,} users, loaded by a fresh process",
        {"": "", "seconds": ".2f", "÷ reading": ".2f", "MiB": ",.0f"},
    )
    with tempfile.TemporaryDirectory() as folder:
        write_model(Path(folder), model)
        done = run([sys.executable, "-m", "tests.benchmarks.serving", folder])
    took = json.loads(done.printed)
    table.rows = [
        ["reading its files", took["read_s"], 1.0, took["file_mib"]],
        ["loading: reading, SHA-256, checks of every number", took["load_s"], took["load_s"] / took["read_s"], None],
        ["resident set before loading", None, None, took["before_mib"]],
        ["largest resident set, after 100 recommendations", None, None, took["peak_mib"]],
    ]
    return table


def _load(folder: Path) -> dict[str, float]:
    """Measure loading in a process of its own: medians of three, with the files in the page cache."""
    before = _peak_mib()
    files = [folder / artifact.MANIFEST, folder / artifact.SERVING]
    reads, loads = [], []
    for _ in range(3):
        reads.append(_seconds(lambda: [file.read_bytes() for file in files]))
        loads.append(_seconds(lambda: artifact.read_folder(folder)))
    model = artifact.read_folder(folder)
    for user in model.users[:100]:
        recommend(model, user, n=N)
    return {
        "read_s": float(np.median(reads)),
        "load_s": float(np.median(loads)),
        "file_mib": sum(file.stat().st_size for file in files) / MIB,
        "before_mib": before,
        "peak_mib": _peak_mib(),
    }


def _seconds(call: Callable[[], object]) -> float:
    started = time.perf_counter()
    call()
    return time.perf_counter() - started


def _peak_mib() -> float:
    """Return the largest resident set of this process. `getrusage` would include that of its parent."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return int(status.split("VmHWM:")[1].split()[0]) / 1024


# -- all users


def _all_users(model: ServingModel) -> Table:
    table = Table(
        f"All {len(model.users):,} users of a model of {len(model.items):,} items",
        {"": "", "users": ",d", "users/s": ",.0f", "÷ one by one": ".1f"},
    )
    rows = some_users(model, 300)
    some = [model.users[row] for row in rows]
    search_plain = plain_numpy(model)
    brute_force = len(rows[:50]) / _seconds(lambda: [search_plain(row) for row in rows[:50]])
    single = len(some) / float(np.median([_seconds(lambda: _recommend_each(model, some)) for _ in range(3)]))
    batched = {
        threads: float(np.median([_users_per_s(model, n_threads) for _ in range(3)]))
        for threads, n_threads in (("one thread", 1), ("default threads", None))
    }
    results = {result.user_id: result for result in recommend_all(model, some, n=N)}
    n_equal = sum(results[user] == recommend(model, user, n=N) for user in some)
    table.rows = [
        *([f"recommend_all, {threads}", len(model.users), rate, rate / single] for threads, rate in batched.items()),
        ["recommend, one by one", len(some), single, 1.0],
        ["plain NumPy, one by one", len(rows[:50]), brute_force, brute_force / single],
    ]
    table.notes = [f"{n_equal} of {len(some)} users compared got equal lists with equal scores."]
    return table


def _recommend_each(model: ServingModel, user_ids: Sequence[str]) -> None:
    for user_id in user_ids:
        recommend(model, user_id, n=N)


def _users_per_s(model: ServingModel, n_threads: int | None) -> float:
    users = list(model.users)
    return len(users) / _seconds(lambda: list(recommend_all(model, users, n=N, n_threads=n_threads)))


if __name__ == "__main__":
    main()
