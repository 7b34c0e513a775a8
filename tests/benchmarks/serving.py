"""Serving beside the plain alternatives, in one run: `make bench-serve`; README.md here says what each row is.

python -m tests.benchmarks.serving [--data FOLDER] [--users 1000] [--large-users 20]
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from recsys.model import artifact
from recsys.model.batch_ranking import recommend_all
from recsys.model.neumf import Floats, Network, User
from recsys.model.recommender import Recommendations, ServingModel, recommend
from recsys.model.top_n import top_n
from tests.benchmarks.measured import run
from tests.benchmarks.protocol import train_file
from tests.benchmarks.serving_models import DEEP, enlarged, trained
from tests.benchmarks.tables import Table
from tests.made_models import write_model

N = 20
BLOCK = 4096
MIB = 2**20


def main() -> None:
    """Print every table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("load", nargs="?", type=Path, help="only load this folder and say what it took")
    parser.add_argument("--users", type=int, default=1000, help="whose lists are compared with brute force")
    parser.add_argument("--large-users", type=int, default=20, help="the same for a million items")
    parser.add_argument("--data", type=Path, help="folder with Gowalla, whose model is then measured too")
    arguments = parser.parse_args()
    if arguments.load is not None:
        print(json.dumps(_load(arguments.load)))
        return
    deep, deep_folder = trained("deep", **DEEP)
    shipped, _ = trained("shipped")
    gowalla = None
    if arguments.data is not None:
        gowalla, _ = trained("gowalla", train_file("gowalla", arguments.data))
    # First: who recommends to all users has no TensorFlow in the process.
    print(_batch(gowalla or enlarged(shipped, 40_981, 29_858)).text(), "\n", flush=True)
    speed = Table(
        f"Top {N}, one thread, milliseconds",
        {"": "", "items": ",d", "p50": ".3f", "p99": ".3f", "÷ one read": ".2f", "÷ ours": ".1f"},
    )
    equality = Table("Lists equal to brute force", {"": "", "users": ",d", "lists": ",d", "equal": ",d"})
    _compare(speed, equality, "deep", enlarged(deep, 4000, 4000), arguments.users, keras=deep_folder)
    _compare(speed, equality, "as shipped", shipped, arguments.users)
    _compare(speed, equality, "deep", deep, arguments.users)
    if gowalla is not None:
        _compare(speed, equality, "as shipped, Gowalla", gowalla, arguments.users)
    large = enlarged(deep, 1_000_000, 1_000_000)
    _compare(speed, equality, "deep", large, arguments.large_users)
    print(speed.text(), "\n", equality.text(), "\n", sep="\n", flush=True)
    print(_cold(large).text())


# -- one user


def _compare(
    speed: Table, equality: Table, name: str, model: ServingModel, n_users: int, *, keras: Path | None = None
) -> None:
    print(f"{name}, {len(model.items):,} items …", file=sys.stderr, flush=True)
    users = _some_users(model, n_users)
    n_timed = min(len(users), 200)
    ours = _times([lambda user=user: recommend(model, user, n=N) for user in users[:n_timed]])
    network = model.network
    read = _times([lambda: (network.item_gmf.max(), network.item_hidden_1.max())] * 15)
    one_read = float(np.median(read))
    rows = {f"ours, {name}": ours, "one read of the item matrices": read}
    vector = network.user(model.seen(0))
    rows["the GMF product alone"] = _times([lambda: network.item_gmf @ vector.gmf] * 15)
    rows["NumPy, every logit"] = _times([lambda: _every_logit(network, vector)] * 15)
    if keras is not None:
        rows |= _keras_times(keras, len(model.items))
    for row, times in rows.items():
        p50 = float(np.median(times))
        speed.rows.append([row, len(model.items), p50, np.quantile(times, 0.99), p50 / one_read, p50 / np.median(ours)])
    n_lists, n_equal = _count_equal(model, users)
    equality.rows.append([f"{name}, {len(model.items):,} items", len(users), n_lists, n_equal])


def _some_users(model: ServingModel, n_users: int) -> list[str]:
    rows = np.random.default_rng(1).permutation(len(model.users))[:n_users]
    return [model.users[row] for row in rows.tolist()]


def _times(calls: Sequence[Callable[[], object]]) -> list[float]:
    """Milliseconds of each call; the first is made once before."""
    calls[0]()
    times = []
    for call in calls:
        started = time.perf_counter()
        call()
        times.append((time.perf_counter() - started) * 1000)
    return times


def _every_logit(network: Network, user: User) -> object:
    """Brute force: what ours would be without bounds."""
    return top_n(network.logits(user), N, excluded=np.zeros(0, dtype=np.int64))


def _keras_times(folder: Path, n_items: int) -> dict[str, list[float]]:
    """Keras scoring as many pairs as there are items, with the trained model that the others are drawn after."""
    import keras  # noqa: PLC0415

    model: Any = keras.models.load_model(folder / artifact.MODEL)
    n_trained = model.get_layer("gmf_item").input_dim
    pairs = [np.zeros(n_items, dtype=np.int32), np.arange(n_items, dtype=np.int32) % n_trained]
    return {
        "Keras predict": _times([lambda: model.predict(pairs, verbose=0)] * 15),
        "Keras predict, all in one batch": _times([lambda: model.predict(pairs, verbose=0, batch_size=n_items)] * 15),
    }


