"""Fuzz the reader of interactions with damaged files until the time is over.

python -m tests.benchmarks.fuzz_reader [--seconds 300] [--seed 0] [--folder FOLDER]

Hypothesis changes the files of `tests/data_files` and shrinks what it finds. A file must be read or rejected with
`InvalidData`, within two seconds of processor time per MB and not less than two seconds. The last file is written to
`FOLDER/last.bin` before it is read, so that it remains if the process crashes; a read of more than a minute ends the
process with a traceback.
"""

from __future__ import annotations

import argparse
import contextlib
import faulthandler
import io
import itertools
import time
from collections import Counter
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, Phase, given, seed, settings

from recsys.errors import InvalidData, InvalidRequest
from recsys.file_options import FileOptions
from recsys_train.data.reader import read_interactions
from tests.data_files.mutations import OPTIONS, damaged_files

MAX_S_PER_MB = 2.0
MAX_UNPACKED_BYTES = 10**8
HANG_S = 60
EXAMPLES_PER_ROUND = 500


class Fuzzer:
    """Reads files, and counts the outcomes by the code of the problem."""

    def __init__(self, folder: Path) -> None:
        self._last = folder / "last.bin"
        self.outcomes: Counter[str] = Counter()
        self.slowest_s_per_mb = 0.0

    def read(self, content: bytes, given_options: dict[str, Any]) -> None:
        """Read one file, and check the time that it took."""
        with contextlib.suppress(InvalidRequest):
            options = FileOptions.of(given_options)
            self._last.write_bytes(repr(given_options).encode() + b"\n" + content)
            faulthandler.dump_traceback_later(HANG_S, exit=True)
            started = time.process_time()
            outcome = read_or_reject(content, options)
            seconds = time.process_time() - started
            faulthandler.cancel_dump_traceback_later()
            self.outcomes[outcome] += 1
            megabytes = max(1.0, len(content) / 1e6)
            self.slowest_s_per_mb = max(self.slowest_s_per_mb, seconds / megabytes)
            assert seconds / megabytes < MAX_S_PER_MB, f"{seconds:.1f} s for {megabytes:.1f} MB"


def read_or_reject(content: bytes, options: FileOptions) -> str:
    """Return the code of the problem, or `read`."""
    try:
        read_interactions(io.BytesIO(content), max_unpacked_bytes=MAX_UNPACKED_BYTES, options=options)
    except InvalidData as error:
        return error.problem_code
    return "read"


def main() -> None:
    """Run rounds of Hypothesis, each with its own seed, and print the outcomes."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--seconds", type=float, default=300)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--folder", type=Path, default=Path())
    arguments = parser.parse_args()
    faulthandler.enable()
    fuzzer = Fuzzer(arguments.folder)
    ends = time.monotonic() + arguments.seconds
    for number in itertools.count(arguments.seed):
        if time.monotonic() > ends:
            break

        @seed(number)
        @settings(
            max_examples=EXAMPLES_PER_ROUND,
            deadline=None,
            database=None,
            phases=[Phase.generate, Phase.shrink],
            suppress_health_check=list(HealthCheck),
        )
        @given(content=damaged_files(), options=OPTIONS)
        def read(content: bytes, options: dict[str, Any]) -> None:
            fuzzer.read(content, options)

        read()
    fuzzer._last.unlink(missing_ok=True)
    print(f"{fuzzer.outcomes.total():,} files, slowest {fuzzer.slowest_s_per_mb:.2f} s per MB")
    for outcome, count in fuzzer.outcomes.most_common():
        print(f"{count:8,d}  {outcome}")


if __name__ == "__main__":
    main()
