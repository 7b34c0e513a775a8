"""Rows per second of reading a file, against pyarrow's reader with dictionary encoding, and the memory that it takes.

    python -m tests.benchmarks.ingestion [--rows 1000000 20000000] [--repeats 3] [--folder FOLDER]

Each measurement runs in a process of its own on one core, so that its peak memory is its own and both readers have the
same processor. Before it, another process writes to 5 GB of memory. Otherwise, a virtual machine that has returned
free memory to its host would slow down the reader that comes first. The baseline reads the same file with pyarrow and
encodes both id columns; it checks nothing, maps nothing and merges nothing. Measurements of both alternate. The table
shows medians, and the CPU time besides the rate, because it depends less on other programs.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import resource
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq

from recsys_train.data.reader import read_interactions

_CHUNK_ROWS = 1_000_000
_WARM_UP_ROWS = 10_000
_TOUCHED_BYTES = 5 * 10**9


def write_files(folder: Path, n_rows: int) -> list[Path]:
    """Write the same made interactions as CSV and as Parquet; popular items follow Zipf's law."""
    paths = [folder / "made.csv", folder / "made.parquet"]
    generator = np.random.default_rng(0)
    n_users, n_items = max(1_000, n_rows // 20), max(500, n_rows // 200)
    schema = pa.schema([("user_id", pa.string()), ("item_id", pa.string()), ("timestamp", pa.int64())])
    with (
        pyarrow.csv.CSVWriter(
            str(paths[0]), schema, write_options=pyarrow.csv.WriteOptions(quoting_style="none")
        ) as csv,
        pq.ParquetWriter(paths[1], schema) as parquet,
    ):
        for start in range(0, n_rows, _CHUNK_ROWS):
            n = min(_CHUNK_ROWS, n_rows - start)
            users = pa.array(generator.integers(0, n_users, n)).cast(pa.string())
            items = pa.array(np.minimum(generator.zipf(1.3, n), n_items)).cast(pa.string())
            times = pa.array(1_700_000_000 + generator.integers(0, 60_000_000, n))
            chunk = pa.table({"user_id": users, "item_id": items, "timestamp": times}, schema=schema)
            csv.write(chunk)
            parquet.write_table(chunk)
    return paths


def read_ours(path: Path) -> None:
    """Read with every check, map, number and merge."""
    with path.open("rb") as stream:
        read_interactions(stream, max_unpacked_bytes=2**40, timeout_s=3_600)


def read_baseline(path: Path) -> None:
    """Read with pyarrow, and encode both id columns."""
    if path.suffix == ".parquet":
        table = pq.read_table(path, use_threads=False)
    else:
        text = dict.fromkeys(("user_id", "item_id", "timestamp"), pa.string())
        table = pyarrow.csv.read_csv(
            path,
            read_options=pyarrow.csv.ReadOptions(use_threads=False),
            convert_options=pyarrow.csv.ConvertOptions(column_types=text),
        )
    for name in ("user_id", "item_id"):
        table.column(name).combine_chunks().dictionary_encode()


@dataclass(frozen=True, slots=True)
class Measurement:
    """Wall time and CPU time in seconds, and peak memory in MB, of a process that only reads."""

    wall_s: float
    cpu_s: float
    peak_mb: float


def measure(read: Callable[[Path], None], path: Path) -> Measurement:
    """Read a file in a process of its own."""
    with multiprocessing.get_context("spawn").Pool(1, maxtasksperchild=1) as pool:
        pool.apply(_touch_memory)
        return pool.apply(_measure, (read, path))


def _touch_memory() -> None:
    np.ones(_TOUCHED_BYTES, np.uint8)


def _measure(read: Callable[[Path], None], path: Path) -> Measurement:
    if hasattr(os, "sched_setaffinity"):  # before the libraries start threads
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    with tempfile.TemporaryDirectory() as folder:
        for small in write_files(Path(folder), _WARM_UP_ROWS):
            read(small)  # loads the libraries
    started, cpu_started = time.perf_counter(), time.process_time()
    read(path)
    peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return Measurement(time.perf_counter() - started, time.process_time() - cpu_started, peak_mb)


def row_of_table(n_rows: int, path: Path, repeats: int) -> str:
    """Measure both readers in turn, and return a row of the table."""
    pairs = [(measure(read_ours, path), measure(read_baseline, path)) for _ in range(repeats)]
    wall, cpu, peak = (
        [statistics.median(getattr(pair[reader], name) for pair in pairs) for reader in (0, 1)]
        for name in ("wall_s", "cpu_s", "peak_mb")
    )
    rates = f"{n_rows / wall[0]:,.0f} | {n_rows / wall[1]:,.0f} | {wall[1] / wall[0]:.2f}"
    cpu_times = f"{cpu[0]:.2f} | {cpu[1]:.2f} | {cpu[1] / cpu[0]:.2f}"
    return f"| {n_rows:,} | {path.suffix[1:]} | {rates} | {cpu_times} | {peak[0]:,.0f} | {peak[1]:,.0f} |"


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, nargs="+", default=[1_000_000])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--folder", help="where to write the files, which are deleted afterwards")
    arguments = parser.parse_args()
    print(
        "| rows | format | recsys, rows/s | pyarrow, rows/s | ratio | recsys, CPU s | pyarrow, CPU s | ratio | ", end=""
    )
    print("recsys, MB | pyarrow, MB |\n|---|---|---|---|---|---|---|---|---|---|")
    for n_rows in arguments.rows:
        with tempfile.TemporaryDirectory(prefix="recsys-ingestion-", dir=arguments.folder) as folder:
            for path in write_files(Path(folder), n_rows):
                print(row_of_table(n_rows, path, arguments.repeats), flush=True)


if __name__ == "__main__":
    main()