# -- exactness


def _count_equal(model: ServingModel, users: Iterable[str]) -> tuple[int, int]:
    """How many lists were asked for, and how many of them are those of brute force."""
    generator = np.random.default_rng(2)
    n_lists = n_equal = 0
    for user in users:
        seen = model.seen(_row(model, user))
        logits = _exact(model.network, model.network.user(seen.astype(np.int64)))
        popular = np.argsort(-logits)[:100]
        left_out, among = generator.choice(popular, 50), generator.integers(0, len(model.items), 500)
        everything = np.arange(len(model.items))
        for options, excluded in (
            ({}, seen),
            ({"exclude_seen": False}, seen[:0]),
            ({"exclude_items": _ids(model, left_out)}, np.append(seen, left_out)),
            ({"candidates": _ids(model, among)}, np.append(seen, np.setdiff1d(everything, among))),
            ({"candidates": _ids(model, seen)}, everything),
        ):
            best = top_n(logits, N, excluded=excluded.astype(np.int64))
            got = [item.item_id for item in recommend(model, user, n=N, **options).items]  # type: ignore[arg-type]
            n_lists += 1
            n_equal += got == _ids(model, best)
    return n_lists, n_equal


def _row(model: ServingModel, user: str) -> int:
    row = model.users.find(user)
    assert row is not None
    return row


def _ids(model: ServingModel, rows: np.ndarray[Any, Any]) -> list[str]:
    return [model.items[row] for row in rows.tolist()]


def _exact(network: Network, user: User) -> Floats:
    """Every logit in float64, by other means than ours, rounded once."""
    kernels = [kernel.astype(np.float64) for kernel in network.mlp_kernels]
    logits = np.empty(network.n_items, dtype=np.float32)
    for begin in range(0, network.n_items, BLOCK):
        block = slice(begin, begin + BLOCK)
        hidden = np.maximum(network.item_hidden_1[block].astype(np.float64) + user.mlp, 0)
        for kernel, bias in zip(kernels, network.mlp_biases, strict=True):
            hidden = np.maximum(hidden @ kernel + bias, 0)
        gmf = network.item_gmf[block].astype(np.float64) @ user.gmf
        logits[block] = gmf + hidden @ network.output_mlp + network.output_bias
    return logits


# -- loading


def _cold(model: ServingModel) -> Table:
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
        ["loading: read, SHA-256, every number checked", took["load_s"], took["load_s"] / took["read_s"], None],
        ["resident set before loading", None, None, took["before_mib"]],
        ["resident set of the process at its largest, after 100 answers", None, None, took["peak_mib"]],
    ]
    return table


def _load(folder: Path) -> dict[str, float]:
    """What loading takes, in a process of its own; medians of three, the files in the page cache."""
    before = _peak_mib()
    files = [folder / artifact.MANIFEST, folder / artifact.SERVING]
    reads, loads = [], []
    for _ in range(3):
        reads += _times_once(lambda: [file.read_bytes() for file in files])
        loads += _times_once(lambda: artifact.read_folder(folder))
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


def _times_once(call: Callable[[], object]) -> list[float]:
    started = time.perf_counter()
    call()
    return [time.perf_counter() - started]


def _peak_mib() -> float:
    """The largest resident set of this program; what `getrusage` says counts the one that started it too."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return int(status.split("VmHWM:")[1].split()[0]) / 1024


# -- all users


def _batch(model: ServingModel) -> Table:
    table = Table(
        f"All {len(model.users):,} users of a model of {len(model.items):,} items",
        {"": "", "users": ",d", "users/s": ",.0f", "÷ one by one": ".1f"},
    )
    some = _some_users(model, 300)
    brute = 1000 / float(np.mean(_times([lambda user=user: _one_by_brute_force(model, user) for user in some[:50]])))
    alone = 1000 / float(np.median([_mean_time(model, some) for _ in range(3)]))
    together = {
        threads: float(np.median([_users_per_s(model, n_threads) for _ in range(3)]))
        for threads, n_threads in (("one thread", 1), ("as it is called", None))
    }
    answers = {answer.user_id: answer for answer in recommend_all(model, some, n=N)}
    n_equal = sum(answers[user] == recommend(model, user, n=N) for user in some)
    table.rows = [
        *([f"recommend_all, {threads}", len(model.users), rate, rate / alone] for threads, rate in together.items()),
        ["recommend, one by one", len(some), alone, 1.0],
        ["NumPy, every logit, one by one", 50, brute, brute / alone],
    ]
    table.notes = [f"{n_equal} of {len(some)} users compared got the same list with the same scores."]
    return table


def _mean_time(model: ServingModel, users: Sequence[str]) -> float:
    return float(np.mean(_times([lambda user=user: recommend(model, user, n=N) for user in users])))


def _users_per_s(model: ServingModel, n_threads: int | None) -> float:
    users = list(model.users)
    started = time.perf_counter()
    for _ in recommend_all(model, users, n=N, n_threads=n_threads):
        pass
    return len(users) / (time.perf_counter() - started)


def _one_by_brute_force(model: ServingModel, user: str) -> Recommendations | object:
    return _every_logit(model.network, model.network.user(model.seen(_row(model, user)).astype(np.int64)))


if __name__ == "__main__":
    main()
